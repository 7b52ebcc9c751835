"""Runs a command with its port: signals and exit status pass through, and whether it listens is looked at.

No shell: the arguments are the program's. The command is the head of a process group of its own, so that a signal
reaches all that it started; on a terminal that group is the one in the foreground.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

import psutil

from . import listeners, words

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
NOT_FOUND, NOT_EXECUTABLE, KILLED = 127, 126, 128
PATIENCE = 30.0  # seconds until a command should listen
PAUSE = 0.25


class CannotRun(Exception):
    """The command could not be started; `status` is what a shell would exit with."""

    def __init__(self, sentence: str, status: int) -> None:
        super().__init__(sentence)
        self.status = status


def filled(command: Sequence[str], port: int, host: str) -> list[str]:
    """The arguments with `{port}` and `{host}` replaced."""
    return [argument.replace("{port}", str(port)).replace("{host}", host) for argument in command]


def run(
    command: Sequence[str],
    environment: Mapping[str, str],
    port: int,
    protocol: str,
    warn: Callable[[str], None],
    patience: float = PATIENCE,
) -> int:
    """Run the command to its end.

    Args:
        environment: all of it.
        port: on which it should listen.
        warn: is told, once, if it does not after `patience` seconds, or listens elsewhere.

    Returns:
        Its exit status; 128 and the signal's number where one ended it, as shells say it.

    Raises:
        CannotRun: there is no such program, or it cannot be executed.
    """
    ended = threading.Event()
    with _passed_on() as to_group:
        process = _started(command, environment)
        to_group(process.pid)
        watcher = threading.Thread(
            target=_watch, args=(process.pid, port, protocol, warn, patience, ended), name="watch", daemon=True
        )
        watcher.start()
        with _foreground(process.pid):
            status = process.wait()
    ended.set()
    return status if status >= 0 else KILLED - status


def _started(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(command, env=dict(environment), process_group=0)
    except FileNotFoundError:
        raise CannotRun(f"There is no program {command[0]}.", NOT_FOUND) from None
    except OSError as error:
        raise CannotRun(f"{command[0]} cannot be run: {error.strerror}.", NOT_EXECUTABLE) from None


@contextmanager
def _passed_on() -> Iterator[Callable[[int], None]]:
    """Signals that reach us go to the command's whole group, once it is told; until then they are kept for it.

    It begins before the command does: a signal in between would end us, and leave the command to nobody.
    """
    early: list[int] = []
    groups: list[int] = []

    def pass_on(number: int, _: FrameType | None = None) -> None:
        if not groups:
            early.append(number)
            return
        with suppress(ProcessLookupError):  # it has just ended
            os.killpg(groups[0], number)

    def to_group(group: int) -> None:
        groups.append(group)
        for number in early:
            pass_on(number)

    # What is ignored here (SIGHUP under nohup) the command ignores as well.
    heard = [number for number in PASSED_ON if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, pass_on) for number in heard}
    try:
        yield to_group
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _foreground(group: int) -> Iterator[None]:
    """On a terminal, the command gets the keyboard; afterwards it is ours again."""
    if not sys.stdin or not sys.stdin.isatty():
        yield
        return
    terminal = sys.stdin.fileno()
    quiet = signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # who gives the terminal away is stopped otherwise
    try:
        os.tcsetpgrp(terminal, group)
        yield
    finally:
        os.tcsetpgrp(terminal, os.getpgrp())
        signal.signal(signal.SIGTTOU, quiet)


def _watch(
    pid: int, port: int, protocol: str, warn: Callable[[str], None], patience: float, ended: threading.Event
) -> None:
    until = time.monotonic() + patience
    while time.monotonic() < until:
        if ended.wait(PAUSE):
            return
        if listeners.is_listening(port, protocol) is not None:
            return
    others = sorted({s.port for s in listeners.listening(owners=True) if s.pid in _family(pid) and s.port != port})
    if others:
        found = words.listed([str(other) for other in others])
        warn(f"It listens on {found}, not on {port}: others will not find it. Have it read PORT, or pass it {{port}}.")
    elif not ended.is_set():
        warn(f"It does not listen on {port} after {patience:.0f} s. Have it read PORT, or pass it {{port}}.")


def _family(pid: int) -> set[int]:
    """The process and all that it started."""
    try:
        return {pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))}
    except psutil.NoSuchProcess:
        return {pid}
