"""A pair of PostgreSQL servers that are switched over while Portal serves: several hosts in DATABASE_URL.

The servers replicate synchronously, so that no acknowledged allocation may be lost. See docs/operations.md.
"""

from __future__ import annotations

import http.client
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.conf import settings

from tests.make import FIRST
from tests.system_postgres import programs
from tests.tools import skip_or_fail

pytestmark = pytest.mark.slow
PORTS = (FIRST + 940, FIRST + 941)
WEB = FIRST + 942
CLIENTS, SERVICES = 4, 30


class Pair:
    """A primary and a standby, in a temporary directory."""

    def __init__(self, bin_dir: Path) -> None:
        self.bin_dir = bin_dir
        self.account = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self.folder = Path(tempfile.mkdtemp(prefix="portal-pair-", dir="/tmp"))
        if self.account:
            os.chown(self.folder, self.account.pw_uid, self.account.pw_gid)

    def run(self, program: str, *words: str) -> None:
        with (self.folder / "output").open("w+b") as output:  # a server would keep a pipe open
            done = subprocess.run(
                [self.bin_dir / program, *words],
                user=self.account.pw_uid if self.account else None,
                group=self.account.pw_gid if self.account else None,
                extra_groups=[] if self.account else None,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={"PATH": os.defpath, "LC_ALL": "C"},
            )
        assert done.returncode == 0, (self.folder / "output").read_text()

    def start(self, number: int, *options: str) -> None:
        words = [f"-p {PORTS[number]}", "-c listen_addresses=127.0.0.1", f"-c unix_socket_directories={self.folder}"]
        words += [f"-c {option}" for option in options]
        self.run("pg_ctl", "start", "-w", "-D", f"data{number}", "-l", f"log{number}", "-o", " ".join(words))

    def set_up(self) -> None:
        self.run("initdb", "-D", "data0", "-U", "portal", "--auth=trust", "--locale=C.UTF-8", "--no-sync")
        self.start(0, "synchronous_standby_names=*", "synchronous_commit=on")
        source = ["-h", "127.0.0.1", "-p", str(PORTS[0]), "-U", "portal"]
        self.run("pg_basebackup", *source, "-D", "data1", "-R", "-X", "stream", "-c", "fast")
        self.start(1)
        self.run("createdb", *source, "registry")

    def switch_over(self) -> None:
        self.run("pg_ctl", "stop", "-w", "-m", "fast", "-D", "data0")
        self.run("pg_ctl", "promote", "-w", "-D", "data1")

    def restart(self) -> None:
        self.run("pg_ctl", "restart", "-w", "-m", "fast", "-D", "data0", "-l", "log0")

    def tear_down(self) -> None:
        for number in (0, 1):
            if (self.folder / f"data{number}" / "postmaster.pid").exists():
                self.run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", f"data{number}")
        shutil.rmtree(self.folder)


@pytest.fixture
def pair() -> Iterator[Pair]:
    bin_dir = programs()
    if bin_dir is None:
        skip_or_fail("No PostgreSQL server is installed. Run apt-get install -y --no-install-recommends postgresql")
    pair = Pair(bin_dir)
    try:
        pair.set_up()
        yield pair
    finally:
        pair.tear_down()


def environment(home: Path, *ports: int, **more: str) -> dict[str, str]:
    places = ",".join(f"127.0.0.1:{port}" for port in ports)
    return {
        "PATH": f"{programs()}:{os.environ['PATH']}",
        "PORTAL_HOME": str(home),
        "PORTAL_SECRET_KEY": "only-for-tests-" * 4,
        "PORTAL_PORT": str(WEB),
        "DATABASE_URL": f"postgresql://portal@{places}/registry?target_session_attrs=read-write",
        **more,
    }


def manage(given: dict[str, str], *words: str, **more: Any) -> str:
    command = [sys.executable, *(words if words[0] == "-m" else ("manage.py", *words))]
    done = subprocess.run(command, cwd=settings.BASE_DIR, env=given, capture_output=True, text=True, **more)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def served(given: dict[str, str], log: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "gunicorn", "-c", "tests/gunicorn.conf.py"]
    with log.open("w") as output:
        server = subprocess.Popen(command, cwd=settings.BASE_DIR, env=given, stdout=output, stderr=output)
    try:
        yield
    finally:
        server.terminate()
        server.wait(30)


def ask(method: str, path: str, token: str = "", body: object = None) -> tuple[int, str | None, bytes]:
    web = http.client.HTTPConnection("127.0.0.1", WEB, timeout=60)
    try:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        web.request(method, path, json.dumps(body) if body else None, headers)
        response = web.getresponse()
        return response.status, response.getheader("Retry-After"), response.read()
    finally:
        web.close()


