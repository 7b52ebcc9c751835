"""A project: its map, its table, allocate and reserve."""

import re
import socket

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from django.utils.html import escape

from allocations import portmap
from allocations.models import Event, PortAllocation
from allocations.ports import PortManager

from .reading import HTMX, is_page, text

pytestmark = pytest.mark.django_db


def test_the_map_tells_the_state_of_each_port_and_leads_there(
    operator: Client, ports: PortManager, web: PortAllocation, listener: socket.socket
) -> None:
    ports.reserve("shop", 20502, note="later")
    ports.audit()
    shown = operator.get("/projects/shop").content.decode()
    cells = dict(re.findall(r'class="cell" data-state="([\w-]+)"[^>]*?title="(205\d\d: [^"]*)"', shown))
    assert cells["not-running"] == "20500: shop/web, not running"
    assert cells["reserved"] == "20502: shop/(reserved), reserved"
    assert re.fullmatch(r"20501: unallocated, .+ listens", cells["unallocated"])
    assert shown.count('class="cell"') == 20
    assert f'data-state="not-running" href="{reverse("allocation", args=[web.pk])}"' in shown
    assert 'data-state="unallocated" href="/listeners#port-20501"' in shown
    assert 'href="/projects/shop?port=20503"' in shown


def test_a_free_cell_fills_the_form(operator: Client, ports: PortManager) -> None:
    shown = operator.get("/projects/shop", {"port": "20507"}).content.decode()
    assert re.search(r'<input[^>]*name="port"[^>]*value="20507"|<input[^>]*value="20507"[^>]*name="port"', shown)


def test_a_large_range_is_shown_window_by_window(viewer: Client, ports: PortManager) -> None:
    ports.add_range("shop", "many", 30000, 32499)
    first, last = viewer.get("/projects/shop"), viewer.get("/projects/shop", {"from": "32100"})
    assert "Showing 30000–30999" in text(first)
    assert "Showing 32000–32499" in text(last)
    assert b"?from=31000" in first.content
    assert b"?from=31000" in last.content
    assert last.content.count(b'class="cell"') == 20 + 500


def test_the_worst_allocation_of_a_port_gives_the_cell_its_state(ports: PortManager, web: PortAllocation) -> None:
    other = ports.allocate("shop", "web", hostname="h2", port=20500)
    PortAllocation.objects.filter(pk=web.pk).update(health="up")
    PortAllocation.objects.filter(pk=other.pk).update(health="conflict")
    held = PortAllocation.objects.select_related("project")
    cell = portmap.port_map(web.port_range, held, []).cells[0]
    assert (cell.state, cell.allocation) == ("conflict", other)
    assert cell.label == "20500: shop/web, conflict; shop/web, listening"


@pytest.mark.parametrize(
    ("filters", "shown"),
    [
        ({}, {"web", "far", "dns"}),
        ({"q": "fa"}, {"far"}),
        ({"host": "h2"}, {"far"}),
        ({"protocol": "udp"}, {"dns"}),
        ({"status": "released"}, {"old"}),
        ({"status": "all"}, {"web", "far", "dns", "old"}),
        ({"status": "nonsense", "protocol": "sctp"}, {"web", "far", "dns"}),
        ({"host": "no host!"}, {"web", "far", "dns"}),
        ({"q": "none like it"}, set()),
        ({"page": "999"}, {"web", "far", "dns"}),
    ],
)
def test_the_table_is_filtered(
    viewer: Client, ports: PortManager, web: PortAllocation, filters: dict[str, str], shown: set[str]
) -> None:
    ports.allocate("shop", "far", hostname="h2")
    ports.allocate("shop", "dns", protocol="udp")
    ports.allocate("shop", "old")
    ports.release("shop", "old")
    response = viewer.get("/projects/shop", filters, headers=HTMX)
    assert response.content.strip().startswith(b'<div id="table"')
    assert set(re.findall(r"<strong>(\w+)</strong>", response.content.decode())) == shown


def test_an_unknown_project_is_told_in_words(viewer: Client) -> None:
    response = viewer.get("/projects/none")
    assert response.status_code == 404
    assert "There is no project none." in text(response)


