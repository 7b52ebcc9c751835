"""Projects: the map, the table, allocating, reserving, adding, editing and deleting."""

import re
import socket

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from django.utils.html import escape

from allocations import portmap
from allocations.models import Event, PortAllocation, Project
from allocations.ports import PortManager, projects, ranges
from tests.make import FIRST

from .helpers import HTMX, is_page, text

pytestmark = pytest.mark.django_db


def test_the_map_shows_the_state_of_each_port_and_links_to_it(
    operator: Client, ports: PortManager, web: PortAllocation, listener: socket.socket
) -> None:
    ports.reserve("shop", FIRST + 2, note="later")
    ports.audit()
    content = operator.get("/projects/shop").content.decode()
    cells = dict(re.findall(r'class="cell" data-state="([\w-]+)"[^>]*?title="(\d+: [^"]*)"', content))
    assert cells["not-running"] == f"{FIRST}: shop/web, not running"
    assert cells["reserved"] == f"{FIRST + 2}: shop/(reserved), reserved"
    assert re.fullmatch(rf"{FIRST + 1}: unallocated listener, .+", cells["unallocated"])
    assert content.count('class="cell"') == 20
    assert f'data-state="not-running" href="{reverse("allocation", args=[web.pk])}"' in content
    assert f'data-state="unallocated" href="/listeners#port-{FIRST + 1}"' in content
    assert f'href="/projects/shop?port={FIRST + 3}"' in content


def test_a_free_cell_fills_in_the_form(operator: Client, ports: PortManager) -> None:
    content = operator.get("/projects/shop", {"port": str(FIRST + 7)}).content.decode()
    assert re.search(
        rf'<input[^>]*name="port_number"[^>]*value="{FIRST + 7}"|<input[^>]*value="{FIRST + 7}"[^>]*name="port_number"',
        content,
    )


def test_a_large_range_is_shown_in_windows(viewer: Client, ports: PortManager) -> None:
    ranges.add(ports.context, "shop", "many", 30000, 32499)
    first, last = viewer.get("/projects/shop"), viewer.get("/projects/shop", {"from": "32100"})
    assert "Showing 30000–30999" in text(first)
    assert "Showing 32000–32499" in text(last)
    assert b"?from=31000" in first.content
    assert b"?from=31000" in last.content
    assert last.content.count(b'class="cell"') == 20 + 500


def test_a_cell_shows_the_worst_state_of_its_port(ports: PortManager, web: PortAllocation) -> None:
    other = ports.allocate("shop", "web", hostname="h2", port_number=FIRST)
    PortAllocation.objects.filter(pk=web.pk).update(health="up")
    PortAllocation.objects.filter(pk=other.pk).update(health="conflict")
    held = PortAllocation.objects.select_related("project")
    cell = portmap.port_map(web.port_range, held, []).cells[0]
    assert (cell.state, cell.allocation) == ("conflict", other)
    assert cell.label == f"{FIRST}: shop/web, conflict; shop/web, listening"


@pytest.mark.parametrize(
    ("filters", "services"),
    [
        ({}, {"web", "far", "dns"}),
        ({"q": "fa"}, {"far"}),
        ({"hostname": "h2"}, {"far"}),
        ({"protocol": "udp"}, {"dns"}),
        ({"status": "released"}, {"old"}),
        ({"status": "all"}, {"web", "far", "dns", "old"}),
        ({"status": "nonsense", "protocol": "sctp"}, {"web", "far", "dns"}),
        ({"hostname": "no host!"}, {"web", "far", "dns"}),
        ({"q": "none like it"}, set()),
        ({"page": "999"}, {"web", "far", "dns"}),
    ],
)
def test_the_table_is_filtered(
    viewer: Client, ports: PortManager, web: PortAllocation, filters: dict[str, str], services: set[str]
) -> None:
    ports.allocate("shop", "far", hostname="h2")
    ports.allocate("shop", "dns", protocol="udp")
    ports.allocate("shop", "old")
    ports.release("shop", "old")
    response = viewer.get("/projects/shop", filters, headers=HTMX)
    assert response.content.strip().startswith(b'<div id="table"')
    assert set(re.findall(r"<strong>(\w+)</strong>", response.content.decode())) == services


