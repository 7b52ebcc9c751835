"""What every test may use."""

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
from django.test import TransactionTestCase

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


# Parents after children; the groups of migration 0004 and their permissions stay.
EMPTIED = (
    *("port_health_checks", "listeners", "audits", "port_allocations", "port_ranges", "projects", "events"),
    *("django_session", "django_admin_log", "axes_accessattempt", "axes_accesslog", "axes_accessfailurelog"),
    *("api_token_projects", "api_tokens", "user_limit_projects", "user_limits", "idempotent_answers", "rate_limits"),
    *("auth_user_groups", "auth_user_user_permissions", "auth_user"),
)
GUARDED = (
    *("port_allocations", "port_ranges", "projects", "events"),
    *("auth_user", "auth_user_groups", "user_limits"),
)


def empty_tables(_: TransactionTestCase) -> None:
    """Clean up after a test that committed. Django's own way is TRUNCATE, which the registry's triggers refuse."""
    with connection.cursor() as cursor:
        for table in GUARDED:
            cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        cursor.execute(f"TRUNCATE {', '.join(EMPTIED)} RESTART IDENTITY CASCADE")
        for table in GUARDED:
            for trigger in triggers_of(cursor, table):
                cursor.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {trigger}")


def triggers_of(cursor: CursorWrapper, table: str) -> list[str]:
    """The names of a table's own triggers, without those of its constraints."""
    cursor.execute("SELECT tgname FROM pg_trigger WHERE tgrelid = %s::regclass AND NOT tgisinternal", [table])
    return [row[0] for row in cursor.fetchall()]


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None) -> Iterator[None]:
    """PostgreSQL takes a moment to notice that a server of a test has gone; its database goes only after that."""
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
        question = "SELECT pid FROM pg_stat_activity WHERE datname = %s"
        for _ in range(50):
            left = session.execute(question, (settings_dict["NAME"],)).fetchall()
            if not left:
                break
            time.sleep(0.1)
        for (pid,) in left:
            session.execute("SELECT pg_terminate_backend(%s)", (pid,))


@pytest.fixture(autouse=True, scope="session")
def _clean_up_past_the_guards() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", empty_tables)
        yield


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout without a `.env` that somebody may have here."""
    shutil.copytree(settings.BASE_DIR / "portal", tmp_path / "portal", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(settings.BASE_DIR / "manage.py", tmp_path)
    (tmp_path / "allocations").symlink_to(settings.BASE_DIR / "allocations")
    (tmp_path / "templates").symlink_to(settings.BASE_DIR / "templates")
    (tmp_path / "static").symlink_to(settings.BASE_DIR / "static")
    return tmp_path


@pytest.fixture
def other_host(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of another host, whose address is this machine's second loopback address: what listens there answers."""
    look_up, name = socket.getaddrinfo, "other.example"

    def resolve(host: str, *how: Any, **more: Any) -> Any:
        return look_up("127.0.0.2" if host == name else host, *how, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return name


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that open real sockets on the same few ports, or look at all of the machine's, run one after another."""
    for item in items:
        if item.path.parent.name in {"views", "browser"} or item.path.stem in {"test_commands", "test_import_ports"}:
            item.add_marker(pytest.mark.xdist_group("sockets"))
