"""The home page, search and the history."""

import html
import re
import socket
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from allocations.models import Event, PortAllocation
from allocations.ports import PortManager, projects, ranges, reservations
from tests.make import FIRST

from .helpers import HTMX, is_page, text

pytestmark = pytest.mark.django_db


def test_home_shows_each_project_and_the_totals(viewer: Client, ports: PortManager, web: PortAllocation) -> None:
    ports.reserve("shop", FIRST + 10)
    content = text(viewer.get("/"))
    assert re.search(rf"shop {FIRST}–{FIRST + 19} 2 of 20 held, 1 reserved 10 %", content)
    assert "Allocated 1 + 1 reserved" in content
    assert "1 not audited yet" in content
    assert "No audit has run yet" in content


def test_a_card_says_how_many_ranges_a_project_has(viewer: Client, ports: PortManager) -> None:
    assert f"{FIRST}–{FIRST + 19} in" not in text(viewer.get("/"))
    ranges.add(ports.context, "shop", "more", FIRST + 100, FIRST + 109)
    assert f"{FIRST}–{FIRST + 109} in 2" in text(viewer.get("/"))


def test_an_empty_home_page_says_what_to_do_first(viewer: Client, admin: Client) -> None:
    assert "Ask an admin" in text(viewer.get("/"))
    assert b'href="/add-project"' in admin.get("/").content


def test_htmx_gets_a_fragment_and_browsers_get_the_page(viewer: Client, ports: PortManager) -> None:
    fragment, page = viewer.get("/", headers=HTMX), viewer.get("/")
    assert fragment.content.strip().startswith(b'<div id="home"')
    assert is_page(page)
    assert not is_page(fragment)
    assert is_page(viewer.get("/", headers=HTMX | {"HX-Boosted": "true"}))
    assert is_page(viewer.get("/", headers=HTMX | {"HX-History-Restore-Request": "true"}))
    assert "HX-Request" in page["Vary"]


@pytest.mark.parametrize(
    ("used", "words"), [(15, "75 %"), (16, "80 %, filling up"), (19, "95 %, almost full"), (20, "full")]
)
def test_a_bar_says_how_full_it_is(viewer: Client, ports: PortManager, used: int, words: str) -> None:
    reservations.reserve_block(ports.context, "shop", FIRST, FIRST + used - 1)
    response = viewer.get("/")
    assert f"{used} of 20 held, {used} reserved {words} " in text(response)
    assert f'viewBox="0 0 20 8" preserveAspectRatio="none" role="img" aria-label="{used * 5} % held"'.encode() in (
        response.content
    )


def test_audit_now_shows_its_result(
    viewer: Client, ports: PortManager, web: PortAllocation, listener: socket.socket
) -> None:
    response = viewer.post("/audit", headers=HTMX)
    assert response.status_code == 200
    assert response.content.strip().startswith(b'<div id="home"')
    content = text(response)
    assert "Audited: 0 of 1 services are listening." in content
    assert "Not running 1" in content
    assert "Unallocated listeners 1" in content
    assert "Last audit just now by viewer" in content
    assert viewer.post("/audit").status_code == 303


def test_admins_are_told_while_anonymous_reading_is_on(admin: Client, viewer: Client, settings: Any) -> None:
    notice = "can read the API and the metrics without a token"
    assert notice not in text(admin.get("/"))
    settings.PORTAL_ANONYMOUS_READ = True
    assert notice in text(admin.get("/"))
    assert notice not in text(viewer.get("/"))


@pytest.mark.parametrize("query", ["shop", "web", pytest.param(str(FIRST), id="port"), "shop/web", "The sho"])
def test_search_finds_an_allocation(viewer: Client, web: PortAllocation, query: str) -> None:
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
    assert f'href="/listeners#port-{FIRST + 1}"'.encode() in viewer.get("/search", {"q": str(FIRST + 1)}).content


def test_search_links_to_a_free_port(viewer: Client, ports: PortManager) -> None:
    response = viewer.get("/search", {"q": str(FIRST + 7)})
    assert f"lies in shop ({FIRST}-{FIRST + 19}) of shop and is free" in text(response)
    assert f'href="/projects/shop?port={FIRST + 7}"'.encode() in response.content


@pytest.mark.parametrize("query", ["", "nothing-like-it", "99999999", "a\0b", "%", "'; --", "x" * 5000])
def test_search_accepts_any_text(viewer: Client, ports: PortManager, query: str) -> None:
    assert viewer.get("/search", {"q": query}).status_code == 200


def link_of(page: Any, name: str) -> str:
    """Return where a link of the pagination leads."""
    found = re.search(rf'href="([^"]+)">(?:<svg(?:(?!</a>).)*</svg>)?\s*{name}', page.content.decode(), re.DOTALL)
    assert found, name
    return html.unescape(found[1])


def test_the_history_is_newest_first_and_paginated(viewer: Client, ports: PortManager) -> None:
    projects.add(ports.context, "bank", size=70, start_port=FIRST + 200)
    for n in range(60):
        ports.reserve("bank", FIRST + 200 + n)
    projects.update(ports.context, "bank", description="Money")
    first = viewer.get("/events", {"project": "bank"})
    assert "description: from – → Money" in text(first)
    assert first.content.count(b'<span class="when">') == 50
    second = viewer.get("/events" + link_of(first, "Older"))
    assert second.content.count(b'<span class="when">') == Event.objects.exclude(label__startswith="shop").count() - 50
    assert "Older" not in text(second)
    assert "shop" not in text(first)
    newer = viewer.get("/events" + link_of(second, "Newer"))
    assert [event.pk for event in newer.context["events"]] == [event.pk for event in first.context["events"]]
    assert viewer.get("/events" + link_of(second, "Newest")).content.count(b'<span class="when">') == 50


@pytest.mark.parametrize("query", ["before=1", "after=999999999999", "before=x", "after=9" + "9" * 40, "page=2"])
def test_history_beyond_its_ends_is_the_newest_page(viewer: Client, ports: PortManager, query: str) -> None:
    shown = viewer.get(f"/events?{query}").context["events"]
    assert [event.pk for event in shown] == list(Event.objects.values_list("pk", flat=True))


def test_every_page_of_the_history_is_reached(viewer: Client, ports: PortManager) -> None:
    for n in range(130):
        projects.update(ports.context, "shop", description=f"{n}")
    every = list(Event.objects.values_list("pk", flat=True))
    page, older = viewer.get("/events"), []
    while True:
        older += [event.pk for event in page.context["events"]]
        if page.context["events"].before is None:
            break
        page = viewer.get("/events" + link_of(page, "Older"))
    assert older == every
    pages = [page]
    while pages[-1].context["events"].after is not None:
        pages.append(viewer.get("/events" + link_of(pages[-1], "Newer")))
    assert [event.pk for event in pages[-1].context["events"]] == every[:50]


def test_pages_of_the_history_count_and_skip_nothing(viewer: Client, ports: PortManager) -> None:
    with CaptureQueriesContext(connection) as queries:
        viewer.get("/events?before=5")
    assert not [query["sql"] for query in queries if "COUNT(" in query["sql"] or "OFFSET" in query["sql"]]
