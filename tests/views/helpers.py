"""Helpers for the tests of the pages: the headers of htmx, the text of a response, and the address of every page."""

import re
from typing import Any

from django.urls import reverse

from allocations import urls
from allocations.models import PortAllocation

HTMX = {"HX-Request": "true"}


def text(response: Any) -> str:
    """Return the text of a response without its tags, on one line."""
    content = re.sub(r"<[^>]+>", " ", response.content.decode())
    return re.sub(r"\s+", " ", content)


def is_page(response: Any) -> bool:
    """Return whether a response is a whole page, and not a fragment."""
    return b"<!DOCTYPE html>" in response.content


def addresses(web: PortAllocation) -> list[str]:
    """Return an address of every page, except those that anybody may open."""
    values = {"name": "shop", "pk": web.pk}
    addresses = []
    for pattern in urls.urlpatterns:
        names = re.findall(r"<\w+:(\w+)>", str(pattern.pattern))
        kwargs = {name: web.port_range_id if "ranges/" in str(pattern.pattern) else values[name] for name in names}
        addresses.append(reverse(pattern.name or "", kwargs=kwargs))
    return [address for address in addresses if address not in ("/login", "/logout", "/metrics", "/mcp")]
