"""Commands end with one line or none, and the right exit status, whatever their streams are and when Ctrl-C comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from django.conf import settings
from django.db import connection

from allocations.ports import PortManager
from tests import make

pytestmark = [pytest.mark.django_db(transaction=True)]
COMMANDS = {
    "allocate shop api": 0,
    "audit --no-record": 1,
    "list_ports --json": 0,
    "--help": 0,
}
CUT_OFF = (">&-", "<&- >&- 2>&-", "2>/dev/full", "| true", "| head -c 5")


@pytest.fixture(autouse=True)
def _service_that_is_down() -> None:
    make.allocation()


def environment(**more: str) -> dict[str, str]:
    given = {"DJANGO_SETTINGS_MODULE": "tests.served", "SERVED_DATABASE": connection.settings_dict["NAME"]}
    return os.environ | given | more


def shell(line: str, **more: str) -> tuple[int, str]:
    """Run `manage.py LINE` in bash; return the exit status and what it printed on standard error."""
    process = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{sys.executable} manage.py {line}"],
        cwd=settings.BASE_DIR,
        env=environment(**more),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    return process.returncode, process.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_output_that_is_closed_changes_nothing(command: str) -> None:
    results = {redirection: shell(f"{command} {redirection}") for redirection in CUT_OFF}
    assert results == dict.fromkeys(CUT_OFF, (COMMANDS[command], ""))


@pytest.mark.parametrize("command", COMMANDS)
def test_full_output_is_reported_in_one_line(command: str) -> None:
    status = 2 if "no-record" in command else 1
    assert shell(f"{command} >/dev/full") == (
        status,
        "Standard output cannot be written: No space left on device.\n",
    )


@pytest.mark.parametrize("encoding", [{"LANG": "C"}, {"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}])
def test_any_locale_shows_any_text(encoding: dict[str, str]) -> None:
    PortManager("anna").update("shop", "api", description="Straße ↗ 𝄞")
    assert shell("list_ports", **encoding) == (0, "")
    status, errors = shell("explain 3100 '→'", **encoding)
    assert (status, errors.count("Traceback")) == (2, 0)


def test_input_that_is_closed_is_reported_in_one_line() -> None:
    assert shell("import_ports - <&-") == (1, "Nothing was imported: the input is empty.\n")


def _take_interrupts() -> None:
    """The tests may run in the background, where interrupts are ignored, and so their children would ignore them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize("command", ["import_ports --scan --dry-run", "allocate shop other"])
def test_interrupt_at_any_moment_ends_without_a_traceback(command: str) -> None:
    results = set()
    for step in range(8):
        process = subprocess.Popen(
            [sys.executable, "manage.py", *command.split()],
            cwd=settings.BASE_DIR,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=_take_interrupts,
        )
        time.sleep(0.1 + step * 0.07)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert "Traceback" not in errors, errors
        assert errors in ("", "Stopped.\n")
        results.add(process.returncode)
    assert results & {130, -signal.SIGINT}
    assert make.broken_invariants() == []
