"""Chromium with a live server. A script error, a console warning or a failed request fails the test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from tests import make
from tests.tools import skip_or_fail
from tests.users import PASSWORD, user_with_role

# Playwright's synchronous API runs an event loop in this thread, in which Django would refuse database queries.
os.environ.setdefault("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
Opened = Callable[..., Page]


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> dict[str, Any]:
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not chromium:
        skip_or_fail("No Chromium is installed. Run apt-get install -y --no-install-recommends chromium")
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    return {**browser_type_launch_args, "executable_path": chromium, "args": quiet}


class Complaints(list[str]):
    """The errors that occurred on the pages. `expected` contains the statuses that the test provokes."""

    def __init__(self) -> None:
        super().__init__()
        self.expected: set[int] = set()

    def watch(self, page: Page) -> None:
        page.on("pageerror", lambda error: self.append(f"script: {error}"))
        page.on("console", lambda m: self.append(f"console: {m.text}") if self._is_bad(m) else None)
        # htmx aborts a request when a newer one replaces it.
        page.on(
            "requestfailed", lambda r: self.append(f"failed: {r.url}") if "ABORTED" not in (r.failure or "") else None
        )
        page.on("response", lambda r: self._check_status(r.status, r.url))

    def _is_bad(self, message: Any) -> bool:
        # The console also reports the status of a refused form, which _check_status checks.
        return message.type in {"error", "warning"} and "Failed to load resource" not in message.text

    def _check_status(self, status: int, url: str) -> None:
        if status >= 400 and status not in self.expected:
            self.append(f"{status} {url}")


@pytest.fixture
def complaints() -> Iterator[Complaints]:
    complaints = Complaints()
    yield complaints
    assert complaints == []


@pytest.fixture
def opened(browser: Browser, live_server: Any, complaints: Complaints) -> Iterator[Opened]:
    """Return a function that opens a page in a new window, logged in as the user with a role."""
    contexts: list[BrowserContext] = []

    def opened(role: str = "admin", *, width: int = 1280, scheme: Any = "light", scripts: bool = True) -> Page:
        context = browser.new_context(
            base_url=live_server.url,
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
            java_script_enabled=scripts,
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        complaints.watch(page)
        if role:
            user = user_with_role(role if role != "nobody" else "")
            log_in(page, user.username)
        return page

    yield opened
    for context in contexts:
        context.close()


def log_in(page: Page, name: str, password: str = PASSWORD) -> None:
    page.goto("/login")
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_label("Password").press("Enter")
    page.wait_for_load_state()


@pytest.fixture
def shop(transactional_db: None) -> None:
    """Create a project with two services."""
    make.port_range("shop", make.FIRST, 20)
    make.manager().allocate_many("shop", ["web", "api"])
