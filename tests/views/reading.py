"""What the tests of pages share: who asks, and what is read of an answer."""

import re
from typing import Any

from django.contrib.auth.models import Group, User
from django.test import Client
from django.urls import reverse

from allocations import urls
from allocations.models import PortAllocation

HTMX = {"HX-Request": "true"}
PASSWORD = "correct-horse-1"


def login(role: str) -> Client:
    user = User.objects.create_user(f"a-{role or 'nobody'}", password=PASSWORD)
    user.groups.set(Group.objects.filter(name=role))
    client = Client()
    client.force_login(user)
    return client


def text(response: Any) -> str:
    """What a person reads of an answer, on one line."""
    found = re.sub(r"<[^>]+>", " ", response.content.decode())
    return re.sub(r"\s+", " ", found)


def is_page(response: Any) -> bool:
    return b"<!DOCTYPE html>" in response.content


def addresses(web: PortAllocation) -> list[str]:
    """An address of every page but those that anybody may open."""
    given = {"name": "shop", "pk": web.pk}
    found = []
    for pattern in urls.urlpatterns:
        wanted = re.findall(r"<\w+:(\w+)>", str(pattern.pattern))
        kwargs = {name: web.port_range_id if "ranges/" in str(pattern.pattern) else given[name] for name in wanted}
        found.append(reverse(pattern.name or "", kwargs=kwargs))
    return [address for address in found if address not in ("/login", "/logout", "/metrics", "/mcp")]
