"""The history, and the checks of an allocation."""

from __future__ import annotations

import socket
import uuid

import pytest

from allocations.models import PortAllocation
from tests.make import FIRST

from .conftest import ApiClient

pytestmark = pytest.mark.django_db


def test_events_of_a_project_and_of_an_allocation(viewer: ApiClient, operator: ApiClient, web: PortAllocation) -> None:
    operator("PATCH", f"/api/ports/{web.pk}", {"description": "x"})
    newest = viewer("GET", "/api/events?project=shop&limit=1").json()["items"][0]
    assert (newest["actor"], newest["source"], newest["verb"]) == ("operator", "api", "updated")
    assert newest["changes"] == {"description": ["The shop", "x"]}
    events = viewer("GET", f"/api/events?subject={web.pk}").json()["items"]
    assert [e["verb"] for e in events] == ["updated", "allocated"]


def test_checks_and_uptime_of_an_allocation(viewer: ApiClient, web: PortAllocation) -> None:
    with socket.create_server(("127.0.0.1", FIRST)):
        viewer("GET", "/api/ports/audit")
    checks = viewer("GET", f"/api/checks?port={web.pk}").json()
    assert checks["uptime"] == {"checks": 1, "up": 1, "percentage": 100.0}
    assert checks["items"][0]["status"] == "up"


def test_checks_of_an_unknown_allocation_are_refused(viewer: ApiClient) -> None:
    answer = viewer("GET", f"/api/checks?port={uuid.uuid4()}")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_allocation")
    assert [e["field"] for e in answer.json()["errors"]] == ["port"]
