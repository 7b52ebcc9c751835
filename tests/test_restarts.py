"""Restart commands: what they get, what they cannot do to the audit, and which files are trusted."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from allocations import restarts
from allocations.errors import Conflict, InvalidValue
from allocations.restarts import commands_in, restart


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "restart.toml"
    path.write_text('[services]\n"shop/api" = ["true"]\n')
    path.chmod(0o644)
    return path


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


# What a command cannot do


def test_command_that_starts_a_daemon_is_not_waited_for(tmp_path: Path) -> None:
    """It leaves its session, and keeps standard output open."""
    started = tmp_path / "pid"
    daemon = f"import os, time; os.setsid(); open({str(started)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    start = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {daemon!r}])"
    result = restart("shop/api", python(start), time_limit=20)
    assert result.succeeded
    while not started.exists() or not started.read_text():
        time.sleep(0.05)
    process = psutil.Process(int(started.read_text()))
    assert process.is_running()
    process.kill()


def test_command_that_does_not_end_is_killed_with_its_children() -> None:
    result = restart("shop/api", ["sh", "-c", "sleep 61 & sleep 61"], time_limit=0.5)
    assert (result.succeeded, result.message) == (False, "sh was still running after 0 seconds and was killed")
    sleeping = [p for p in psutil.process_iter(["cmdline", "status"]) if p.info["cmdline"] == ["sleep", "61"]]
    assert not [p for p in sleeping if p.info["status"] != psutil.STATUS_ZOMBIE]  # init reaps it in its own time


def test_command_that_prints_for_ever_is_killed() -> None:
    before = psutil.Process().memory_info().rss
    result = restart("shop/api", ["yes"], time_limit=30)
    assert (result.succeeded, result.message) == (False, "yes printed more than 1024 KB and was killed")
    assert psutil.Process().memory_info().rss - before < 50 * 1024 * 1024


def test_command_gets_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTAL_SECRET_KEY", "tea-at-five")
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:coffee@host/x")
    result = restart("shop/api", ["env"])
    assert result.succeeded
    assert "PATH=" in result.message
    assert "tea-at-five" not in result.message
    assert "coffee" not in result.message


@pytest.mark.parametrize("command", ["missing-program", "/etc"])
def test_command_that_cannot_be_run_is_reported(command: str) -> None:
    result = restart("shop/api", [command])
    assert not result.succeeded
    assert result.message.startswith(f"{command}: ")


# The file


def test_missing_file_shows_an_example(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue) as refused, commands_in(tmp_path / "restart.toml"):
        pass
    assert restarts.EXAMPLE in refused.value.sentence
    (tmp_path / "restart.toml").write_text(restarts.EXAMPLE)
    with commands_in(tmp_path / "restart.toml") as commands:
        assert commands == {"consilio/api-server": ["systemctl", "restart", "consilio-api"]}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("services = 5", "services must be a table"),
        ("services = []", "services must be a table"),
        ("[services", "is not valid TOML"),
        ('[services]\n"a/b" = "systemctl restart b"', "must be a list of words"),
        ('[services]\n"a/b" = []', "must be a list of words"),
        ('[services]\n"a/b" = [""]', "must be a list of words"),
        ('[services]\n"a/b" = ["id", 5]', "must be a list of words"),
        ('[services]\n"a/b" = ["id", "a\\u0000b"]', "without NULs"),
    ],
)
def test_malformed_file_is_refused(file: Path, text: str, reason: str) -> None:
    file.write_text(text)
    with pytest.raises(InvalidValue, match=reason), commands_in(file):
        pass


def test_two_audits_do_not_restart_at_once(file: Path) -> None:
    with commands_in(file):
        failed: list[Exception] = []

        def second() -> None:
            try:
                with commands_in(file):
                    pass
            except Conflict as error:
                failed.append(error)

        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
        assert "Another audit is restarting services" in str(failed[0])
    with commands_in(file):
        pass


def test_link_is_refused(file: Path, tmp_path: Path) -> None:
    (tmp_path / "link.toml").symlink_to(file)
    with pytest.raises(InvalidValue, match="cannot be read"), commands_in(tmp_path / "link.toml"):
        pass


def test_fifo_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "restart.toml", 0o600)
    with pytest.raises(InvalidValue, match="can be changed by others"), commands_in(tmp_path / "restart.toml"):
        pass


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_file_that_others_could_replace_is_refused(tmp_path: Path, depth: int) -> None:
    directory = tmp_path / "a" / "b" / "c"
    directory.mkdir(parents=True)
    (directory / "restart.toml").write_text("[services]\n")
    (directory / "restart.toml").chmod(0o644)
    open_one = [directory, *directory.parents][depth]
    open_one.chmod(0o777)
    refusal = f"can be replaced by others, who can change {open_one}"
    with pytest.raises(InvalidValue, match=refusal), commands_in(directory / "restart.toml"):
        pass
    open_one.chmod(0o1777)  # with the sticky bit, as /tmp
    with commands_in(directory / "restart.toml") as commands:
        assert commands == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("name", ["restart.toml", "."])
def test_file_of_somebody_else_is_refused(file: Path, name: str) -> None:
    subprocess.run(["chown", "nobody", file.parent / name], check=True)
    with pytest.raises(InvalidValue, match="by others"), commands_in(file):
        pass
