"""The observer: it answers three requests, to the account that serves Portal and to root, and does nothing else."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from allocations import listeners
from allocations.listeners import is_listening
from allocations.observer import client
from portal import account, home
from tests import make
from tests.processes import process

FIRST = make.FIRST
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the observer is a process of root")


@pytest.fixture
def portal_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A PORTAL_HOME of root, in which the account that serves Portal may add files."""
    path = Path(tempfile.mkdtemp(prefix="portal-observer-", dir="/tmp"))
    home.prepare(path)
    monkeypatch.setattr(settings, "PORTAL_HOME", path)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def observer(portal_home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A running observer."""
    with start(portal_home) as running:
        yield running
        running.kill()


def launch(portal_home: Path, *parent: str, **options: Any) -> subprocess.Popen[bytes]:
    name = account.service_account().pw_name
    command = [sys.executable, "-m", "allocations.observer", portal_home, name, *parent]
    return subprocess.Popen(command, cwd=settings.BASE_DIR, env={"PATH": os.environ["PATH"]}, **options)


def start(portal_home: Path) -> subprocess.Popen[bytes]:
    running = launch(portal_home)
    for _ in range(200):
        try:
            ask({"request": "directory", "path": "/"}, portal_home)
            return running
        except OSError:
            assert running.poll() is None
            time.sleep(0.05)
    raise AssertionError("the observer does not answer")


def ask(request: Any, portal_home: Path) -> Any:
    line = request if isinstance(request, bytes) else json.dumps(request).encode() + b"\n"
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(portal_home / "observer" / "socket"))
        connection.sendall(line)
        return json.loads(connection.makefile().readline() or "null")


def as_account(function: Any, user: str = "") -> None:
    account.call(pwd.getpwnam(user) if user else account.service_account(), function)


# Who may ask


def test_account_that_serves_portal_sees_the_processes_of_others(observer: object) -> None:
    with process(FIRST, PORTAL_PROJECT="shop", PORT="4711", SECRET="no") as pid:

        def check() -> None:
            found = is_listening(FIRST)
            assert found is not None
            assert found.pid == pid, found
            assert listeners.environment(found) == {"PORT": "4711", "PORTAL_PROJECT": "shop"}
            assert listeners.why_processes_are_unknown() == ""

        as_account(check)


def test_owners_are_unknown_without_an_observer(portal_home: Path) -> None:
    def check() -> None:
        found = is_listening(FIRST)
        assert found is not None
        assert found.pid is None
        assert listeners.why_processes_are_unknown() == "the observer is not running"

    with process(FIRST):
        as_account(check)


def test_other_accounts_cannot_open_the_socket(observer: object, portal_home: Path) -> None:
    def check() -> None:
        with pytest.raises(PermissionError):
            ask({"request": "directory", "path": "/"}, portal_home)

    as_account(check, "nobody")


def test_other_accounts_get_no_answer_even_if_they_can_open_it(observer: object, portal_home: Path) -> None:
    (portal_home / "observer").chmod(0o755)
    (portal_home / "observer" / "socket").chmod(0o666)

    def check() -> None:
        try:
            answer = ask({"request": "directory", "path": "/"}, portal_home)
        except OSError:
            return
        assert answer is None

    as_account(check, "nobody")


def test_directory_of_the_socket_belongs_to_root(observer: object, portal_home: Path) -> None:
    status = (portal_home / "observer").stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (0, 0o710)


def test_observer_uses_no_directory_that_the_account_has_made(portal_home: Path) -> None:
    as_account(lambda: (portal_home / "observer").mkdir())
    with launch(portal_home, stderr=subprocess.PIPE) as refused:
        _, errors = refused.communicate(timeout=30)
    assert refused.returncode != 0
    assert b"was not made by root" in errors


# What it answers


@pytest.mark.parametrize(
    "request_",
    [
        b"\n",
        b"not json\n",
        b"[]\n",
        b"7\n",
        b'{"request": "listeners"}\n',
        b"[" * 10_000 + b"\n",
        b"x" * 100_000 + b"\n",
        {},
        {"request": "run", "command": "id"},
        {"request": ["restart"], "service": "a/b"},
        {"request": "restart", "service": "a/b", "command": "id"},
        {"request": "restart", "service": ["id"]},
        {"request": "directory"},
        {"request": "directory", "path": "relative"},
        {"request": "directory", "path": "/a\0b"},
        {"request": "directory", "path": "/" + "a" * 5000},
        {"request": "directory", "path": 7},
        {"request": "listeners", "first": 0, "last": 65535, "protocol": None},
        {"request": "listeners", "first": 1, "last": 70000, "protocol": None},
        {"request": "listeners", "first": True, "last": 65535, "protocol": None},
        {"request": "listeners", "first": "1", "last": 65535, "protocol": None},
        {"request": "listeners", "first": 1, "last": 65535, "protocol": "icmp"},
    ],
    ids=lambda request: str(request)[:40],
)
def test_other_requests_are_refused(observer: object, portal_home: Path, request_: Any) -> None:
    assert list(ask(request_, portal_home)) == ["error"]
    assert ask({"request": "directory", "path": "/"}, portal_home) == {"exists": "yes"}


def test_directories(observer: object, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert client.directory_exists(tmp_path) is True
    assert client.directory_exists(tmp_path / "file") is False
    assert client.directory_exists(tmp_path / "missing" / "deep") is False
    assert client.directory_exists(tmp_path / "loop") is None


def test_restart_is_off_unless_root_allows_it(observer: object, portal_home: Path) -> None:
    succeeded, message = client.restart("shop/api")
    assert not succeeded
    assert "restart.toml cannot be read" in message


def test_only_services_that_root_has_named_are_restarted(observer: object, portal_home: Path) -> None:
    commands = portal_home / "restart.toml"
    commands.write_text('[services]\n"shop/api" = ["id", "-u"]\n')
    assert client.restart("shop/api") == (True, "0")
    assert client.restart("shop/other") == (False, "restart.toml has no command for it")
    commands.chmod(0o666)
    assert "can be changed by others" in client.restart("shop/api")[1]


@pytest.mark.parametrize("kind", ["file", "link"])
def test_commands_of_the_account_are_not_run(observer: object, portal_home: Path, kind: str) -> None:
    def write() -> None:
        own = portal_home / ("restart.toml" if kind == "file" else "own.toml")
        own.write_text('[services]\n"shop/api" = ["id", "-u"]\n')
        if kind == "link":
            (portal_home / "restart.toml").symlink_to(own)

    as_account(write)
    assert client.restart("shop/api")[0] is False


# How it lives


def test_it_ends_with_the_process_that_started_it(portal_home: Path) -> None:
    with launch(portal_home, str(os.getpid() + 1_000_000)) as running:  # as if that process had ended
        assert running.wait(10) == 0


def test_ctrl_c_is_for_the_web_server(observer: subprocess.Popen[bytes], portal_home: Path) -> None:
    observer.send_signal(signal.SIGINT)
    assert ask({"request": "directory", "path": "/"}, portal_home) == {"exists": "yes"}


def test_clients_that_say_nothing_stop_nobody(observer: object, portal_home: Path) -> None:
    silent = [socket.socket(socket.AF_UNIX) for _ in range(10)]
    try:
        for connection in silent:
            connection.connect(str(portal_home / "observer" / "socket"))
        assert ask({"request": "directory", "path": "/"}, portal_home) == {"exists": "yes"}
    finally:
        for connection in silent:
            connection.close()


def test_path_of_portal_home_may_be_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of a socket is limited to 107 bytes."""
    top = Path(tempfile.mkdtemp(prefix="portal-observer-", dir="/tmp"))
    top.chmod(0o711)
    path = top / ("long" * 30)
    home.prepare(path)
    monkeypatch.setattr(settings, "PORTAL_HOME", path)
    with launch(path) as running:
        for _ in range(100):
            try:
                assert client.directory_exists(Path("/")) is True
                break
            except client.ObserverUnavailable:
                time.sleep(0.05)
        else:
            pytest.fail("the observer does not answer")
        running.kill()
    shutil.rmtree(top)