def test_an_unknown_project_is_not_found(viewer: Client) -> None:
    for name in ("none", "No Name"):
        response = viewer.get(f"/projects/{name}")
        assert response.status_code == 404
        assert f"There is no project {name}." in text(response)


def test_allocate(operator: Client, ports: PortManager) -> None:
    response = operator.post("/projects/shop/allocate", {"service_name": "api", "service_type": "http"})
    assert (response.status_code, response["Location"]) == (303, "/projects/shop")
    allocation = PortAllocation.objects.get()
    assert (allocation.port_number, allocation.service_name, allocation.service_type) == (FIRST, "api", "http")
    event = Event.objects.get(subject="allocation")
    assert (event.actor, event.source) == ("operator", "web")
    assert f"shop/api has {FIRST}/tcp." in text(operator.get("/projects/shop"))


def test_allocate_returns_the_changed_project_to_htmx(operator: Client, ports: PortManager) -> None:
    response = operator.post("/projects/shop/allocate", {"service_name": "api"}, headers=HTMX)
    assert response.status_code == 200
    assert response.content.strip().startswith(b'<div id="project"')
    assert "1 of 20 held" in text(response)
    assert b'<hx-partial hx-target="#messages">' in response.content
    again = operator.post("/projects/shop/allocate", {"service_name": "api"}, headers=HTMX)
    assert f"shop/api already has {FIRST}/tcp." in text(again)


REFUSED = [
    ({"service_name": ""}, 422, "service_name", "This field is required."),
    ({"service_name": "Bad Name"}, 422, "service_name", 'Service name "Bad Name" is not valid'),
    pytest.param(
        {"port_number": str(FIRST)},
        409,
        "port_number",
        f"held by shop/web. {FIRST + 1}, {FIRST + 2} and {FIRST + 3} are free nearby",
        id="held",  # FIRST differs between the processes of pytest-xdist, so it cannot be part of the id
    ),
    ({"port_number": "80"}, 422, "port_number", "Port 80 lies outside the ranges of shop"),
    ({"port_number": "٣"}, 422, "port_number", "is not a whole number"),
    ({"port_number": "99999"}, 422, "port_number", "ports are 1 to 65535"),
    ({"protocol": "sctp"}, 422, "protocol", "sctp is not one of the available choices"),
    ({"hostname": "no host!"}, 422, "hostname", 'Host "no host!" is not valid'),
    ({"range_name": "none"}, 422, "range_name", "There is no range none."),
    ({"cloudflare_hostname": "-"}, 422, "cloudflare_hostname", "is not a public name"),
    ({"service_type": "x" * 101}, 422, "service_type", "at most 100 characters"),
    ({"description": "a\0b"}, 422, "description", "Null characters are not allowed."),
    ({"description": "x" * 2001}, 422, "description", "use at most 2000"),
]


@pytest.mark.parametrize("headers", [{}, HTMX], ids=["page", "htmx"])
@pytest.mark.parametrize(("values", "status", "field", "sentence"), REFUSED)
def test_a_refusal_of_allocate_is_shown_beside_its_field(
    operator: Client,
    web: PortAllocation,
    values: dict[str, str],
    status: int,
    field: str,
    sentence: str,
    headers: dict[str, str],
) -> None:
    values = {"service_name": "api"} | values
    response = operator.post("/projects/shop/allocate", values, headers=headers)
    assert response.status_code == status
    assert list(response.context["allocate_form"].errors) == [field]
    assert escape(sentence) in response.content.decode()
    assert is_page(response) != bool(headers)
    assert f'value="{escape(values["service_name"])}"' in response.content.decode() or not values["service_name"]
    assert PortAllocation.objects.count() == 1


def test_allocate_refuses_a_port_on_which_something_is_listening(
    operator: Client, ports: PortManager, listener: socket.socket
) -> None:
    response = operator.post("/projects/shop/allocate", {"service_name": "api", "port_number": str(FIRST + 1)})
    assert response.status_code == 409
    assert f"listens on {FIRST + 1}/tcp without an allocation" in text(response)


