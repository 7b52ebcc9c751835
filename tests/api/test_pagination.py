"""Pagination."""

from __future__ import annotations

import pytest

from allocations.models import PortAllocation
from allocations.ports import PortManager
from tests.make import FIRST

from .conftest import ApiClient

pytestmark = pytest.mark.django_db
LISTS = ("/api/ports", "/api/projects", "/api/ranges", "/api/events")


def test_next_and_the_link_header_lead_through_all_pages(viewer: ApiClient, ports: PortManager) -> None:
    for n in range(5):
        ports.allocate("shop", f"s{n}")
    numbers, address = [], "/api/ports?limit=2"
    while address:
        page = viewer("GET", address)
        numbers += [a["port"] for a in page.json()["items"]]
        assert ("Link" in page) == (page.json()["next"] is not None)
        address = page["Link"].split(">")[0].removeprefix("<http://testserver") if "Link" in page else ""
        if address:
            assert page["Link"].endswith('; rel="next"')
            assert page.json()["next"] in address.replace("%3A", ":")
    assert numbers == [FIRST + n for n in range(5)]


def test_added_rows_do_not_shift_the_pages(viewer: ApiClient, ports: PortManager) -> None:
    for n in range(4):
        ports.allocate("shop", f"s{n}", port_number=FIRST + 2 * n)
    first = viewer("GET", "/api/ports?limit=2").json()
    ports.allocate("shop", "between", port_number=FIRST + 1)
    second = viewer("GET", f"/api/ports?limit=2&cursor={first['next']}").json()
    assert [a["port"] for a in second["items"]] == [FIRST + 4, FIRST + 6]
    assert second["next"] is None


@pytest.mark.parametrize("other", LISTS)
@pytest.mark.parametrize("address", LISTS)
def test_a_cursor_is_valid_for_its_own_list_only(
    viewer: ApiClient, ports: PortManager, web: PortAllocation, address: str, other: str
) -> None:
    ports.allocate("shop", "second")
    cursor = viewer("GET", f"{address}?limit=1").json()["next"]
    answer = viewer("GET", f"{other}?cursor={cursor}")
    if address == other:
        assert answer.status_code == 200
    else:
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "cursor")


def test_a_forged_cursor_is_refused(viewer: ApiClient) -> None:
    answer = viewer("GET", "/api/ports?cursor=forged")
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "cursor")


@pytest.mark.parametrize("address", ["/api/ports", "/api/ranges", "/api/events"])
def test_an_unknown_project_is_refused(shop_operator: ApiClient, address: str) -> None:
    """An empty list would mean that the project exists and has nothing."""
    assert shop_operator("GET", f"{address}?project=shop").status_code == 200
    for name in ("shpo", "bank"):
        refusal = shop_operator("GET", f"{address}?project={name}")
        assert (refusal.status_code, refusal.json()["code"]) == (404, "unknown_project")
    assert "Did you mean shop?" in shop_operator("GET", f"{address}?project=shpo").json()["detail"]
