"""What every test may use."""

import fcntl
import os

import pytest
from django.conf import settings

from portal import home
from portal.embedded.server import Server

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
