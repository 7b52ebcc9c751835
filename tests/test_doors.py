"""The same wish through every door gives the same row; the same mistake, the same refusal."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from allocations.errors import PortError
from allocations.models import Event, PortAllocation, Project
from allocations.ports import PortManager
from tests import make

pytestmark = pytest.mark.django_db
FIRST = make.FIRST
Door = Callable[[str, str, dict[str, Any]], str]


@pytest.fixture
def browser() -> Client:
    user = User.objects.create_user("ann", password="x", is_staff=True)
    user.groups.add(Group.objects.get(name="admin"))
    client = Client()
    client.force_login(user)
    return client


def by_python(project: str, service: str, wanted: dict[str, Any]) -> str:
    try:
        PortManager(actor="ann").allocate(project, service, **wanted)
    except PortError as refusal:
        return refusal.sentence
    return ""


def by_command(project: str, service: str, wanted: dict[str, Any]) -> str:
    flags = {"hostname": "--host", "service_type": "--type"}
    words = [
        w for k, v in wanted.items() for w in (flags.get(k, "--" + k.replace("_", "-").removesuffix("-name")), str(v))
    ]
    try:
        call_command("allocate", project, service, "--new", *words, stdout=io.StringIO(), stderr=io.StringIO())
    except CommandError as refusal:
        return str(refusal)
    return ""


@pytest.fixture
def by_page(browser: Client) -> Door:
    def door(project: str, service: str, wanted: dict[str, Any]) -> str:
        data = {"service_name": service, "hostname": "localhost", "protocol": "tcp"} | wanted
        response = browser.post(reverse("allocate", args=[project]), data)
        if response.status_code == 303:
            return ""
        errors = (
            response.context["allocate_form"].errors if response.context and "allocate_form" in response.context else {}
        )
        return next((messages[0] for messages in errors.values()), "") or response.context["refusal"].sentence

    return door


@pytest.fixture
def by_admin(browser: Client) -> Door:
    def door(project: str, service: str, wanted: dict[str, Any]) -> str:
        data = {"service_name": service, "hostname": "localhost", "protocol": "tcp", "metadata": "{}"} | wanted
        data["project"] = Project.objects.get(name=project).pk
        response = browser.post(reverse("admin:allocations_portallocation_add"), data)
        if response.status_code == 302:
            return ""
        return next(iter(response.context["adminform"].form.errors.values()))[0]

    return door


@pytest.fixture
def by_api() -> Door:
    secret = PortManager(actor="ann").create_token("ann", role="operator")[1]
    client = Client(headers={"Authorization": f"Bearer {secret}"})
    names = {"service_type": "serviceType", "cloudflare_hostname": "cloudflareHostname", "range_name": "range"}

    def door(project: str, service: str, wanted: dict[str, Any]) -> str:
        body = {names.get(name, name): value for name, value in wanted.items()}
        asked = {"project": project, "service": service, "new": True, **body}
        answer = client.post("/api/ports", asked, content_type="application/json")
        return "" if answer.status_code == 201 else str(answer.json()["detail"])

    return door


@pytest.fixture(params=["python", "command", "page", "admin", "api"])
def door(request: pytest.FixtureRequest) -> Door:
    if request.param == "python":
        return by_python
    if request.param == "command":
        return by_command
    found: Door = request.getfixturevalue(f"by_{request.param}")
    return found


WISH = {
    "service_type": "web",
    "description": "The shop",
    "hostname": "Web-1",
    "protocol": "udp",
    "cloudflare_hostname": "Shop.Example.com",
    "port": FIRST + 7,
}


def test_the_same_row(door: Door) -> None:
    make.port_range("shop", FIRST, 20)
    assert door("shop", "api", WISH) == ""
    row = PortAllocation.objects.get()
    assert (row.project.name, row.service_name, row.instance, row.status) == ("shop", "api", 0, "allocated")
    assert (row.port_number, row.hostname, row.protocol) == (FIRST + 7, "web-1", "udp")
    assert (row.service_type, row.description, row.cloudflare_hostname) == ("web", "The shop", "shop.example.com")
    assert Event.objects.filter(verb="allocated").count() == 1


MISTAKES: dict[str, tuple[str, dict[str, Any]]] = {
    "invalid_name": ("A B", {}),
    "host": ("api", {"hostname": "a b"}),
    "port_taken": ("api", {"port": FIRST}),
    "port_out_of_range": ("api", {"port": FIRST + 50}),
    "no_port": ("api", {"port": 70000}),
    "hostname_taken": ("api", {"cloudflare_hostname": "a.example.com"}),
    "no_hostname": ("api", {"cloudflare_hostname": "a b"}),
    "unknown_range": ("api", {"range_name": "nope"}),
    "foreign_range": ("api", {"range_name": "other"}),
    "range_exhausted": ("api", {"range_name": "full"}),
}


@pytest.mark.parametrize("mistake", sorted(MISTAKES))
def test_the_same_refusal(door: Door, mistake: str) -> None:
    make.port_range("shop", FIRST, 20)
    make.port_range("other", FIRST + 20, 5)
    make.manager().add_range("shop", "full", FIRST + 60, FIRST + 60)
    make.manager().allocate("shop", "first", cloudflare_hostname="a.example.com")
    make.manager().allocate("shop", "last", range_name="full")
    service, wanted = MISTAKES[mistake]
    expected = by_python("shop", service, wanted)
    assert expected
    before = PortAllocation.objects.count()
    assert door("shop", service, wanted) == expected
    assert PortAllocation.objects.count() == before
