"""An existing Portal survives an upgrade, or is refused in one sentence.

`data/portal-1f39b2f.dump.gz` is a backup (`make backup`, then gzip) of a Portal at commit 1f39b2f, the last one with
the ten migrations that 0001_initial replaces. It holds allocations of every status, reservations with and without an
expiry, checks, listeners, events, users, limits, tokens and an answer to an Idempotency-Key.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import psycopg
import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder

from allocations.management.commands import migrate
from portal.embedded.server import DATABASE, PORT, SUPERUSER, Server, bin_dir
from scripts import schema
from tests.make import FIRST
from tests.system_postgres import programs
from tests.tools import skip_or_fail

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.skipif(not settings.EMBEDDED_DATABASE, reason="the dump is of the embedded PostgreSQL"),
]

DUMP = Path(__file__).parent.parent / "data" / "portal-1f39b2f.dump.gz"
OLD = (
    *("0001_registry", "0002_guards", "0003_functions", "0004_roles", "0005_access", "0006_keys", "0007_agents"),
    *("0008_one_name_a_host", "0009_canonical_hosts", "0010_last_admin"),
)
NEW = ("0001_initial", "0002_functions")


# Every row of every table as JSON, by its primary key.
Rows = dict[str, dict[str, dict[str, Any]]]


class Portal:
    """A Portal with a database and a PORTAL_HOME of its own, run as people run it."""

    def __init__(self, home: Path, host: str, name: str, url: str = "") -> None:
        self.home = home
        self.host = host
        self.name = name
        self.environment = os.environ | {
            "DJANGO_SETTINGS_MODULE": "portal.settings",
            "PORTAL_HOME": str(home),
            "DATABASE_URL": url,
            "PORTAL_SECRET_KEY": "only-for-tests-" * 4,
            "PORTAL_PORT": str(FIRST + 990),
            # With DATABASE_URL the client programs of the PATH are used.
            "PATH": f"{bin_dir()}:{os.environ['PATH']}",
        }

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *words],
            capture_output=True,
            text=True,
            cwd=settings.BASE_DIR,
            env=self.environment | environment,
            timeout=120,
        )

    def manage(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.run("manage.py", *words, **environment)

    def restore(self, file: Path) -> None:
        done = self.run("-m", "portal.backup", "restore", str(file))
        assert (done.returncode, done.stderr) == (0, "")

    def sql(self, text: str) -> list[Any]:
        with psycopg.connect(host=self.host, port=PORT, user=SUPERUSER, dbname=self.name, autocommit=True) as session:
            cursor = session.execute(text)
            return cursor.fetchall() if cursor.description else []

    def rows(self) -> Rows:
        """Every row of every table as JSON, by its primary key."""
        keys = self.sql(
            "SELECT c.relname, array_agg(a.attname::text ORDER BY a.attnum) FROM pg_class c "
            "JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary "
            "JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey) "
            "WHERE c.relnamespace = 'public'::regnamespace GROUP BY 1"
        )
        assert len(keys) == len(self.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")), (
            "a table without a key"
        )
        return {
            table: {
                json.dumps([row[column] for column in key]): row
                for (row,) in self.sql(f'SELECT to_jsonb(t) FROM "{table}" t')
            }
            for table, key in keys
        }

    def dump_schema(self, *options: str | Path) -> str:
        given = {"PGHOST": self.host, "PGPORT": str(PORT), "PGUSER": SUPERUSER, "PGDATABASE": self.name}
        command = [bin_dir() / "pg_dump", "--schema-only", "--no-owner", *options]
        return subprocess.run(command, env=os.environ | given, capture_output=True, text=True, check=True).stdout

    def schema(self) -> dict[tuple[str, str, str], list[str]]:
        """The objects that pg_dump writes, with the lines of a table (its columns and CHECKs) sorted."""
        found = {}
        for entry in schema.entries(self.dump_schema()):
            lines = [line.rstrip(",") for line in entry.text.splitlines()]
            found[entry.kind, entry.table, entry.name] = sorted(lines) if entry.kind == "TABLE" else lines
        return found

    def backups(self) -> list[Path]:
        return sorted((self.home / "backups").glob("*")) if (self.home / "backups").is_dir() else []


@pytest.fixture
def embedded() -> Iterator[Portal]:
    """A Portal with an embedded PostgreSQL of its own, which no test has touched."""
    # As root the server runs as another account, which cannot enter pytest's directories.
    home = Path("/var/tmp" if os.geteuid() == 0 else "/tmp") / f"portal-upgrade-{uuid4().hex[:8]}"
    yield Portal(home, str(Server(home).socket_dir), DATABASE)
    Server(home).stop()
    shutil.rmtree(home)


@pytest.fixture
def portals(tmp_path: Path) -> Iterator[Callable[[], Portal]]:
    """Make Portals with an empty database each on the server of the tests, by DATABASE_URL."""
    host, names = connection.settings_dict["HOST"], []
    with psycopg.connect(host=host, port=PORT, user=SUPERUSER, dbname="postgres", autocommit=True) as session:

        def make() -> Portal:
            name = f"upgrade_{uuid4().hex[:8]}"
            names.append(name)
            session.execute(f"CREATE DATABASE {name}")
            return Portal(tmp_path / name, host, name, f"postgresql://{SUPERUSER}@{quote(host, safe='')}:{PORT}/{name}")

        yield make
        for name in names:
            session.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def portal(portals: Callable[[], Portal]) -> Portal:
    return portals()


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    """The backup that the old Portal wrote."""
    file = tmp_path / "portal.dump"
    file.write_bytes(gzip.decompress(DUMP.read_bytes()))
    return file


def serve(portal: Portal) -> str:
    """Run `manage.py up` until it is ready; what it said."""
    with subprocess.Popen(
        [sys.executable, "manage.py", "up"],
        cwd=settings.BASE_DIR,
        env=portal.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            for _ in range(300):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{portal.environment['PORTAL_PORT']}/readyz", timeout=5)
                    break
                except (urllib.error.URLError, OSError):
                    assert process.poll() is None, process.communicate()[0]
                    time.sleep(0.1)
        finally:
            process.terminate()
        return process.communicate(timeout=30)[0]


def hosts_with_ports(rows: Rows) -> set[str]:
    """Return the hosts on which ports are held."""
    return {row["hostname"] for row in rows["port_allocations"].values() if row["status"] != "released"}


def restored_schema(portal: Portal, other: Portal) -> dict[tuple[str, str, str], list[str]]:
    """The schema of a Portal once it was restored into another, empty database.

    PostgreSQL writes some conditions with other casts and parentheses after it has read them from a dump.
    """
    file = other.home.with_suffix(".dump")
    portal.dump_schema("--format=custom", f"--file={file}")
    other.restore(file)
    return other.schema()


def without_new_columns(after: Rows, before: Rows) -> Rows:
    """The rows of the tables and with the columns that were there before."""
    columns = {table: set().union(*rows.values()) for table, rows in before.items()}
    return {
        table: {
            key: {column: value for column, value in row.items() if column in columns[table] or not columns[table]}
            for key, row in after[table].items()
        }
        for table in before
    }


def assert_reservations(allocations: Iterable[dict[str, Any]], reservations: dict[str, dict[str, Any]]) -> None:
    """Each reserved port belongs to a reservation that is like it, and each reservation has all of its ports."""
    reserved = [row for row in allocations if row["status"] == "reserved"]
    blocks = {row["id"]: row for row in reservations.values()}
    assert blocks
    for row in reserved:
        block = blocks[row["reservation_id"]]
        for name in ("project_id", "hostname", "protocol", "description", "expires_at"):
            assert row[name] == block[name]
        assert row["allocated_by"] == block["reserved_by"]
    for key, block in blocks.items():
        ports = sorted(row["port_number"] for row in reserved if row["reservation_id"] == key)
        assert ports == list(range(block["start_port"], block["end_port"] + 1))


@pytest.mark.slow
def test_a_portal_of_the_ten_migrations_goes_on(embedded: Portal, portals: Callable[[], Portal], dump: Path) -> None:
    embedded.restore(dump)
    before = embedded.rows()
    assert {row["status"] for row in before["port_allocations"].values()} == {
        *("allocated", "reserved", "pending", "released"),
    }
    for table in ("port_health_checks", "audits", "listeners", "events", "api_tokens", "user_limits", "rate_limits"):
        assert before[table], table

    said = serve(embedded)

    after, original = embedded.rows(), dict(before)
    recorded = {row["name"] for row in after["django_migrations"].values() if row["app"] == "allocations"}
    assert recorded >= {*OLD, *NEW}
    for table in ("django_migrations", "django_content_type", "auth_permission", "auth_group_permissions"):
        assert before.pop(table).items() <= after.pop(table).items(), "new tables have permissions"
    assert {row["name"] for row in after.pop("hosts").values()} == {"localhost", *hosts_with_ports(before)}
    assert_reservations(after["port_allocations"].values(), after.pop("reservations"))
    assert without_new_columns(after, before) == before, "every row is as it was"
    fresh = Portal(embedded.home, connection.settings_dict["HOST"], connection.settings_dict["NAME"])
    assert restored_schema(embedded, portals()) == restored_schema(fresh, portals())

    (kept,) = embedded.backups()
    assert f"Wrote a backup to {kept} before migrating." in said.splitlines()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (kept.parent, kept)] == [0o700, 0o600]
    other = portals()
    other.restore(kept)
    restored = other.rows()
    assert {row["name"] for row in restored.pop("django_migrations").values() if row["app"] == "allocations"} == {*OLD}
    original.pop("django_migrations")
    assert restored == original, "the backup is of the moment before"

    assert embedded.manage("migrate").stdout.endswith("No migrations to apply.\n")
    assert embedded.backups() == [kept], "there was nothing to back up for"
    held = {row["port_number"] for row in after["port_allocations"].values() if row["status"] != "released"}
    assert embedded.manage("allocate", "shop", "web").stdout == "21000\n", "what it had"
    assert embedded.manage("allocate", "shop", "new").stdout == f"{min({*range(21000, 21020)} - held)}\n"


@pytest.mark.slow
def test_a_new_database_needs_no_backup_and_one_with_data_does(portal: Portal) -> None:
    done = portal.manage("migrate", "-v", "0", PATH="/nowhere")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    made = portal.schema()
    assert portal.manage("migrate", "allocations", "zero", "-v", "0", PATH="/nowhere").returncode == 0
    assert portal.sql("SELECT to_regclass('projects'), to_regprocedure('release_port(int, text, text)')") == [
        (None, None)
    ]
    assert portal.manage("migrate", "-v", "0", PATH="/nowhere").returncode == 0
    assert portal.schema() == made
    assert portal.backups() == []

    portal.sql("INSERT INTO projects (name) VALUES ('shop')")
    done = portal.manage("migrate", "allocations", "zero", "-v", "0")
    assert (done.returncode, done.stdout) == (0, "")
    assert re.fullmatch(r"Wrote a backup to \S+/backups/portal-\S+Z\.dump before migrating\.\n", done.stderr)
    assert len(portal.backups()) == 1


class TestNoBackupNoMigration:
    """Where the backup cannot be written, nothing is migrated, unless somebody says so."""

    @pytest.fixture
    def old(self, portal: Portal, dump: Path) -> Portal:
        portal.restore(dump)
        return portal

    def refused(self, old: Portal, reason: str, **environment: str) -> None:
        before = old.rows(), old.schema()
        done = old.manage("migrate", **environment)
        assert done.returncode == 2
        assert re.fullmatch(
            "The database was not migrated, because the backup before it failed: .*"
            f"{reason}.*; `./manage.py migrate --no-backup` goes on without one.\n",
            done.stderr,
        )
        assert (old.rows(), old.schema()) == before

    def test_without_pg_dump(self, old: Portal) -> None:
        self.refused(old, "pg_dump is not installed", PATH="/nowhere")
        done = old.manage("up", PATH="/nowhere")
        assert (done.returncode, done.stderr.splitlines()[0]) == (1, "Setting up the database …")
        assert "`./manage.py migrate --no-backup` goes on without one." in done.stderr.splitlines()[1]

        done = old.manage("migrate", "--no-backup", "-v", "0", PATH="/nowhere")

        assert (done.returncode, done.stdout, done.stderr, old.backups()) == (0, "", "", [])
        assert old.sql("SELECT count(*) FROM django_migrations WHERE name = '0002_functions'") == [(1,)]

    def test_with_a_pg_dump_that_is_too_old(self, old: Portal) -> None:
        folder = programs()
        if folder is None or int(folder.parent.name) >= 18:
            skip_or_fail("no PostgreSQL of the system that is older than the embedded one")
        self.refused(old, "server version mismatch", PATH=str(folder))
        assert old.backups() == [], "no half of a backup stays"

    def test_without_a_place_for_it(self, old: Portal) -> None:
        old.home.mkdir()
        (old.home / "backups").write_text("a file")
        self.refused(old, "File exists")


STATES = {
    "newer": ([*OLD, *NEW, "9999_later"], "newer one, because 9999_later is not a migration of this one"),
    "unknown": (["0001_start"], "newer one, because 0001_start is not a migration of this one"),
    "before the last": (
        OLD[:9],
        "is at 0009_canonical_hosts: first run `./manage.py migrate` of Portal's commit 1f39b2f",
    ),
    "in the middle": (OLD[:7], "is at 0007_agents: first run `./manage.py migrate` of Portal's commit 1f39b2f"),
    "at the first": (OLD[:1], "is at 0001_registry: first run `./manage.py migrate` of Portal's commit 1f39b2f"),
    "with a gap": ([*OLD[:3], *OLD[5:]], "names 0010_last_admin and not 0004_roles"),
    "without the replaced": (NEW, "names 0002_functions and not 0001_registry"),
    "with some of the replaced": ([*OLD[:7], *NEW], "and not 0008_one_name_a_host"),
}


@pytest.mark.parametrize("names", [(), OLD, (*OLD, *NEW[:1]), (*OLD, *NEW), (*OLD, NEW[1])])
def test_states_that_can_be_migrated(names: Sequence[str]) -> None:
    assert migrate.refusal(names, OLD, NEW) is None


@pytest.mark.parametrize("state", STATES)
def test_any_other_state_is_refused_and_nothing_is_changed(state: str) -> None:
    names, reason = STATES[state]
    recorded = MigrationRecorder.Migration.objects.filter(app="allocations")
    recorded.delete()
    for name in names:
        MigrationRecorder(connection).record_applied("allocations", name)
    for words in ((), ("allocations", "zero"), ("--plan",), ("--check",), ("--no-backup",), ("sessions",)):
        with pytest.raises(ImproperlyConfigured) as refused:
            call_command("migrate", *words, verbosity=0)
        assert reason in str(refused.value)
        assert str(refused.value).count(". ") == 0
        assert str(refused.value).endswith("nothing was changed.")
    assert sorted(recorded.values_list("name", flat=True)) == sorted(names)


def test_the_database_of_the_tests_can_be_migrated() -> None:
    """Which was made by this Portal's migrations."""
    migrate.refuse_foreign(connection)


@pytest.mark.slow
def test_a_refusal_is_one_line(portal: Portal, dump: Path) -> None:
    portal.restore(dump)
    portal.sql("DELETE FROM django_migrations WHERE app = 'allocations' AND name >= '0008'")
    _, reason = STATES["in the middle"]
    before = portal.rows(), portal.schema()
    for command, status, lines in (("migrate", 2, 1), ("up", 1, 2)):  # `up` says first that it sets up the database
        done = portal.manage(command)
        assert (done.returncode, len(done.stderr.splitlines())) == (status, lines), done.stderr
        assert reason in done.stderr
    assert ((portal.rows(), portal.schema()), portal.backups()) == (before, [])
