"""Home and search."""

import re
import socket

import pytest
from django.test import Client
from django.urls import reverse

from allocations.models import PortAllocation
from allocations.ports import PortManager

from .reading import HTMX, is_page, text

pytestmark = pytest.mark.django_db


def test_home_shows_each_project_and_the_totals(viewer: Client, ports: PortManager, web: PortAllocation) -> None:
    ports.reserve("shop", 20510)
    shown = text(viewer.get("/"))
    assert re.search(r"shop 20500–20519 2 of 20 held, 1 reserved 10 %", shown)
    assert "Allocated 1 + 1 reserved" in shown
    assert "1 not audited yet" in shown
    assert "No audit has run yet" in shown


def test_home_says_what_to_do_first(viewer: Client, admin: Client) -> None:
    assert "Ask an admin" in text(viewer.get("/"))
    assert b'href="/add-project"' in admin.get("/").content


def test_htmx_gets_the_part_and_everybody_else_the_page(viewer: Client, ports: PortManager) -> None:
    part, whole = viewer.get("/", headers=HTMX), viewer.get("/")
    assert part.content.strip().startswith(b'<div id="home"')
    assert is_page(whole)
    assert not is_page(part)
    assert is_page(viewer.get("/", headers=HTMX | {"HX-Boosted": "true"}))
    assert is_page(viewer.get("/", headers=HTMX | {"HX-History-Restore-Request": "true"}))
    assert "HX-Request" in whole["Vary"]


@pytest.mark.parametrize(
    ("used", "words"), [(15, "75 %"), (16, "80 %, filling up"), (19, "95 %, almost full"), (20, "full")]
)
def test_a_bar_says_how_full_it_is(viewer: Client, ports: PortManager, used: int, words: str) -> None:
    ports.reserve_block("shop", 20500, 20500 + used - 1)
    response = viewer.get("/")
    assert f"{used} of 20 held, {used} reserved {words} " in text(response)
    assert f'viewBox="0 0 20 8" preserveAspectRatio="none" role="img" aria-label="{used * 5} % held"'.encode() in (
        response.content
    )


def test_audit_now_looks_and_shows_what_it_saw(
    viewer: Client, ports: PortManager, web: PortAllocation, listener: socket.socket
) -> None:
    response = viewer.post("/audit", headers=HTMX)
    assert response.status_code == 200
    assert response.content.strip().startswith(b'<div id="home"')
    shown = text(response)
    assert "Audited: 0 of 1 services listen." in shown
    assert "Not running 1" in shown
    assert "Unallocated listeners 1" in shown
    assert "Last audit just now by a-viewer" in shown
    assert viewer.post("/audit").status_code == 303


@pytest.mark.parametrize("query", ["shop", "web", "20500", "shop/web", "The sho"])
def test_search_finds(viewer: Client, web: PortAllocation, query: str) -> None:
    response = viewer.get("/search", {"q": query}, headers=HTMX)
    assert not is_page(response)
    assert reverse("allocation", args=[web.pk]).encode() in response.content


def test_search_finds_a_host_a_project_and_a_listener(
    viewer: Client, ports: PortManager, listener: socket.socket
) -> None:
    ports.allocate("shop", "far", hostname="db-1.example.com")
    ports.audit(hostname="localhost")
    assert "db-1.example.com" in text(viewer.get("/search", {"q": "db-1"}))
    assert b'href="/projects/shop"' in viewer.get("/search", {"q": "sho"}).content
    assert b'href="/listeners#port-20501"' in viewer.get("/search", {"q": "20501"}).content


def test_search_leads_to_a_free_port(viewer: Client, ports: PortManager) -> None:
    response = viewer.get("/search", {"q": "20507"})
    assert "lies in shop (20500-20519) of shop and is free" in text(response)
    assert b'href="/projects/shop?port=20507"' in response.content


@pytest.mark.parametrize("query", ["", "nothing-like-it", "99999999", "a\0b", "%", "'; --", "x" * 5000])
def test_search_takes_anything(viewer: Client, ports: PortManager, query: str) -> None:
    assert viewer.get("/search", {"q": query}).status_code == 200
