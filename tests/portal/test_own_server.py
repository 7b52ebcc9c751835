"""A PostgreSQL server of one's own, with an owner and an application role, directly and behind PgBouncer."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from django.conf import settings

from allocations.sql.grants import GRANTS
from tests.make import FIRST
from tests.serving import wait_until_ready
from tests.system_postgres import programs, system_postgres
from tests.tools import skip_or_fail

WEB = FIRST + 948
# As in docs/operations.md.
ROLES = """
CREATE ROLE portal_owner LOGIN PASSWORD 'one';
CREATE ROLE portal_app LOGIN PASSWORD 'two';
CREATE DATABASE registry OWNER portal_owner;
"""
PGBOUNCER = """
[databases]
registry = host={server} port=5432 dbname=registry
[pgbouncer]
listen_addr =
unix_socket_dir = {folder}
listen_port = 6432
auth_type = trust
auth_file = {folder}/users
pool_mode = transaction
max_client_conn = 200
default_pool_size = 10
logfile = {folder}/log
pidfile = {folder}/pid
"""


class Portal:
    """A Portal that uses that server, run as people run it."""

    def __init__(self, home: Path, host: str, port: int = 5432, owner_host: str = "") -> None:
        place = f"{quote(host, safe='')}:{port}/registry"
        owner_place = f"{quote(owner_host or host, safe='')}:{port if not owner_host else 5432}/registry"
        self.environment = {
            "PATH": f"{programs()}:{os.environ['PATH']}",
            "PORTAL_HOME": str(home),
            "PORTAL_SECRET_KEY": "only-for-tests-" * 4,
            "DATABASE_URL": f"postgresql://portal_app:two@{place}",
            "DATABASE_OWNER_URL": f"postgresql://portal_owner:one@{owner_place}",
        }

    def run(self, *words: str, status: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, *words], cwd=settings.BASE_DIR, env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == status, done.stderr
        return done.stdout

    def manage(self, *words: str, status: int = 0) -> str:
        return self.run("manage.py", *words, status=status)

    @contextmanager
    def served(self) -> Iterator[None]:
        command = [sys.executable, "-m", "gunicorn", "-c", "tests/gunicorn.conf.py"]
        log = Path(self.environment["PORTAL_HOME"]).parent / "log"
        with log.open("w") as output:
            web = subprocess.Popen(command, cwd=settings.BASE_DIR, env=self.environment, stdout=output, stderr=output)
        try:
            wait_until_ready(f"http://127.0.0.1:{WEB}/readyz", web, log)
            yield
        finally:
            web.terminate()
            web.wait(30)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The directory of the socket of a server with both roles."""
    bin_dir = programs()
    if bin_dir is None:
        skip_or_fail("No PostgreSQL server is installed. Run apt-get install -y --no-install-recommends postgresql")
    with system_postgres(bin_dir) as url:
        with psycopg.connect(url, autocommit=True) as session:
            for statement in filter(str.strip, ROLES.split(";")):
                session.execute(statement)  # type: ignore[call-overload]
            host = session.info.host
        yield host


@pytest.fixture(scope="module")
def migrated(server: str, tmp_path_factory: pytest.TempPathFactory) -> Portal:
    portal = Portal(tmp_path_factory.mktemp("home"), server)
    portal.manage("migrate", "-v", "0")
    portal.manage("add_project", "shop", "--start", str(FIRST), "--size", "100")
    return portal


def session_of(role: str, host: str, port: int = 5432) -> psycopg.Connection:
    return psycopg.connect(host=host, port=port, user=role, dbname="registry", autocommit=True)


