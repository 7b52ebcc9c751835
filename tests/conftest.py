"""Fixtures and hooks for all tests."""

import fcntl
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.conf import settings
from django.db import connection
from django.db.backends.utils import CursorWrapper
from django.test import Client, TransactionTestCase

from allocations.models import PortAllocation, PortRange
from allocations.ports import PortManager, hosts
from allocations.sql.grants import apply_grants
from portal import home
from portal.embedded.server import APPLICATION, Server
from tests import make
from tests.system_postgres import programs, system_postgres
from tests.tools import skip_or_fail
from tests.users import client_with_role

lock_key = pytest.StashKey[int]()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Lock the embedded server for this run, so that another run that ends earlier does not stop it."""
    if hasattr(session.config, "workerinput"):  # an xdist worker: its controller holds the lock
        return
    home.prepare(settings.PORTAL_HOME)
    session.config.stash[lock_key] = os.open(settings.PORTAL_HOME / "tests.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(session.config.stash[lock_key], fcntl.LOCK_SH)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the embedded server at the end of the last run that uses it."""
    lock = config.stash.get(lock_key, None)
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
    """The DATABASE_URL of an empty database on a PostgreSQL server of the system."""
    bin_dir = programs()
    if bin_dir is None:
        skip_or_fail("No PostgreSQL server is installed. Run apt-get install -y --no-install-recommends postgresql")
    with system_postgres(bin_dir) as url:
        yield url


# Child tables come before their parents. The groups of migration 0001 and their permissions stay.
TABLES_TO_EMPTY = (
    *("port_health_checks", "listeners", "audits", "port_allocations", "reservations"),
    *("port_ranges", "projects", "events"),
    *("django_session", "django_admin_log", "axes_accessattempt", "axes_accesslog", "axes_accessfailurelog"),
    *("api_token_projects", "api_tokens", "user_limit_projects", "user_limits", "idempotent_answers", "rate_limits"),
    *("quiet_audits",),
    *("auth_user_groups", "auth_user_user_permissions", "auth_user"),
)
GUARDED_TABLES = (
    *("port_allocations", "reservations", "port_ranges", "projects", "events"),
    *("auth_user", "auth_user_groups", "user_limits"),
)


def empty_tables(_: TransactionTestCase) -> None:
    """Empty the tables after a test that committed.

    Django's own teardown would run TRUNCATE, which the triggers of the registry refuse.
    """
    with connection.cursor() as cursor:
        for table in GUARDED_TABLES:
            cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        cursor.execute(f"TRUNCATE {', '.join(TABLES_TO_EMPTY)} RESTART IDENTITY CASCADE")
        cursor.execute("DELETE FROM hosts WHERE name <> 'localhost'")
        for table in GUARDED_TABLES:
            for trigger in trigger_names(cursor, table):
                cursor.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {trigger}")


def trigger_names(cursor: CursorWrapper, table: str) -> list[str]:
    """Return the names of the triggers of a table, without those of its constraints."""
    cursor.execute("SELECT tgname FROM pg_trigger WHERE tgrelid = %s::regclass AND NOT tgisinternal", [table])
    return [row[0] for row in cursor.fetchall()]


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """Let the servers that tests start use the test database as the application.

    At the end, end the remaining sessions, because it could not be dropped otherwise. PostgreSQL takes a moment to
    notice that a server of a test has gone, so wait before terminating them.
    """
    if settings.EMBEDDED_DATABASE:
        with django_db_blocker.unblock():
            apply_grants(APPLICATION)
    yield
    settings_dict = connection.settings_dict
    with psycopg.connect(
        dbname="postgres",
        user=settings_dict["USER"],
        password=settings_dict["PASSWORD"] or None,
        host=settings_dict["HOST"],
        port=settings_dict["PORT"],
    ) as session:
        connection.close()
        query = "SELECT pid FROM pg_stat_activity WHERE datname = %s"
        for _ in range(50):
            pids = session.execute(query, (settings_dict["NAME"],)).fetchall()
            if not pids:
                break
            time.sleep(0.1)
        for (pid,) in pids:
            session.execute("SELECT pg_terminate_backend(%s)", (pid,))


@pytest.fixture(autouse=True, scope="session")
def _empty_tables_without_triggers() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", empty_tables)
        yield


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the checkout without the `.env` that a developer may have."""
    shutil.copytree(settings.BASE_DIR / "portal", tmp_path / "portal", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(settings.BASE_DIR / "manage.py", tmp_path)
    (tmp_path / "allocations").symlink_to(settings.BASE_DIR / "allocations")
    (tmp_path / "templates").symlink_to(settings.BASE_DIR / "templates")
    (tmp_path / "static").symlink_to(settings.BASE_DIR / "static")
    return tmp_path


@pytest.fixture
def other_host(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of another host. It resolves to 127.0.0.2, so that a test can listen there."""
    getaddrinfo, name = socket.getaddrinfo, "other.example"

    def resolve(host: str, *args: Any, **kwargs: Any) -> Any:
        return getaddrinfo("127.0.0.2" if host == name else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return name


@pytest.fixture
def approved_host(db: None, other_host: str) -> str:
    """The name of another host, which an admin has approved."""
    return hosts.approve(make.manager().context, other_host).name


# A registry with one project or two.


@pytest.fixture
def ports(db: None) -> PortManager:
    """Create the project shop, with the 20 ports from make.FIRST, and return a manager that may do everything."""
    make.port_range("shop", make.FIRST, 20)
    return make.manager()


@pytest.fixture
def bank(db: None) -> PortRange:
    """Create the project bank, with the 20 ports from make.BANK."""
    return make.port_range("bank", make.BANK, 20)


@pytest.fixture
def web(ports: PortManager) -> PortAllocation:
    """Allocate the first port of shop to a service."""
    return ports.allocate("shop", "web", service_type="http", description="The shop")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Listen on the second port of shop."""
    with socket.create_server(("127.0.0.1", make.FIRST + 1)) as server:
        yield server


# Logged-in clients, one for each role.


@pytest.fixture
def viewer(db: None) -> Client:
    return client_with_role("viewer")


@pytest.fixture
def operator(db: None) -> Client:
    return client_with_role("operator")


@pytest.fixture
def admin(db: None) -> Client:
    return client_with_role("admin")
