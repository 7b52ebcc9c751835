"""A cluster that a Portal at 1f39b2f made moves into one with roles, as root and as an ordinary user."""

from __future__ import annotations

import gzip
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from portal.embedded.server import PORT, bin_dir
from tests.portal.test_embedded import AS_WE_ARE, Portal, folder, installed, packages, uid

__all__ = ["folder", "packages", "uid"]
DUMP = Path(__file__).parent.parent / "data" / "portal-1f39b2f.dump.gz"
Rows = dict[str, list[str]]


class OldPortal(Portal):
    """An installation as Portal made it at 1f39b2f: one role, `trust`, and as root the account `nobody`."""

    @property
    def account(self) -> int:
        return self.uid or 65534

    @property
    def old_socket_dir(self) -> Path:
        return self.home / "run"

    def program(self, *command: str | Path, **options: object) -> None:
        subprocess.run(
            [bin_dir() / command[0], *command[1:]],
            user=self.account if os.geteuid() == 0 else None,
            group=65534 if os.geteuid() == 0 else None,
            extra_groups=[] if os.geteuid() == 0 else None,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
            **options,  # type: ignore[call-overload]
        )

    def make(self) -> None:
        self.home.mkdir(mode=0o700)
        os.chown(self.home, self.uid, -1)
        if self.uid == 0:
            os.chown(self.home, 0, 65534)
            self.home.chmod(0o710)
        self.server.log.touch(mode=0o600)
        (self.home / "postgresql.lock").touch()
        for directory in (self.server.data, self.old_socket_dir):
            directory.mkdir(mode=0o700)
        for path in (self.server.log, self.server.data, self.old_socket_dir):
            os.chown(path, self.account, -1)
        os.chown(self.home / "postgresql.lock", self.uid, -1)
        data = self.server.data
        locale = ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-sync")
        self.program("initdb", "-D", ".", "-U", "portal", "--auth=trust", "--encoding=UTF8", *locale, cwd=data)
        self.start_old()
        self.program("createdb", "-h", self.old_socket_dir, "-U", "portal", "portal", cwd=data)
        with tempfile.TemporaryFile() as dump:
            dump.write(gzip.decompress(DUMP.read_bytes()))
            dump.seek(0)
            address = ("-h", self.old_socket_dir, "-U", "portal", "-d", "portal")
            self.program("pg_restore", "--no-owner", *address, cwd=data, stdin=dump)

    def start_old(self) -> None:
        options = f"-c listen_addresses= -c unix_socket_directories={self.old_socket_dir} -c port={PORT}"
        start = ("pg_ctl", "start", "-w", "-D", ".", "-l", "../postgresql.log", "-o", options)
        self.program(*start, cwd=self.server.data)

    def stop_old(self) -> None:
        self.program("pg_ctl", "stop", "-w", "-D", ".", "-m", "fast", cwd=self.server.data)


def rows(socket_dir: Path, role: str) -> Rows:
    """Return every row of every table as text."""
    with psycopg.connect(host=str(socket_dir), port=PORT, user=role, dbname="portal") as session:
        tables = session.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        )
        return {
            name: [row for (row,) in session.execute(f'SELECT t::text FROM "{name}" t ORDER BY 1')]
            for (name,) in tables.fetchall()
        }


@pytest.fixture
def old(folder: Path, uid: int, packages: Path) -> Iterator[OldPortal]:
    portal = OldPortal(folder / "home", uid, packages)
    portal.make()
    yield from installed(portal)  # type: ignore[misc]


@pytest.mark.parametrize(("uid", "is_running"), [("as root", True), ("as a user", False)], indirect=["uid"])
def test_every_row_is_in_the_new_cluster(old: OldPortal, is_running: bool) -> None:
    before = rows(old.old_socket_dir, "portal")
    assert sum(map(len, before.values())) > 100
    if not is_running:
        old.stop_old()

    assert "Moving the database" in old.start()

    assert rows(old.socket_dir, "postgres") == before
    with psycopg.connect(host=str(old.socket_dir), port=PORT, user="postgres", dbname="portal") as session:
        owners = session.execute("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'").fetchall()
        assert owners == [("portal_owner",)]
    moved = old.home / "postgresql.old"
    assert (moved.stat().st_uid, stat.S_IMODE(moved.stat().st_mode)) == (old.account, 0o700)
    assert sorted(path.name for path in old.home.glob("postgresql.*")) == [
        *("postgresql.lock", "postgresql.log", "postgresql.old")
    ]
    assert old.start() == ""  # once


@AS_WE_ARE
def test_several_processes_move_it_once(old: OldPortal) -> None:
    before = rows(old.old_socket_dir, "portal")
    starters = [old.starter() for _ in range(4)]
    outputs = [starter.communicate(timeout=90) for starter in starters]
    assert [out for out, _ in outputs] == ["up\n"] * 4
    assert sum("Moving" in err for _, err in outputs) == 1
    assert rows(old.socket_dir, "postgres") == before


@AS_WE_ARE
def test_failure_changes_nothing(old: OldPortal) -> None:
    before = rows(old.old_socket_dir, "portal")
    old.stop_old()
    configuration = old.server.data / "postgresql.conf"
    text = configuration.read_text()
    configuration.write_text(f"{text}\nshared_buffers = 'much'\n")
    assert "could not be moved to a new cluster" in old.start()
    configuration.write_text(text)
    assert not (old.home / "postgresql.old").exists()
    old.start_old()
    assert rows(old.old_socket_dir, "portal") == before


@AS_WE_ARE
def test_move_that_was_interrupted_at_the_end_is_finished(old: OldPortal) -> None:
    before = rows(old.old_socket_dir, "portal")
    before["rate_limits"] = []  # PostgreSQL empties it after a crash
    old.start()
    old.kill()
    old.server.data.rename(old.home / "postgresql.next")  # as after the first of the two renames

    assert old.start() == ""

    assert rows(old.socket_dir, "postgres") == before


@AS_WE_ARE
def test_old_cluster_that_is_still_there_is_not_overwritten(old: OldPortal) -> None:
    (old.home / "postgresql.old").mkdir()
    assert "Delete it with `make clean-old`" in old.start()
    shutil.rmtree(old.home / "postgresql.old")
