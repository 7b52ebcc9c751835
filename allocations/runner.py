"""Run a command on the port of its service, passing on signals and its exit status.

The command is run without a shell. It leads a process group of its own, so that a signal reaches everything it started;
on a terminal, that group is in the foreground. A thread checks whether the command starts listening on its port.
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

from . import listeners
from .text import join_and

FORWARDED_SIGNALS = (
    *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP),
    *(signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2),
)
NOT_FOUND, NOT_EXECUTABLE = 127, 126  # the exit statuses that shells use
SIGNAL_BASE = 128  # a command ended by signal N exits with 128 + N
LISTEN_TIMEOUT = 30.0  # seconds until a command should be listening
DRIFT_SECONDS = 1.0  # after its first other socket, a command gets this long to open that on its port
POLL_INTERVAL = 0.25  # seconds
ADVICE = "Make it read PORT, or pass {port} as an argument."


class CannotRun(Exception):
    """Raised if the command can't be started; `status` is the exit status that a shell would use."""

    def __init__(self, sentence: str, status: int) -> None:
        super().__init__(sentence)
        self.status = status


def fill_placeholders(command: Sequence[str], port: int, host: str) -> list[str]:
    """Return the command with `{port}` and `{host}` replaced in each of its arguments."""
    return [argument.replace("{port}", str(port)).replace("{host}", host) for argument in command]


def run(
    command: Sequence[str],
    environment: Mapping[str, str],
    port: int,
    protocol: str,
    warn: Callable[[str], None],
    listen_timeout: float = LISTEN_TIMEOUT,
) -> int:
    """Run a command, wait for it to finish and return its exit status.

    Args:
        command: the program and its arguments.
        environment: the complete environment of the command.
        port: the port on which it should listen.
        protocol: "tcp" or "udp".
        warn: called at most once with a sentence, if the command listens on another port only, or if it isn't
            listening after `listen_timeout`.
        listen_timeout: seconds to wait until the command should be listening.

    Returns:
        The exit status of the command, or 128 plus the number of the signal that ended it.

    Raises:
        CannotRun: the program doesn't exist or isn't executable.
    """
    ended, earlier = threading.Event(), _sockets_on(port, protocol)
    with _forward_signals() as forward_to:
        process = _start(command, environment)
        forward_to(process.pid)
        watcher = threading.Thread(
            target=_watch,
            args=(process.pid, port, protocol, warn, listen_timeout, ended, earlier),
            name="watch",
            daemon=True,
        )
        watcher.start()
        status = _wait(process)
    ended.set()
    return status if status >= 0 else SIGNAL_BASE - status


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Wait for the process and return its exit status, which is negative for a signal.

    On a terminal, the process is part of the same shell job as this one, so Ctrl-Z has to stop both.
    """
    terminal = sys.stdin.fileno() if sys.stdin and sys.stdin.isatty() else None
    if terminal is None:
        return process.wait()
    try:
        while True:
            _set_foreground(terminal, process.pid, instead_of=os.getpgrp())
            _, status = os.waitpid(process.pid, os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                process.returncode = os.waitstatus_to_exitcode(status)
                return process.returncode
            _set_foreground(terminal, os.getpgrp(), instead_of=process.pid)
            os.kill(os.getpid(), signal.SIGSTOP)  # until the shell continues the job, with fg or bg
            _set_foreground(terminal, process.pid, instead_of=os.getpgrp())
            os.killpg(process.pid, signal.SIGCONT)
    finally:
        _set_foreground(terminal, os.getpgrp(), instead_of=process.pid)


def _set_foreground(terminal: int, group: int, *, instead_of: int) -> None:
    """Make a process group the foreground group of the terminal, but only if the other group is in the foreground.

    A job that runs in the background therefore never takes the terminal.
    """
    handler = signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # it would stop a background process that does this
    try:
        if os.tcgetpgrp(terminal) == instead_of:
            os.tcsetpgrp(terminal, group)
    except OSError:  # the terminal or the group is gone
        pass
    finally:
        signal.signal(signal.SIGTTOU, handler)


def _start(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(command, env=dict(environment), process_group=0)
    except FileNotFoundError:
        raise CannotRun(f"{command[0]} was not found. Check its name, or give its full path.", NOT_FOUND) from None
    except OSError as error:
        raise CannotRun(f"{command[0]} cannot be run: {error.strerror}.", NOT_EXECUTABLE) from None


@contextmanager
def _forward_signals() -> Iterator[Callable[[int], None]]:
    """Forward signals to the process group that is passed to the returned function, and keep those that come earlier.

    Enter this context before starting the command: a signal in between would end this process and orphan the command.
    """
    pending: list[int] = []
    groups: list[int] = []

    def forward(number: int, _: FrameType | None = None) -> None:
        if not groups:
            pending.append(number)
            return
        with suppress(ProcessLookupError):  # it has just ended
            os.killpg(groups[0], number)

    def forward_to(group: int) -> None:
        groups.append(group)
        for number in pending:
            forward(number)

    # The command inherits signals that are ignored here, such as SIGHUP under nohup.
    forwarded = [number for number in FORWARDED_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    handlers = {number: signal.signal(number, forward) for number in forwarded}
    try:
        yield forward_to
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _sockets_on(port: int, protocol: str) -> set[tuple[int, str, int | None]]:
    """Return the sockets that are listening on a port, each as what distinguishes it from the others."""
    return {(s.inode, s.address, s.pid) for s in listeners.listening(port, port, protocol)}


def _watch(
    pid: int,
    port: int,
    protocol: str,
    warn: Callable[[str], None],
    listen_timeout: float,
    ended: threading.Event,
    earlier: set[tuple[int, str, int | None]],
) -> None:
    """Warn if the command listens on another port only, or if nothing new listens on its port after the timeout."""
    deadline = time.monotonic() + listen_timeout
    drifting_since: float | None = None
    while True:
        if ended.wait(POLL_INTERVAL):
            return
        # Accept any new socket: another program may listen on behalf of the command, as Docker's proxy does.
        if _sockets_on(port, protocol) - earlier:
            return
        now = time.monotonic()
        other_ports = sorted({s.port for s in listeners.listening_in(_process_tree(pid), protocol)} - {port})
        drifting_since = (drifting_since or now) if other_ports else None
        is_over = now >= deadline
        if other_ports and (is_over or now - (drifting_since or now) >= DRIFT_SECONDS):
            ports = join_and([str(other) for other in other_ports])
            warn(f"The command is listening on {ports} instead of {port}, where other services expect it. {ADVICE}")
            return
        if is_over:
            if not ended.is_set():
                warn(f"The command is not listening on {port} after {listen_timeout:.0f} s. {ADVICE}")
            return


def _process_tree(pid: int) -> set[int]:
    """Return the pids of a process and of all its descendants."""
    try:
        return {pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))}
    except psutil.NoSuchProcess:
        return {pid}
