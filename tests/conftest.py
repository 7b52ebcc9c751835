"""What every test may use."""

import fcntl
import os
from collections.abc import Iterator

import pytest
from django.conf import settings

from portal import home
from portal.embedded.server import Server
from tests.system_postgres import programs, system_postgres
from tests.tools import cannot_run

in_use = pytest.StashKey[int]()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Say that this run uses the embedded server, so that no other run stops it when that ends first."""
    if hasattr(session.config, "workerinput"):  # one of several workers: its controller says so
        return
    home.prepare(settings.PORTAL_HOME)
    session.config.stash[in_use] = os.open(settings.PORTAL_HOME / "tests.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(session.config.stash[in_use], fcntl.LOCK_SH)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the embedded server after the last of the runs that use it."""
    lock = config.stash.get(in_use, None)
    if lock is None:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        Server(settings.PORTAL_HOME).stop()
    except BlockingIOError:
        pass
    finally:
        os.close(lock)


@pytest.fixture(scope="session")
def system_database_url() -> Iterator[str]:
    """DATABASE_URL of a PostgreSQL of the system, without any table."""
    bin_dir = programs()
    if bin_dir is None:
        cannot_run("no PostgreSQL of the system: apt-get install -y --no-install-recommends postgresql")
    with system_postgres(bin_dir) as url:
        yield url
