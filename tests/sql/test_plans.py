"""The plans of the statements that would otherwise read the history or every row."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from django.db.models import QuerySet

from allocations import sql
from allocations.models import PortAllocation, PortRange, Project
from tests import make

pytestmark = pytest.mark.django_db(transaction=True)  # so that VACUUM can run, which index-only scans need
FIRST = make.FIRST
SETTINGS = ("enable_seqscan", "enable_bitmapscan")


@pytest.fixture(autouse=True)
def history() -> Iterator[None]:
    """A range with a few held ports and a longer history, as statistics that the planner knows."""
    ports = make.manager()
    make.port_range("shop", FIRST, 20)
    for _ in range(30):
        for name in ("web", "api"):
            ports.allocate("shop", name)
            ports.release("shop", name)
    for n in range(5):
        ports.allocate("shop", f"s{n}")
    make.port_range("bank", FIRST + 100, 100)
    for n in range(80):
        ports.allocate("bank", f"s{n}")
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE port_allocations")
        # A table of tests is so small that reading all of it is the fastest plan.
        for setting in SETTINGS:
            cursor.execute(f"SET {setting} = off")
    yield
    with connection.cursor() as cursor:
        for setting in SETTINGS:
            cursor.execute(f"RESET {setting}")


def nodes(rows: QuerySet[Any]) -> list[tuple[str, str]]:
    """Return the nodes of the plan of a queryset: their types, and the indexes that they use."""
    (plan,) = json.loads(rows.explain(format="json"))
    found: list[tuple[str, str]] = []

    def walk(node: dict[str, Any]) -> None:
        found.append((node["Node Type"], node.get("Index Name", "")))
        for child in node.get("Plans", ()):
            walk(child)

    walk(plan["Plan"])
    return found


def test_a_list_is_read_in_the_order_of_an_index() -> None:
    rows = PortAllocation.objects.held().order_by("port_number", "hostname", "protocol", "id")[:3]
    plan = nodes(rows)
    assert ("Index Scan", "port_allocations_listed") in plan
    assert "Sort" not in {kind for kind, _ in plan}


@pytest.mark.parametrize("model", [Project, PortRange])
def test_usage_is_counted_in_the_index_alone(model: Any) -> None:
    plan = nodes(model.objects.with_usage())
    assert ("Index Only Scan", "port_allocations_held_in_range") in plan


def test_requests_are_found_by_an_index() -> None:
    assert ("Index Scan", "port_allocations_pending") in nodes(PortAllocation.objects.pending())


def test_every_host_is_found_once() -> None:
    ports = make.manager()
    for host in ("web-2", "web-1"):
        for n in range(3):
            ports.allocate("shop", f"h{n}", hostname=host)
    ports.reserve("shop", FIRST + 19, hostname="only-reserved")
    assert [name for name in sql.unapproved_hosts() if name != "localhost"] == ["web-1", "web-2"]
