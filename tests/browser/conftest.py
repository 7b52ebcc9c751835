"""A real Chromium before a live server; whatever the page complains of fails the test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from playwright.sync_api import Browser, BrowserContext, Page

from tests import make
from tests.tools import cannot_run

# Playwright's synchronous calls keep an event loop in this thread, and Django would refuse the database to it.
os.environ.setdefault("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
PASSWORD = "correct-horse-battery"
Opened = Callable[..., Page]


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> dict[str, Any]:
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not chromium:
        cannot_run("no Chromium: apt-get install -y --no-install-recommends chromium")
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    return {**browser_type_launch_args, "executable_path": chromium, "args": quiet}


class Complaints(list[str]):
    """What the pages complained of. `expected` holds statuses that the test provokes."""

    def __init__(self) -> None:
        super().__init__()
        self.expected: set[int] = set()

    def watch(self, page: Page) -> None:
        page.on("pageerror", lambda error: self.append(f"script: {error}"))
        page.on("console", lambda m: self.append(f"console: {m.text}") if self._is_bad(m) else None)
        page.on(
            "requestfailed", lambda r: self.append(f"failed: {r.url}") if "ABORTED" not in (r.failure or "") else None
        )
        page.on("response", lambda r: self._look(r.status, r.url))

    def _is_bad(self, message: Any) -> bool:
        # A refused form's status is repeated by the console; the status itself is looked at below.
        return message.type in {"error", "warning"} and "Failed to load resource" not in message.text

    def _failed(self, url: str, why: str) -> None:
        if "ABORTED" not in why:  # a request that a newer one made needless
            self.append(f"failed: {url} {why}")

    def _look(self, status: int, url: str) -> None:
        if status >= 400 and status not in self.expected:
            self.append(f"{status} {url}")


@pytest.fixture
def complaints() -> Iterator[Complaints]:
    found = Complaints()
    yield found
    assert found == []


@pytest.fixture
def opened(browser: Browser, live_server: Any, complaints: Complaints) -> Iterator[Opened]:
    """Opens a page as a person of that role, in a window of that kind."""
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
            user = User.objects.filter(username=role).first() or User.objects.create_user(role, password=PASSWORD)
            user.groups.set(Group.objects.filter(name=role))
            log_in(page, role)
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
    """A project with two services."""
    make.port_range("shop", make.FIRST, 20)
    make.manager().allocate_many("shop", ["web", "api"])