def test_owner_migrates_and_application_serves(migrated: Portal, server: str) -> None:
    assert migrated.manage("allocate", "shop", "direct").strip().isdigit()
    with session_of("portal_app", server) as session:
        tables = session.execute("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'").fetchall()
        assert tables == [("portal_owner",)]
        for statement in ("DELETE FROM events", "CREATE TABLE mine (n int)", "CREATE TEMPORARY TABLE mine (n int)"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute(statement)  # type: ignore[call-overload]
        for name, value in {"statement_timeout": "30s", "lock_timeout": "10s"}.items():
            assert session.execute(f"SHOW {name}").fetchone() == (value,)  # type: ignore[call-overload]


def test_setup_alone_ends_without_serving(server: str, tmp_path: Path, migrated: Portal) -> None:
    """As the unit portal-migrate runs it, with a PORTAL_HOME that does not exist yet."""
    portal = Portal(tmp_path / "new" / "home", server)
    portal.manage("up", "--setup-only")
    assert (tmp_path / "new" / "home" / "static" / "staticfiles.json").exists()
    assert "consilio" in portal.manage("port_summary", "consilio")


def test_owner_backs_up_and_restores_with_the_grants(migrated: Portal, server: str, tmp_path: Path) -> None:
    migrated.manage("allocate", "shop", "kept")
    dump = str(tmp_path / "portal.dump")
    migrated.run("-m", "portal.backup", "backup", dump)
    with psycopg.connect(host=server, user="portal", dbname="postgres", autocommit=True) as session:
        session.execute("CREATE DATABASE restored OWNER portal_owner")
    other = Portal(tmp_path / "home", server)
    other.environment |= {
        name: other.environment[name].replace("/registry", "/restored")
        for name in ("DATABASE_URL", "DATABASE_OWNER_URL")
    }
    other.run("-m", "portal.backup", "restore", dump)
    before, after = (portal.manage("list_ports", "--json") for portal in (migrated, other))
    assert json.loads(after) == json.loads(before)
    with psycopg.connect(host=server, user="portal_app", dbname="restored") as session:
        query = "SELECT table_name FROM information_schema.table_privileges WHERE grantee = 'portal_app'"
        assert {name for (name,) in session.execute(query)} == set(GRANTS)


# PgBouncer


@contextmanager
def pgbouncer(server: str) -> Iterator[str]:
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        skip_or_fail("PgBouncer is not installed. Run apt-get install -y --no-install-recommends pgbouncer")
    folder = Path(tempfile.mkdtemp(prefix="portal-pgb-", dir="/tmp"))
    account = pwd.getpwnam("nobody") if os.geteuid() == 0 else None  # it refuses to run as root
    try:
        (folder / "users").write_text('"portal_app" "two"\n')
        (folder / "pgbouncer.ini").write_text(PGBOUNCER.format(server=server, folder=folder))
        if account:
            for path in (folder, *folder.iterdir()):
                os.chown(path, account.pw_uid, account.pw_gid)
        user = account.pw_uid if account else None
        with subprocess.Popen(
            [program, folder / "pgbouncer.ini"], user=user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            for _ in range(100):
                if (folder / ".s.PGSQL.6432").exists():
                    break
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.05)
            try:
                yield str(folder)
            finally:
                process.terminate()
    finally:
        shutil.rmtree(folder)


def test_web_server_keeps_its_sessions_through_pgbouncer(migrated: Portal, server: str, tmp_path: Path) -> None:
    """In transaction mode, in which what a session resets may be that of another transaction."""
    with pgbouncer(server) as folder:
        portal = Portal(tmp_path / "home", folder, 6432, owner_host=server)
        token = portal.manage("create_token", "pgbouncer", "--role", "operator", "--expires", "1h").strip()
        portal.environment |= {"PORTAL_PORT": str(WEB), "PORTAL_WORKERS": "2"}

        def allocate(number: int) -> tuple[int, int]:
            request = urllib.request.Request(
                f"http://127.0.0.1:{WEB}/api/ports",
                json.dumps({"project": "shop", "service": f"web-{number % 12}"}).encode(),
                {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310 always http to this machine
                return number % 12, json.load(response)["port"]

        with portal.served(), ThreadPoolExecutor(8) as threads:
            answers = {*threads.map(allocate, range(60))}
            with psycopg.connect(host=folder, port=6432, user="portal_app", dbname="registry") as session:
                assert session.execute("SHOW statement_timeout").fetchone() == ("30s",)
    assert len(answers) == 12
    assert len({port for _, port in answers}) == 12


def test_main_operations_work_through_pgbouncer(migrated: Portal, server: str, tmp_path: Path) -> None:
    """In transaction mode, in which each transaction may get another session of the server."""
    with pgbouncer(server) as folder:
        portal = Portal(tmp_path / "home", folder, 6432, owner_host=server)
        portal.manage("migrate", "-v", "0")
        with ThreadPoolExecutor(4) as threads:
            numbers = list(threads.map(lambda n: portal.manage("allocate", "shop", f"pooled-{n}").strip(), range(8)))
        assert len(set(numbers)) == 8
        assert portal.manage("allocate", "shop", "pooled-0").strip() == numbers[0]
        portal.manage("reserve", "shop", str(FIRST + 90), "--expires", "1h")
        assert "pooled-3" in portal.manage("list_ports", "--project", "shop")
        assert json.loads(portal.manage("audit", "--json", status=1))["success"] is True
        portal.manage("release", "shop", "pooled-0")
        assert "shop" in portal.manage("explain", numbers[1])
        with session_of("portal_app", folder, 6432) as session:
            for name, value in {"statement_timeout": "30s", "lock_timeout": "10s"}.items():
                assert session.execute(f"SHOW {name}").fetchone() == (value,)  # type: ignore[call-overload]
