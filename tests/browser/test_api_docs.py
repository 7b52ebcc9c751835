"""The documentation of the API: it is accessible and not too wide, and its examples can be copied."""

from __future__ import annotations

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser.conftest import Opened

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("shop")]
OPEN_ALL = "() => document.querySelectorAll('details.operation').forEach(d => d.open = true)"
TOO_WIDE = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_open_operations_are_accessible_and_not_too_wide(opened: Opened, scheme: Any, width: int) -> None:
    page = opened("viewer", width=width, scheme=scheme)
    page.goto("/api/docs")
    page.evaluate(OPEN_ALL)
    assert [f"{v['id']} {v['nodes'][0]['html'][:120]}" for v in Axe().run(page).response["violations"]] == []
    assert page.evaluate(TOO_WIDE) <= 0
    count_cut_off = "els => els.filter(e => e.scrollWidth > e.clientWidth).length"
    assert page.locator(".example.line, .operation .scroll").evaluate_all(count_cut_off) == 0, (
        "a line or a table is cut off"
    )


def test_an_example_can_be_copied(opened: Opened) -> None:
    page = opened("viewer")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto("/api/docs")
    operation = page.locator("details.operation", has_text="Allocations and reservations").first
    operation.locator("summary").click()
    operation.locator("button.copy").first.click()
    clipboard = page.evaluate("() => navigator.clipboard.readText()")
    assert clipboard == operation.locator(".example.line").inner_text()
    assert clipboard.startswith("curl -s ")
