"""Allocations, reservations, audits and explanations."""

from __future__ import annotations

import socket
from datetime import timedelta

import pytest
from django.utils import timezone

from allocations.models import Audit, PortAllocation
from allocations.ports import PortManager
from tests import make
from tests.make import BANK, FIRST

from .conftest import ApiClient

pytestmark = pytest.mark.django_db


def test_repeating_allocate_returns_the_same_port(operator: ApiClient) -> None:
    request = {"project": "shop", "service": "api", "serviceType": "api", "metadata": {"git": "abc"}}
    first, again = operator("POST", "/api/ports", request), operator("POST", "/api/ports", request)
    assert (first.status_code, again.status_code) == (201, 200)
    allocation = first.json()
    assert (allocation["port"], allocation["created"], allocation["serviceType"], allocation["metadata"]) == (
        FIRST,
        True,
        "api",
        {"git": "abc"},
    )
    assert again.json() == allocation | {"created": False}
    assert first["Location"] == f"/api/ports/{allocation['id']}"
    assert operator("GET", first["Location"]).json()["port"] == FIRST


def test_new_always_allocates(operator: ApiClient) -> None:
    request = {"project": "shop", "service": "api", "new": True}
    assert [operator("POST", "/api/ports", request).json()["port"] for _ in range(2)] == [FIRST, FIRST + 1]


def test_allocate_gives_exactly_the_requested_port(operator: ApiClient, web: PortAllocation) -> None:
    request = {"project": "shop", "service": "api", "port": FIRST + 7}
    assert operator("POST", "/api/ports", request).json()["port"] == FIRST + 7
    taken = operator("POST", "/api/ports", request | {"service": "other"})
    assert (taken.status_code, taken.json()["code"]) == (409, "port_taken")
    assert "shop/api" in taken.json()["detail"]
    moved = operator("POST", "/api/ports", request | {"port": FIRST + 8})
    assert (moved.status_code, moved.json()["code"]) == (409, "already_allocated")


def test_allocate_stores_the_details_host_and_range(operator: ApiClient) -> None:
    request = {
        **{"project": "shop", "service": "api", "hostname": "Web-1", "protocol": "udp", "range": "shop"},
        **{"description": "The API", "cloudflareHostname": "API.example.com"},
    }
    allocation = operator("POST", "/api/ports", request).json()
    assert allocation.items() >= (request | {"hostname": "web-1", "cloudflareHostname": "api.example.com"}).items()


def test_adopt_allocates_the_port_of_a_listener(operator: ApiClient) -> None:
    request = {"project": "shop", "service": "api", "port": FIRST + 3}
    with socket.create_server(("127.0.0.1", FIRST + 3)):
        assert operator("POST", "/api/ports", request).json()["code"] == "port_taken"
        assert operator("POST", "/api/ports", request | {"adopt": True}).status_code == 201
    assert operator("POST", "/api/ports", {"project": "shop", "service": "b", "adopt": True}).status_code == 400


def test_a_batch_allocates_all_or_nothing(operator: ApiClient, web: PortAllocation) -> None:
    request = {"project": "shop", "services": [{"service": "web"}, {"service": "api"}, {"service": "db"}]}
    answer = operator("POST", "/api/ports/batch", request)
    assert (answer.status_code, answer.json()["created"]) == (201, 2)
    assert [a["port"] for a in answer.json()["allocations"]] == [FIRST, FIRST + 1, FIRST + 2]
    assert operator("POST", "/api/ports/batch", request).status_code == 200
    held = PortAllocation.objects.held().count()
    refusal = operator(
        "POST", "/api/ports/batch", {"project": "shop", "services": [{"service": "x"}, {"service": "y", "port": FIRST}]}
    )
    assert (refusal.status_code, refusal.json()["code"]) == (409, "port_taken")
    assert refusal.json()["errors"][0]["field"] == "services.1.port"
    too_many = {"project": "shop", "services": [{"service": f"s{n}"} for n in range(30)]}
    full = operator("POST", "/api/ports/batch", too_many)
    assert (full.status_code, full.json()["details"]["index"]) == (409, 17)
    invalid = operator(
        "POST", "/api/ports/batch", {"project": "shop", "services": [{"service": "ok"}, {"service": "NO"}]}
    )
    assert invalid.json()["errors"][0]["field"] == "services.1.service"
    for changes, field in (({"port": 9}, "port"), ({"range": "nope"}, "range"), ({"range": "bank"}, "range")):
        request = {"project": "shop", "services": [{"service": "x"}, {"service": "y", **changes}]}
        problem = operator("POST", "/api/ports/batch", request).json()
        assert (problem["errors"][0]["field"], problem["details"]["index"]) == (f"services.1.{field}", 1)
    assert PortAllocation.objects.held().count() == held


def test_the_list_can_be_filtered(viewer: ApiClient, ports: PortManager, vault: PortAllocation) -> None:
    for n in range(5):
        ports.allocate("shop", f"s{n}")
    ports.reserve("shop", FIRST + 15, note="later")
    assert [a["service"] for a in viewer("GET", "/api/ports?project=bank").json()["items"]] == ["vault"]
    assert len(viewer("GET", "/api/ports?status=reserved").json()["items"]) == 1
    assert [a["port"] for a in viewer("GET", "/api/ports?service=s2&host=localhost&protocol=tcp").json()["items"]] == [
        FIRST + 2
    ]
    assert [a["service"] for a in viewer("GET", "/api/ports?q=vault.example").json()["items"]] == ["vault"]
    assert [a["port"] for a in viewer("GET", "/api/ports").json()["items"]] == [
        *(FIRST + n for n in range(5)),
        FIRST + 15,
        BANK,
    ]