def test_allocate(operator: Client, ports: PortManager) -> None:
    response = operator.post("/projects/shop/allocate", {"service_name": "api", "service_type": "http"})
    assert (response.status_code, response["Location"]) == (303, "/projects/shop")
    made = PortAllocation.objects.get()
    assert (made.port_number, made.service_name, made.service_type) == (20500, "api", "http")
    event = Event.objects.get(subject="allocation")
    assert (event.actor, event.source) == ("a-operator", "web")
    assert "shop/api has 20500/tcp." in text(operator.get("/projects/shop"))


def test_allocate_answers_htmx_with_the_project_as_it_is_now(operator: Client, ports: PortManager) -> None:
    response = operator.post("/projects/shop/allocate", {"service_name": "api"}, headers=HTMX)
    assert response.status_code == 200
    assert response.content.strip().startswith(b'<div id="project"')
    assert "1 of 20 held" in text(response)
    assert b'<hx-partial hx-target="#messages">' in response.content
    again = operator.post("/projects/shop/allocate", {"service_name": "api"}, headers=HTMX)
    assert "shop/api had already 20500/tcp." in text(again)


REFUSED = [
    ({"service_name": ""}, 422, "This field is required."),
    ({"service_name": "Bad Name"}, 422, 'service "Bad Name" is not a name'),
    ({"service_name": "api", "port": "20500"}, 409, "held by shop/web. 20501, 20502 and 20503 are free near it"),
    ({"service_name": "api", "port": "80"}, 422, "Port 80 lies outside the ranges of shop"),
    ({"service_name": "api", "port": "٣"}, 422, "is not a whole number"),
    ({"service_name": "api", "port": "99999"}, 422, "ports are 1 to 65535"),
    ({"service_name": "api", "protocol": "sctp"}, 422, "sctp is not one of the available choices"),
    ({"service_name": "api", "hostname": "no host!"}, 422, 'host "no host!" is not a host'),
    ({"service_name": "api", "range_name": "none"}, 422, "There is no range none."),
    ({"service_name": "api", "cloudflare_hostname": "-"}, 422, "is not a public name"),
    ({"service_name": "api", "description": "a\0b"}, 422, "Null characters are not allowed."),
]


@pytest.mark.parametrize("headers", [{}, HTMX], ids=["page", "htmx"])
@pytest.mark.parametrize(("values", "status", "sentence"), REFUSED)
def test_allocate_refuses_beside_the_field(
    operator: Client, web: PortAllocation, values: dict[str, str], status: int, sentence: str, headers: dict[str, str]
) -> None:
    response = operator.post("/projects/shop/allocate", values, headers=headers)
    assert response.status_code == status
    assert escape(sentence) in response.content.decode()
    assert is_page(response) != bool(headers)
    assert f'value="{escape(values["service_name"])}"' in response.content.decode() or not values["service_name"]
    assert PortAllocation.objects.count() == 1


def test_allocate_refuses_a_port_on_which_something_listens(
    operator: Client, ports: PortManager, listener: socket.socket
) -> None:
    response = operator.post("/projects/shop/allocate", {"service_name": "api", "port": "20501"})
    assert response.status_code == 409
    assert "listens on 20501/tcp and is not registered" in text(response)


def test_reserve(operator: Client, ports: PortManager) -> None:
    values = {"first": "20505", "last": "20507", "note": "phase 2", "expires_at": "7d"}
    response = operator.post("/projects/shop/reserve", values)
    assert response.status_code == 303
    held = PortAllocation.objects.all()
    assert [a.port_number for a in held] == [20505, 20506, 20507]
    assert {(a.status, a.description) for a in held} == {("reserved", "phase 2")}
    assert all(a.expires_at and 6 <= (a.expires_at - timezone.now()).days <= 7 for a in held)


@pytest.mark.parametrize(
    ("values", "status", "sentence"),
    [
        ({"first": "20500"}, 409, "is held by shop/web"),
        ({"first": "20507", "last": "20505"}, 422, "is upside down"),
        ({"first": "20505", "expires_at": "2001-01-01"}, 422, "is in the past"),
        ({"first": "20505", "expires_at": "soon"}, 422, "is not understood"),
        ({"first": "20505", "last": "20530"}, 422, "lies outside the ranges"),
    ],
)
def test_reserve_refuses(
    operator: Client, web: PortAllocation, values: dict[str, str], status: int, sentence: str
) -> None:
    response = operator.post("/projects/shop/reserve", values, headers=HTMX)
    assert response.status_code == status
    assert sentence in text(response)
    assert PortAllocation.objects.count() == 1
