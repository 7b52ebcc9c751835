"""Portal as `make up` starts it, with an embedded PostgreSQL of its own: its rights, and a database that hangs."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from django.conf import settings

from portal.embedded.server import Server
from tests.make import FIRST

PORT = FIRST + 491
# They share a Portal, which takes a while to start.
pytestmark = pytest.mark.xdist_group("launch")
SECRETS = {"PORTAL_ADMIN_PASSWORD": "tea-at-five-4711", "DATABASE_OWNER_URL": ""}
# Root passes on Portal's own variables only.
OF_ROOT = {"AWS_SECRET_ACCESS_KEY": "coffee"}


@dataclass
class Served:
    """A running Portal."""

    process: psutil.Process
    home: Path
    log: Path

    def status(self, path: str, timeout: float = 30) -> tuple[int, str | None]:
        """Return the status and the header Retry-After of a page."""
        web = http.client.HTTPConnection("127.0.0.1", PORT, timeout=timeout)
        with contextlib.closing(web):
            web.request("GET", path)
            answer = web.getresponse()
            return answer.status, answer.getheader("Retry-After")

    @property
    def postmaster(self) -> psutil.Process:
        return psutil.Process(int((self.home / "postgresql" / "postmaster.pid").read_text().split()[0]))


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    folder = Path(tempfile.mkdtemp(prefix="portal-test-", dir="/tmp"))
    folder.chmod(0o711)
    home, log = folder / "home", folder / "log"
    environment = {"PATH": "/usr/sbin:/usr/bin:/bin", "PORTAL_HOME": str(home), "PORTAL_PORT": str(PORT), **SECRETS}
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "up"],
            cwd=settings.BASE_DIR,
            env=environment | (OF_ROOT if os.geteuid() == 0 else {}),
            stdout=output,
            stderr=output,
        )
    portal = Served(psutil.Process(process.pid), home, log)
    try:
        for _ in range(900):
            assert process.poll() is None, log.read_text()
            with contextlib.suppress(OSError):
                if portal.status("/readyz")[0] == 200:
                    break
            time.sleep(0.1)
        yield portal
    finally:
        process.terminate()
        process.wait(30)
        Server(home).stop()
        shutil.rmtree(folder)


def test_server_has_neither_the_rights_nor_the_secrets_of_who_starts_it(served: Served) -> None:
    processes = [served.process, *served.process.children(recursive=True)]
    assert len(processes) > 2
    for process in processes:
        environment = Path(f"/proc/{process.pid}/environ").read_text()
        assert "tea-at-five" not in environment
        assert "coffee" not in environment
        is_observer = "allocations.observer" in process.cmdline()
        assert is_observer == (0 in process.uids()), process.cmdline()
    assert served.status("/login")[0] == 200
    assert "with the password in PORTAL_ADMIN_PASSWORD" in served.log.read_text()


def test_server_cannot_change_what_root_has_made(served: Served) -> None:
    if os.geteuid() != 0:
        pytest.skip("an ordinary account owns everything")
    for path in [served.home, *served.home.iterdir()]:
        status = path.lstat()
        is_of_postgresql = path.name.startswith(("postgresql", "run"))
        assert (status.st_uid != 0) == is_of_postgresql, path
    for path in (*(served.home / "app").rglob("*"), *(served.home / "static").rglob("*")):
        assert path.lstat().st_uid == 0


def test_database_that_hangs_is_reported_and_nothing_else_hangs(served: Served) -> None:
    """A stopped server takes connections, and answers neither in them nor in those that it has."""
    assert served.status("/readyz") == (200, None)
    slowest = 0.0
    answers: list[tuple[int, str | None]] = []
    order: list[str] = []

    def ask(path: str) -> None:
        answers.append(served.status(path))
        if answers[-1][0] == 503:
            order.append(path)

    stopped = [served.postmaster, *served.postmaster.children()]
    for process in stopped:
        process.send_signal(signal.SIGSTOP)
    try:
        asking = [
            threading.Thread(target=ask, args=[path])
            for path in ("/readyz", "/", "/api/ports", "/metrics", "/login?next=/", "/readyz") * 2
        ]
        started_at = time.monotonic()
        for thread in asking:
            thread.start()
        while any(thread.is_alive() for thread in asking):
            asked_at = time.monotonic()
            assert served.status("/healthz")[0] == 200
            slowest = max(slowest, time.monotonic() - asked_at)
            time.sleep(0.1)
        took = time.monotonic() - started_at
    finally:
        for process in stopped:
            process.send_signal(signal.SIGCONT)
    assert {status for status, _ in answers} <= {200, 302, 503}, answers
    assert answers.count((503, "5")) + answers.count((503, "2")) >= 4, answers
    assert order[:4] == ["/readyz"] * 4, "it waits for less time than a connection does"
    assert took < 15, "generous for a slow machine: each waits for 3 s"
    assert slowest < 5
    for _ in range(40):
        if served.status("/readyz")[0] == 200:
            break
        time.sleep(0.1)
    assert served.status("/readyz") == (200, None)
    assert served.process.is_running()