def test_reserve(operator: Client, ports: PortManager) -> None:
    values = {"start_port": str(FIRST + 5), "end_port": str(FIRST + 7), "description": "phase 2", "expires_at": "7d"}
    response = operator.post("/projects/shop/reserve", values)
    assert response.status_code == 303
    held = PortAllocation.objects.all()
    assert [a.port_number for a in held] == [FIRST + 5, FIRST + 6, FIRST + 7]
    assert {(a.status, a.description) for a in held} == {("reserved", "phase 2")}
    assert all(a.expires_at and 6 <= (a.expires_at - timezone.now()).days <= 7 for a in held)


@pytest.mark.parametrize(
    ("values", "status", "field", "sentence"),
    [
        ({"start_port": str(FIRST)}, 409, "start_port", "is held by shop/web"),
        ({"start_port": str(FIRST + 7), "end_port": str(FIRST + 5)}, 422, "start_port", "is not a span"),
        ({"start_port": str(FIRST + 5), "end_port": "0"}, 422, "end_port", "ports are 1 to 65535"),
        ({"start_port": str(FIRST + 5), "expires_at": "2001-01-01"}, 422, "expires_at", "is in the past"),
        ({"start_port": str(FIRST + 5), "expires_at": "soon"}, 422, "expires_at", "is not valid"),
        ({"start_port": str(FIRST + 5), "end_port": str(FIRST + 30)}, 422, "start_port", "lies outside the ranges"),
    ],
)
def test_a_refusal_of_reserve_is_shown_beside_its_field(
    operator: Client, web: PortAllocation, values: dict[str, str], status: int, field: str, sentence: str
) -> None:
    response = operator.post("/projects/shop/reserve", values, headers=HTMX)
    assert response.status_code == status
    assert list(response.context["reserve_form"].errors) == [field]
    assert sentence in text(response)
    assert PortAllocation.objects.count() == 1


def test_add_edit_and_delete(admin: Client, ports: PortManager) -> None:
    added = admin.post("/add-project", {"name": "bank", "size": "10", "start_port": str(FIRST + 200)})
    assert (added.status_code, added["Location"]) == (303, "/projects/bank")
    edited = admin.post("/projects/bank/edit", {"name": "vault", "description": "Money", "mode": "ask"})
    assert (edited.status_code, edited["Location"]) == (303, "/projects/vault")
    assert Project.objects.get(name="vault").description == "Money"
    assert admin.post("/add-project", {"name": "vault", "size": "10"}).status_code == 409
    assert admin.post("/projects/vault/delete").status_code == 303
    assert not Project.objects.filter(name="vault").exists()


@pytest.mark.parametrize(
    ("values", "status", "field", "sentence"),
    [
        ({"name": "shop"}, 409, "name", "A project named shop already exists"),
        ({"name": "more"}, 409, "name", "A range named more already exists"),
        ({"size": "0"}, 422, "size", "not a number of ports"),
        pytest.param(
            {"start_port": str(FIRST + 10)}, 409, "start_port", f"overlaps shop ({FIRST}-{FIRST + 19})", id="overlap"
        ),
    ],
)
def test_a_refusal_of_add_project_is_shown_beside_its_field(
    admin: Client, ports: PortManager, values: dict[str, str], status: int, field: str, sentence: str
) -> None:
    ranges.add(ports.context, "shop", "more", FIRST + 100, FIRST + 109)
    response = admin.post("/add-project", {"name": "bank", "size": "10"} | values)
    assert response.status_code == status
    assert list(response.context["form"].errors) == [field]
    assert sentence in text(response)
    assert Project.objects.count() == 1


@pytest.mark.parametrize(
    ("quota", "status", "expected"), [("0", 303, 0), ("", 303, None), ("70000", 422, 7), ("٣", 422, 7)]
)
def test_the_quota_is_validated(
    admin: Client, ports: PortManager, quota: str, status: int, expected: int | None
) -> None:
    projects.update(ports.context, "shop", agent_quota=7)
    response = admin.post("/projects/shop/edit", {"name": "shop", "mode": "ask", "agent_quota": quota})
    assert response.status_code == status
    assert Project.objects.get().agent_quota == expected


def test_a_project_that_holds_ports_cannot_be_deleted(admin: Client, web: PortAllocation) -> None:
    response = admin.post("/projects/shop/delete")
    assert response.status_code == 409
    assert "shop cannot be deleted: 1 port is held in it" in text(response)
