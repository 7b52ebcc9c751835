"""No page has an axe violation or scrolls sideways, in either theme and at either width."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from allocations.models import PortAllocation
from allocations.ports import PortManager, projects
from tests import make
from tests.browser.conftest import Opened

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("shop")]


def addresses() -> list[str]:
    """Return the address of every page."""
    key = PortAllocation.objects.filter(service_name="web").values_list("pk", flat=True).get()
    return [
        *("/", "/projects/shop", f"/allocations/{key}", f"/allocations/{key}/edit", f"/allocations/{key}/release"),
        *("/ranges", "/ranges/add", "/listeners", "/events", "/search?q=shop", "/add-project", "/projects/shop/edit"),
        *("/projects/shop/delete", "/password", "/tokens", "/connect", "/api/docs"),
    ]


# Contrast depends on the scheme, and what fits on the width, so two of the four are enough.
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_every_page_is_accessible_and_not_too_wide(opened: Opened, scheme: Any, width: int) -> None:
    make.manager().reserve("shop", make.FIRST + 9, note="later")
    projects.update(make.manager().context, "shop", mode="ask")
    PortManager(actor="agent", source="mcp").allocate("shop", "worker", description="a long sentence " * 20)
    with socket.create_server(("127.0.0.1", make.FIRST)), socket.create_server(("127.0.0.1", make.FIRST + 4)):
        make.manager().audit()
    page = opened("admin", width=width, scheme=scheme)
    problems = []
    for address in addresses():
        page.goto(address)
        violations = Axe().run(page).response["violations"]
        problems += [f"{address}: {v['id']} {v['nodes'][0]['html'][:120]}" for v in violations]
        overflow = page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth")
        if overflow > 0:
            problems.append(f"{address}: {overflow} px too wide")
    assert problems == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_login_page_is_accessible(opened: Opened, scheme: Any) -> None:
    page = opened("", scheme=scheme, width=390)
    page.goto("/login")
    assert Axe().run(page).response["violations"] == []