def wait_until_ready() -> None:
    for _ in range(300):
        try:
            if ask("GET", "/readyz")[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError("Portal is not ready")


def test_a_switchover_loses_nothing_and_needs_no_restart(pair: Pair, tmp_path: Path) -> None:
    given = environment(tmp_path / "home", *reversed(PORTS))  # the standby comes first, and is passed over
    manage(given, "migrate", "-v", "0")
    manage(given, "add_project", "shop", "--start", str(FIRST), "--size", "200")
    token = manage(given, "create_token", "agent", "--role", "operator", "--expires", "1h").strip()
    acknowledged: dict[str, int] = {}
    refusals: list[tuple[int, str | None, str]] = []

    def allocate(client: int) -> None:
        for number in range(SERVICES):
            service = f"s{client}-{number}"
            while service not in acknowledged:
                status, retry_after, body = ask(
                    "POST", "/api/ports", token, {"project": "shop", "service": service, "hostname": "web-1"}
                )
                if status in (200, 201):
                    acknowledged[service] = json.loads(body)["port"]
                else:
                    refusals.append((status, retry_after, json.loads(body)["detail"]))
                    time.sleep(0.2)
            time.sleep(0.02)

    with served(given, tmp_path / "log"):
        wait_until_ready()
        clients = [threading.Thread(target=allocate, args=(n,)) for n in range(CLIENTS)]
        for thread in clients:
            thread.start()
        while len(acknowledged) < CLIENTS * SERVICES // 4:
            time.sleep(0.01)
        pair.switch_over()
        for thread in clients:
            thread.join(120)
        wait_until_ready()
        log = (tmp_path / "log").read_text()

    assert len(acknowledged) == CLIENTS * SERVICES
    assert {(status, bool(retry_after)) for status, retry_after, _ in refusals} <= {(503, True)}, refusals
    with psycopg.connect(host="127.0.0.1", port=PORTS[1], user="portal", dbname="registry") as session:
        rows = session.execute(
            "SELECT service_name, port_number FROM port_allocations WHERE service_name LIKE 's%-%' "
            "AND status = 'allocated'"
        ).fetchall()
    assert dict(rows) == acknowledged
    assert len(rows) == len({port for _, port in rows})
    assert "Service Unavailable" not in log
    if refusals:
        assert 1 <= log.count("The database cannot be reached: ") <= 4, "once per worker and outage"


def test_no_request_fails_after_a_restart(pair: Pair, tmp_path: Path) -> None:
    given = environment(tmp_path / "home", PORTS[0])
    manage(given, "migrate", "-v", "0")
    manage(given, "add_project", "shop", "--start", str(FIRST), "--size", "200")
    token = manage(given, "create_token", "agent", "--role", "operator", "--expires", "1h").strip()

    def use(number: int) -> int:
        if number % 2:
            return ask("POST", "/api/ports", token, {"project": "shop", "service": f"s{number}"})[0] - 1
        return ask("GET", "/api/ports", token)[0]

    with served(given, tmp_path / "log"), ThreadPoolExecutor(8) as threads:
        wait_until_ready()
        assert {*threads.map(use, range(24))} == {200}
        for first in (24, 48):
            pair.restart()
            assert {*threads.map(use, range(first, first + 24))} == {200}


def test_commands_pass_the_options_on(pair: Pair, tmp_path: Path) -> None:
    given = environment(tmp_path / "home", *reversed(PORTS))
    manage(given, "migrate", "-v", "0")
    query = "SELECT pg_is_in_recovery(), inet_server_port()"
    assert f"f,{PORTS[0]}" in manage(given, "dbshell", "--", "--csv", "-c", query)
    manage(given, "-m", "portal.backup", "backup", str(tmp_path / "dump"))
    assert (tmp_path / "dump").stat().st_size > 1000
    # An option that cannot be met is not dropped: the server has no TLS.
    given["DATABASE_URL"] += "&sslmode=require"
    with pytest.raises(AssertionError, match="SSL"):
        manage(given, "-m", "portal.backup", "backup", str(tmp_path / "other"))
    with pytest.raises(AssertionError, match="SSL"):
        manage(given, "dbshell", "--", "-c", query)


def test_up_waits_until_the_database_takes_changes(pair: Pair, tmp_path: Path) -> None:
    given = environment(tmp_path / "home", PORTS[1])
    command = [sys.executable, "manage.py", "up", "--setup-only"]
    up = subprocess.Popen(command, cwd=settings.BASE_DIR, env=given, stderr=subprocess.PIPE, text=True)
    assert up.stderr is not None
    assert "The database is read-only" in up.stderr.readline()
    assert up.poll() is None
    pair.switch_over()
    _, errors = up.communicate(timeout=120)
    assert up.returncode == 0, errors
