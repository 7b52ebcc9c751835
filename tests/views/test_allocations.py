"""One allocation: its details, editing and releasing it."""

import re
import socket

import pytest
from django.test import Client
from django.urls import reverse

from allocations.models import PortAllocation
from allocations.ports import PortManager
from tests.make import FIRST

from .helpers import HTMX, is_page, text

pytestmark = pytest.mark.django_db


def test_details_checks_and_events_are_shown(
    viewer: Client, ports: PortManager, web: PortAllocation, operator: Client
) -> None:
    with socket.create_server(("127.0.0.1", FIRST)):
        ports.audit()
    ports.audit()
    content = text(viewer.get(reverse("allocation", args=[web.pk])))
    for expected in (
        f"localhost:{FIRST}",
        "The shop",
        "http",
        f"shop {FIRST}–{FIRST + 19}",
        "up in 50.0 % of 2",
        "not running",
    ):
        assert expected in content
    assert f"test allocated web {FIRST}/tcp" in content


def test_text_from_users_is_escaped(operator: Client, ports: PortManager) -> None:
    ports.allocate("shop", "web", description="<script>alert(1)</script>", metadata={"<b>": "<i>"})
    for address in ("/projects/shop", reverse("allocation", args=[PortAllocation.objects.get().pk]), "/events"):
        content = operator.get(address).content
        assert b"<script>alert" not in content
        assert b"<i>" not in content


def test_edit_in_place(operator: Client, web: PortAllocation) -> None:
    address = reverse("allocation-edit", args=[web.pk])
    form = operator.get(address, headers=HTMX)
    assert form.content.strip().startswith(f'<tr id="a-{web.pk}"'.encode())
    fields = {
        f"a{web.pk}-{name}": value
        for name, value in {"service_name": "front", "description": "Now", "service_type": ""}.items()
    }
    row = operator.post(address, fields, headers=HTMX)
    assert row.status_code == 200
    assert row.content.strip().startswith(f'<tr id="a-{web.pk}"'.encode())
    assert b"<strong>front</strong>" in row.content
    assert operator.post(address, fields).status_code == 303
    web.refresh_from_db()
    assert (web.service_name, web.description, web.service_type) == ("front", "Now", "")
    cancelled = operator.get(reverse("allocation-row", args=[web.pk]), headers=HTMX)
    assert b"<strong>front</strong>" in cancelled.content


def test_a_refusal_is_shown_beside_its_field(operator: Client, ports: PortManager, web: PortAllocation) -> None:
    ports.allocate("shop", "api", cloudflare_hostname="api.example.com")
    address = reverse("allocation-edit", args=[web.pk])
    fields = {f"a{web.pk}-service_name": "web", f"a{web.pk}-cloudflare_hostname": "api.example.com"}
    for headers in ({}, HTMX):
        response = operator.post(address, fields, headers=headers)
        assert response.status_code == 409
        assert "api.example.com already points at shop/api" in text(response)
    assert operator.post(address, {f"a{web.pk}-service_name": ""}).status_code == 422


def test_release_asks_for_confirmation_and_names_the_listener(operator: Client, ports: PortManager) -> None:
    allocation = ports.allocate("shop", "web", port_number=FIRST + 1)
    address = reverse("release", args=[allocation.pk])
    assert "Nothing is listening there now" in text(operator.get(address))
    with socket.create_server(("127.0.0.1", FIRST + 1)):
        dialog = operator.get(address, headers=HTMX)
    assert not is_page(dialog)
    assert re.search(rf"Release {FIRST + 1}/tcp of shop/web\?.*\(pid \d+\) is listening there now", text(dialog))
    allocation.refresh_from_db()
    assert allocation.is_held


@pytest.mark.parametrize("headers", [{}, HTMX], ids=["page", "htmx"])
def test_release(operator: Client, web: PortAllocation, headers: dict[str, str]) -> None:
    address = reverse("release", args=[web.pk])
    response = operator.post(address, headers=headers)
    if headers:
        assert response.content.strip().startswith(b'<div id="project"')
        assert f"shop/web released {FIRST}/tcp." in text(response)
    else:
        assert (response.status_code, response["Location"]) == (303, "/projects/shop")
    web.refresh_from_db()
    assert not web.is_held
    again = operator.post(address, headers=headers)
    assert again.status_code == 409
    assert "a released allocation never changes" in text(again)
    assert again["HX-Retarget"] == "#dialog"


def test_the_owner_is_shown_searchable_and_recorded(operator: Client, web: PortAllocation) -> None:
    form = {f"a{web.pk}-{name}": value for name, value in (("service_name", "web"), ("owner", "team-payments"))}
    assert operator.post(reverse("allocation-edit", args=[web.pk]), form).status_code == 303
    page = text(operator.get(reverse("allocation", args=[web.pk])))
    assert "Owner team-payments" in page
    assert "owner: from – → team-payments" in page
    assert "Owner: team-payments" in text(operator.get("/projects/shop"))
    assert "shop/web" in text(operator.get("/search?q=payments"))
