"""Ranges in the API."""

from __future__ import annotations

from typing import Any

import pytest

from allocations.models import PortAllocation
from allocations.ports import PortManager, allocations
from tests.make import FIRST

from .conftest import ApiClient

pytestmark = pytest.mark.django_db


def test_add_change_and_delete(admin: ApiClient, web: PortAllocation) -> None:
    request = {"project": "shop", "name": "late", "start": FIRST + 50, "end": FIRST + 59}
    added = admin("POST", "/api/ranges", request)
    assert (added.status_code, added.json()["shared"]) == (201, False)
    assert admin("GET", added["Location"]).json() == added.json()
    assert admin("GET", "/api/ranges?project=shop").json()["items"][1] == added.json()
    overlapping = admin("POST", "/api/ranges", request | {"name": "over"})
    assert (overlapping.status_code, overlapping.json()["code"]) == (409, "range_overlap")
    assert "late" in overlapping.json()["detail"]
    changed = admin("PATCH", added["Location"], {"end": FIRST + 69, "shared": True, "name": "later"})
    assert (changed.json()["end"], changed.json()["shared"], changed.json()["name"]) == (FIRST + 69, True, "later")
    refusal = admin("PATCH", f"/api/ranges/{web.port_range_id}", {"start": FIRST + 1})
    assert (refusal.status_code, refusal.json()["details"]["ports"]) == (409, [FIRST])
    assert admin("DELETE", added["Location"]).status_code == 204
    assert admin("DELETE", f"/api/ranges/{web.port_range_id}").json()["code"] == "range_in_use"
    reversed_span = admin("POST", "/api/ranges", request | {"end": FIRST + 1})
    assert reversed_span.status_code == 400


def test_invalid_and_overlapping_spans_are_refused(admin: ApiClient, ports: PortManager) -> None:
    ports.allocate("shop", "web", port_number=FIRST + 19)

    def add(start: int, end: int) -> Any:
        return admin("POST", "/api/ranges", {"project": "shop", "name": f"r{start}", "start": start, "end": end})

    assert add(FIRST + 60, FIRST + 59).status_code == 400
    overlap = add(FIRST + 10, FIRST + 30)
    assert (overlap.status_code, overlap.json()["details"]["overlap"]) == (409, [FIRST + 10, FIRST + 19])
    assert add(FIRST + 20, FIRST + 29).status_code == 201
    assert add(FIRST + 30, FIRST + 30).status_code == 201
    assert add(0, 70000).status_code == 400
    port_range = admin("GET", "/api/ranges?project=shop").json()["items"][0]
    shrunk = admin("PATCH", f"/api/ranges/{port_range['id']}", {"end": FIRST + 10})
    assert (shrunk.status_code, shrunk.json()["details"]["ports"]) == (409, [FIRST + 19])


def test_a_full_range_is_refused(operator: ApiClient, ports: PortManager) -> None:
    allocations.allocate_copies(ports.context, "shop", "many", 20)
    full = operator("POST", "/api/ports", {"project": "shop", "service": "api"})
    assert (full.status_code, full.json()["code"], full.json()["details"]["size"]) == (409, "range_exhausted", 20)
    assert "Release a service" in full.json()["detail"]


def test_a_range_can_be_added_inactive_and_activated(admin: ApiClient) -> None:
    request = {"project": "shop", "name": "off", "start": FIRST + 50, "end": FIRST + 59, "active": False}
    added = admin("POST", "/api/ranges", request).json()
    assert added["active"] is False
    assert admin("PATCH", f"/api/ranges/{added['id']}", {"active": True}).json()["active"] is True
