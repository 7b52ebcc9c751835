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
    ended, before = threading.Event(), _on(port, protocol)
    with _passed_on() as to_group:
        process = _started(command, environment)
        to_group(process.pid)
        watcher = threading.Thread(
            target=_watch, args=(process.pid, port, protocol, warn, patience, ended, before), name="watch", daemon=True
        )
        watcher.start()
        status = _waited_for(process)
    ended.set()
    return status if status >= 0 else KILLED - status


def _waited_for(process: subprocess.Popen[bytes]) -> int:
    """Its exit status, negative for a signal. On a terminal it is a job of the shell's as we are: Ctrl-Z stops both."""
    terminal = sys.stdin.fileno() if sys.stdin and sys.stdin.isatty() else None
    if terminal is None:
        return process.wait()
    try:
        while True:
            _to_foreground(terminal, process.pid, instead_of=os.getpgrp())
            _, status = os.waitpid(process.pid, os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                process.returncode = os.waitstatus_to_exitcode(status)
                return process.returncode
            _to_foreground(terminal, os.getpgrp(), instead_of=process.pid)
            os.kill(os.getpid(), signal.SIGSTOP)  # until the shell lets us go on, in the foreground or not
            _to_foreground(terminal, process.pid, instead_of=os.getpgrp())
            os.killpg(process.pid, signal.SIGCONT)
    finally:
        _to_foreground(terminal, os.getpgrp(), instead_of=process.pid)


def _to_foreground(terminal: int, group: int, *, instead_of: int) -> None:
    """Give the terminal to a process group, if the other one has it: who runs in the background takes nothing."""
    quiet = signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # who gives the terminal away is stopped otherwise
    try:
        if os.tcgetpgrp(terminal) == instead_of:
            os.tcsetpgrp(terminal, group)
    except OSError:  # the terminal is gone, or the group
        pass
    finally:
        signal.signal(signal.SIGTTOU, quiet)


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


def _on(port: int, protocol: str) -> set[tuple[int, str, int | None]]:
    """The sockets that listen on a port, each by what tells it from others."""
    return {(s.inode, s.address, s.pid) for s in listeners.listening(port, port, protocol)}


def _watch(
    pid: int,
    port: int,
    protocol: str,
    warn: Callable[[str], None],
    patience: float,
    ended: threading.Event,
    before: set[tuple[int, str, int | None]],
) -> None:
    until = time.monotonic() + patience
    while time.monotonic() < until:
        if ended.wait(PAUSE):
            return
        # New, not the command's own: another program may listen for it, as Docker's proxy does.
        if _on(port, protocol) - before:
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
