"""A form that was opened before somebody else's change overwrites nothing, and shows both values."""

from __future__ import annotations

import re

import pytest
from django.test import Client
from django.urls import reverse

from allocations.models import PortAllocation, PortRange, Project
from allocations.ports import PortManager, allocations, projects, ranges
from tests.make import FIRST

from .helpers import HTMX, text

pytestmark = pytest.mark.django_db


def opened(client: Client, address: str) -> dict[str, str]:
    """Return the values of a form as a browser has them when it has opened the page."""
    form = client.get(address).context["form"]
    return {form.add_prefix(name): form[name].value() or "" for name in form.fields if form[name].value() is not False}


def version_in(page: str) -> str:
    found = re.search(r'name="(?:a[^"]*-)?version" value="([^"]+)"', page)
    assert found
    return found[1]


@pytest.mark.parametrize("headers", [{}, HTMX])
def test_allocation(operator: Client, web: PortAllocation, ports: PortManager, headers: dict[str, str]) -> None:
    address = reverse("allocation-edit", args=[web.pk])
    data = opened(operator, address)
    allocations.update_by_id(ports.context, web.pk, description="Theirs")
    owner, description = f"a{web.pk}-owner", f"a{web.pk}-description"
    refused = operator.post(address, data | {description: "Mine", owner: "anna"}, headers=headers)
    assert refused.status_code == 409
    assert "Somebody has changed this since you opened the form" in text(refused)
    assert "It is now: Theirs." in text(refused)
    assert ">Mine</textarea>" in refused.content.decode().replace("\n", "")
    web.refresh_from_db()
    assert (web.description, web.owner) == ("Theirs", "")

    data[f"a{web.pk}-version"] = version_in(refused.content.decode())
    saved = operator.post(address, data | {description: "Mine", owner: "anna"}, headers=headers)
    assert saved.status_code in (200, 303)
    web.refresh_from_db()
    assert (web.description, web.owner) == ("Mine", "anna")


def test_reservation(operator: Client, ports: PortManager) -> None:
    reserved = ports.reserve("shop", FIRST + 5, note="phase 1")
    address = reverse("allocation-edit", args=[reserved.pk])
    data = opened(operator, address)
    allocations.update_by_id(ports.context, reserved.pk, description="phase 2")
    refused = operator.post(address, data | {f"a{reserved.pk}-description": "phase 3"})
    assert (refused.status_code, "It is now: phase 2." in text(refused)) == (409, True)


def test_project(admin: Client, ports: PortManager) -> None:
    address = reverse("project-edit", args=["shop"])
    data = opened(admin, address)
    projects.update(ports.context, "shop", description="Theirs")
    refused = admin.post(address, data | {"description": "Mine"})
    assert (refused.status_code, "It is now: Theirs." in text(refused)) == (409, True)
    assert Project.objects.get(name="shop").description == "Theirs"


def test_range(admin: Client, ports: PortManager) -> None:
    row = PortRange.objects.get(range_name="shop")
    address = reverse("range-edit", args=[row.pk])
    data = opened(admin, address) | {"project": "shop"}
    ranges.update(ports.context, row.pk, end_port=FIRST + 29)
    refused = admin.post(address, data)
    assert (refused.status_code, f"It is now: {FIRST + 29}." in text(refused)) == (409, True)
    row.refresh_from_db()
    assert row.end_port == FIRST + 29
