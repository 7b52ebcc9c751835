"""Projects in the API."""

from __future__ import annotations

import pytest

from allocations.models import PortAllocation
from tests.make import FIRST

from .conftest import ApiClient

pytestmark = pytest.mark.django_db


def test_add_change_and_delete(admin: ApiClient, web: PortAllocation) -> None:
    added = admin("POST", "/api/projects", {"name": "mail", "size": 50, "description": "Post"})
    assert (added.status_code, added["Location"]) == (201, "/api/projects/mail")
    assert admin("GET", "/api/projects/mail/summary").json()["summary"]["totalPorts"] == 50
    assert [p["name"] for p in admin("GET", "/api/projects").json()["items"]] == ["bank", "mail", "shop"]
    etag = admin("GET", "/api/projects/mail")["ETag"]
    assert admin("PATCH", "/api/projects/mail", {"name": "post"}, If_Match=etag).json()["name"] == "post"
    assert admin("PATCH", "/api/projects/post", {"description": "x"}, If_Match=etag).status_code == 412
    assert admin("DELETE", "/api/projects/post").status_code == 204
    assert admin("GET", "/api/projects/post").status_code == 404
    refusal = admin("DELETE", "/api/projects/shop")
    assert (refusal.status_code, refusal.json()["code"]) == (409, "project_in_use")
    assert admin("POST", "/api/projects", {"name": "shop"}).json()["code"] == "name_taken"


def test_mode_and_quota_can_be_changed(admin: ApiClient) -> None:
    changed = admin("PATCH", "/api/projects/shop", {"mode": "ask", "agentQuota": 5}).json()
    assert (changed["mode"], changed["agentQuota"]) == ("ask", 5)
    assert admin("PATCH", "/api/projects/shop", {"agentQuota": None}).json()["agentQuota"] is None


def test_search_by_name(viewer: ApiClient) -> None:
    assert [p["name"] for p in viewer("GET", "/api/projects?q=ho").json()["items"]] == ["shop"]


def test_a_project_can_have_no_range(admin: ApiClient) -> None:
    assert admin("POST", "/api/projects", {"name": "bare", "withRange": False}).status_code == 201
    assert admin("GET", "/api/ranges?project=bare").json()["items"] == []


def test_a_project_can_have_a_shared_range_at_a_start_port(admin: ApiClient) -> None:
    request = {"name": "common", "start": FIRST + 300, "size": 5, "shared": True}
    assert admin("POST", "/api/projects", request).status_code == 201
    (port_range,) = admin("GET", "/api/ranges?project=common").json()["items"]
    assert (port_range["start"], port_range["end"], port_range["shared"]) == (FIRST + 300, FIRST + 304, True)


def test_the_summary_counts_ports(viewer: ApiClient, web: PortAllocation) -> None:
    answer = viewer("GET", "/api/projects/shop/summary").json()
    assert answer["success"] is True
    numbers = {"rangeStart": FIRST, "rangeEnd": FIRST + 19, "totalPorts": 20, "allocatedPorts": 1, "availablePorts": 19}
    assert numbers.items() <= answer["summary"].items()
    assert answer["summary"]["utilizationPercent"] == 5
    assert "ranges" not in answer["summary"]


def test_a_summary_of_several_ranges_lists_them(admin: ApiClient) -> None:
    admin("POST", "/api/ranges", {"project": "shop", "name": "late", "start": FIRST + 50, "end": FIRST + 59})
    ranges = admin("GET", "/api/projects/shop/summary").json()["summary"]["ranges"]
    assert [(r["rangeName"], r["totalPorts"]) for r in ranges] == [("shop", 20), ("late", 10)]