def test_an_expired_reservation_is_not_listed(viewer: ApiClient, ports: PortManager) -> None:
    ports.reserve("shop", FIRST + 15)
    make.expire(PortAllocation.objects.all())
    assert viewer("GET", "/api/ports?status=reserved").json()["items"] == []


def test_change_and_release(operator: ApiClient, web: PortAllocation) -> None:
    address = f"/api/ports/{web.pk}"
    changed = operator(
        "PATCH", address, {"service": "shopfront", "description": "New", "cloudflareHostname": "shop.example.com"}
    )
    assert changed.status_code == 200
    assert (changed.json()["service"], changed.json()["cloudflareHostname"]) == ("shopfront", "shop.example.com")
    assert operator("PATCH", address, {"cloudflareHostname": None}).json()["cloudflareHostname"] is None
    assert operator("PATCH", address, {}).json()["description"] == "New"
    released = operator("DELETE", address)
    assert (released.status_code, released.json()["status"]) == (200, "released")
    again = operator("DELETE", address)
    assert (again.status_code, again.json()["code"]) == (409, "already_released")
    assert operator("PATCH", address, {"description": "x"}).status_code == 409


def test_audit_reports_conflicts_and_unallocated_listeners(
    viewer: ApiClient, web: PortAllocation, vault: PortAllocation
) -> None:
    with socket.create_server(("127.0.0.1", FIRST)), socket.create_server(("127.0.0.1", FIRST + 9)):
        answer = viewer("GET", "/api/ports/audit")
    assert answer.json() == {
        "success": True,
        "summary": {
            **{"allocated": 2, "inUse": 1, "notRunning": 1, "healthPercentage": 50},
            **{"unknown": 0, "drift": 0, "unallocated": 1},
        },
        "conflicts": [{"port": BANK, "expected": "bank/vault", "actual": "not running"}],
        "unallocated": [
            {
                "port": FIRST + 9,
                "hostname": "localhost",
                "protocol": "tcp",
                "process": answer.json()["unallocated"][0]["process"],
                "project": "shop",
            }
        ],
    }
    assert answer.json()["unallocated"][0]["process"]
    strict = viewer("GET", "/api/ports/audit?strict=1")
    assert (strict.status_code, strict.json()) == (503, answer.json())
    assert viewer("GET", "/api/ports/audit?strict=1&project=shop").status_code == 200
    assert viewer("GET", "/api/ports/audit?project=shop").json()["summary"]["allocated"] == 1
    assert Audit.objects.count() == 1, "the requests did not share an audit"


def test_explain_a_held_port(viewer: ApiClient, web: PortAllocation) -> None:
    explanation = viewer("GET", f"/api/ports/explain?port={FIRST}").json()
    assert (explanation["project"], explanation["range"], explanation["allocation"]["service"]) == (
        "shop",
        "shop",
        "web",
    )
    assert explanation["yours"] is None
    assert "Do not stop a process that is not yours" in explanation["nextStep"]
    own = viewer("GET", f"/api/ports/explain?port={FIRST}&project=shop").json()
    other = viewer("GET", f"/api/ports/explain?port={FIRST}&project=bank").json()
    assert (own["yours"], other["yours"]) == (True, False)


def test_explain_a_port_in_no_range(viewer: ApiClient) -> None:
    explanation = viewer("GET", f"/api/ports/explain?port={FIRST + 999}").json()
    assert (explanation["project"], explanation["range"], explanation["allocation"]) == (None, None, None)


def test_explain_a_listener(viewer: ApiClient, web: PortAllocation) -> None:
    with socket.create_server(("127.0.0.1", FIRST)):
        explanation = viewer("GET", f"/api/ports/explain?port={FIRST}").json()
    assert explanation["listener"]["address"] == "127.0.0.1"
    assert explanation["listener"]["process"]


def test_reserve_change_and_release(operator: ApiClient) -> None:
    soon = (timezone.now() + timedelta(days=9)).replace(microsecond=0)
    one = operator(
        "POST",
        "/api/reservations",
        {"project": "shop", "port": FIRST + 5, "note": "soon", "expiresAt": soon.isoformat().replace("+00:00", "Z")},
    )
    assert (one.status_code, one.json()["allocations"][0]["status"]) == (201, "reserved")
    assert one.json()["allocations"][0]["description"] == "soon"
    assert one.json()["allocations"][0]["expiresAt"] == soon.isoformat()
    block = operator("POST", "/api/reservations", {"project": "shop", "port": FIRST + 6, "lastPort": FIRST + 8})
    assert [a["port"] for a in block.json()["allocations"]] == [FIRST + 6, FIRST + 7, FIRST + 8]
    taken = operator("POST", "/api/reservations", {"project": "shop", "port": FIRST + 4, "lastPort": FIRST + 6})
    assert (taken.status_code, taken.json()["code"]) == (409, "port_taken")
    named = operator("PATCH", one["Location"], {"service": "web"})
    assert (named.status_code, named.json()["errors"][0]["field"]) == (400, "service")
    later = (soon + timedelta(days=9)).isoformat()
    assert operator("PATCH", one["Location"], {"expiresAt": later}).json()["expiresAt"] == later
    assert operator("DELETE", one["Location"]).json()["status"] == "released"


def test_allocate_is_202_in_mode_ask(operator: ApiClient, admin: ApiClient) -> None:
    admin("PATCH", "/api/projects/shop", {"mode": "ask"})
    one = operator("POST", "/api/ports", {"project": "shop", "service": "api"})
    assert (one.status_code, one.json()["status"], one.json()["created"]) == (202, "pending", True)
    many = operator("POST", "/api/ports/batch", {"project": "shop", "services": [{"service": "b"}, {"service": "c"}]})
    assert (many.status_code, many.json()["created"]) == (202, 2)
