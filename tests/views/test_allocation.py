"""One allocation: everything about it, edit, release."""

import re
import socket

import pytest
from django.test import Client
from django.urls import reverse

from allocations.models import PortAllocation
from allocations.ports import PortManager

from .reading import HTMX, is_page, text

pytestmark = pytest.mark.django_db


def test_an_allocation_shows_all_that_is_known(
    viewer: Client, ports: PortManager, web: PortAllocation, operator: Client
) -> None:
    with socket.create_server(("127.0.0.1", 20500)):
        ports.audit()
    ports.audit()
    shown = text(viewer.get(reverse("allocation", args=[web.pk])))
    for what in ("localhost:20500", "The shop", "http", "shop 20500–20519", "up in 50.0 % of 2", "not running"):
        assert what in shown
    assert "test allocated web 20500/tcp" in shown


def test_what_people_wrote_is_text(operator: Client, ports: PortManager) -> None:
    ports.allocate("shop", "web", description="<script>alert(1)</script>", metadata={"<b>": "<i>"})
    for address in ("/projects/shop", reverse("allocation", args=[PortAllocation.objects.get().pk]), "/events"):
        shown = operator.get(address).content
        assert b"<script>alert" not in shown
        assert b"<i>" not in shown


def test_edit_in_place(operator: Client, web: PortAllocation) -> None:
    address = reverse("allocation-edit", args=[web.pk])
    form = operator.get(address, headers=HTMX)
    assert form.content.strip().startswith(f'<tr id="a-{web.pk}"'.encode())
    fields = {
        f"a{web.pk}-{name}": value
        for name, value in {"new_name": "front", "description": "Now", "service_type": ""}.items()
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


def test_edit_refuses_beside_the_field(operator: Client, ports: PortManager, web: PortAllocation) -> None:
    ports.allocate("shop", "api", cloudflare_hostname="api.example.com")
    address = reverse("allocation-edit", args=[web.pk])
    fields = {f"a{web.pk}-new_name": "web", f"a{web.pk}-cloudflare_hostname": "api.example.com"}
    for headers in ({}, HTMX):
        response = operator.post(address, fields, headers=headers)
        assert response.status_code == 409
        assert "api.example.com points at shop/api already" in text(response)
    assert operator.post(address, {f"a{web.pk}-new_name": ""}).status_code == 422


def test_release_asks_and_names_what_listens(operator: Client, ports: PortManager) -> None:
    held = ports.allocate("shop", "web", port=20501)
    address = reverse("release", args=[held.pk])
    assert "Nothing listens there now" in text(operator.get(address))
    with socket.create_server(("127.0.0.1", 20501)):
        asked = operator.get(address, headers=HTMX)
    assert not is_page(asked)
    assert re.search(r"Release 20501/tcp of shop/web\?.*\(pid \d+\) listens there now", text(asked))
    held.refresh_from_db()
    assert held.is_held


@pytest.mark.parametrize("headers", [{}, HTMX], ids=["page", "htmx"])
def test_release(operator: Client, web: PortAllocation, headers: dict[str, str]) -> None:
    address = reverse("release", args=[web.pk])
    response = operator.post(address, headers=headers)
    if headers:
        assert response.content.strip().startswith(b'<div id="project"')
        assert "shop/web released 20500/tcp." in text(response)
    else:
        assert (response.status_code, response["Location"]) == (303, "/projects/shop")
    web.refresh_from_db()
    assert not web.is_held
    again = operator.post(address, headers=headers)
    assert again.status_code == 409
    assert "a released allocation never changes" in text(again)
    assert again["HX-Retarget"] == "#dialog"
