"""A clean checkout with a real Portal, in which the blocks of the documentation are run."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from django.conf import settings

from portal.embedded.server import DATABASE, OWNER, PORT, SUPERUSER, Server

LEFT_OUT = shutil.ignore_patterns(".git", ".venv", ".env", ".portal", ".*_cache", ".hypothesis")
# Portal takes its own port from the first of these ranges, so that its own audit finds it healthy.
OWN_RANGE = range(3099, 3000, -1)
PRISTINE = "pristine"
# A run that is killed takes its server with it.
ENDS_WITH_US = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []


@dataclass(frozen=True)
class Portal:
    """A Portal that serves on `port` from a checkout of its own."""

    checkout: Path
    home: Path
    port: int

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a new shell of its user: nothing of the tests', and nothing of the developer's."""
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(self.checkout.parent),
            "PORTAL_HOME": str(self.home),
            "PORTAL_PORT": str(self.port),
        }

    def session(self) -> psycopg.Connection:
        """A session of the embedded PostgreSQL beside Portal's own database."""
        place = {"host": str(Server(self.home).socket_dir), "port": PORT, "user": SUPERUSER}
        return psycopg.connect(dbname="postgres", autocommit=True, **place)

    def keep(self) -> None:
        """Keep the registry as it is now, for `reset`."""
        with self.session() as session:
            # A worker whose client went away keeps its session until its next request, and a template may have none.
            session.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (DATABASE,))
            session.execute(f"CREATE DATABASE {PRISTINE} TEMPLATE {DATABASE}")

    def reset(self) -> None:
        """Make the registry what it was at first."""
        with self.session() as session:
            session.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")
            session.execute(f"CREATE DATABASE {DATABASE} TEMPLATE {PRISTINE} OWNER {OWNER}")


@pytest.fixture(scope="session")
def portal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Portal]:
    """A Portal that `make up` started, as the README says, in a copy of this checkout."""
    # As root Portal runs as another account, which has to be able to enter the directory.
    base = settings.PORTAL_HOME.parent if os.geteuid() == 0 else tmp_path_factory.mktemp("docs")
    base = base / f"docs-{os.getpid()}"
    base.mkdir(mode=0o711)
    portal = Portal(base / "portal", base / "home", _free_port())
    shutil.copytree(settings.BASE_DIR, portal.checkout, ignore=LEFT_OUT)
    (portal.checkout / ".venv").symlink_to(sys.prefix)
    # The packages are those of this run: make need not compare them with the list.
    os.utime(portal.checkout / "requirements.txt", (0, 0))
    log = base / "up.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [*ENDS_WITH_US, "make", "up"],
            cwd=portal.checkout,
            env=portal.environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _wait(f"http://localhost:{portal.port}/readyz", server, log)
        portal.keep()
        yield portal
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
        for home in (portal.home, *(path.parent for path in base.glob("*/postgresql"))):
            Server(home).stop()
        shutil.rmtree(base)


def _free_port() -> int:
    for port in OWN_RANGE:
        with socket.socket() as tried, suppress(OSError):
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(("127.0.0.1", port))
            return port
    raise AssertionError("every port of Portal's own range is in use")


def _wait(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(1200):
        try:
            urllib.request.urlopen(address, timeout=60)  # noqa: S310 http, on this machine
            return
        except (urllib.error.URLError, OSError):
            assert server.poll() is None, log.read_text()
            time.sleep(0.1)
    raise AssertionError(log.read_text())
