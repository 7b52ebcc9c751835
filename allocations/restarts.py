"""Restart services that an audit found not running.

The commands come from a file on this host and nowhere else:

    # PORTAL_HOME/restart.toml
    [services]
    "consilio/api-server" = ["systemctl", "restart", "consilio-api"]

No command is ever read from the database, a page or an agent, because permission to edit the registry must not become
permission to run programs. The file must belong to root or to the user who runs the audit, and nobody else may be able
to write to it or to replace it.

Commands run without a shell, with a clean environment, in a session of their own that is killed at the time limit.
"""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import subprocess
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from .errors import Conflict, InvalidValue

TIME_LIMIT = 30.0  # seconds
MOST_OUTPUT = 1024 * 1024  # bytes, after which a command is killed
SHOWN_OUTPUT = 4096  # bytes
POLL_SECONDS = 0.05
EXAMPLE = '[services]\n"consilio/api-server" = ["systemctl", "restart", "consilio-api"]'
# What a command gets of our environment. Portal's own variables contain secrets.
KEPT_VARIABLES = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ"),
    *("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"),  # systemctl --user needs them
)


@dataclass(frozen=True, slots=True)
class RestartResult:
    """The outcome of one restart command; `message` is its output, or what went wrong."""

    service: str
    succeeded: bool
    message: str


@contextmanager
def commands_in(file: Path) -> Iterator[dict[str, list[str]]]:
    """Provide the restart command of each `project/service` that the file names, while nobody else restarts services.

    Raises:
        InvalidValue: the file is missing, malformed, or can be changed by other users.
        Conflict: another audit is restarting services.
    """
    try:
        # Not a link, and not another file than the one whose owner is checked.
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidValue(
            f"{file} cannot be read ({error.strerror}). It names the command that restarts each service, like this:\n"
            f"{EXAMPLE}"
        ) from None
    with open(descriptor, encoding="utf-8", errors="replace") as opened:  # noqa: PTH123 it is a descriptor
        _refuse_writable(file, os.fstat(descriptor))
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Conflict(f"Another audit is restarting services with {file}: wait until it has ended.") from None
        yield _parse(file, opened)


def _refuse_writable(file: Path, status: os.stat_result) -> None:
    owners = {0, os.geteuid()}
    is_ours = stat.S_ISREG(status.st_mode) and status.st_uid in owners
    if not is_ours or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise InvalidValue(
            f"{file} can be changed by others. Make sure that it belongs to you or to root, and run chmod 644 on it."
        )
    for directory in file.absolute().parents:
        above = directory.stat()
        # In a directory with the sticky bit, nobody can replace the files of others.
        is_open = above.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not above.st_mode & stat.S_ISVTX
        if above.st_uid not in owners or is_open:
            raise InvalidValue(
                f"{file} can be replaced by others, who can change {directory}. Make sure that this directory belongs "
                "to you or to root, and run chmod go-w on it."
            )


def _parse(file: Path, opened: IO[str]) -> dict[str, list[str]]:
    try:
        services = tomllib.loads(opened.read()).get("services", {})
    except tomllib.TOMLDecodeError as error:
        raise InvalidValue(f"{file} is not valid TOML: {error}.") from None
    if not isinstance(services, dict):
        raise InvalidValue(f"{file}: services must be a table, like this:\n{EXAMPLE}")
    for service, argv in services.items():
        is_list = isinstance(argv, list) and argv and all(isinstance(word, str) for word in argv)
        if not is_list or not argv[0] or any("\0" in word for word in argv):
            raise InvalidValue(
                f'{file}: "{service}" must be a list of words without NULs, such as ["systemctl", "restart", "api"].'
            )
    return dict(services)


def restart_listed(service: str, commands: Mapping[str, Sequence[str]]) -> RestartResult:
    """Restart a service with its command, if the file names one; see `commands_in()`."""
    if service not in commands:
        return RestartResult(service, False, "restart.toml has no command for it")
    return restart(service, commands[service])


def restart(service: str, argv: Sequence[str], time_limit: float = TIME_LIMIT) -> RestartResult:
    """Run the restart command of a service and wait for it to finish, but not for what it has started.

    Args:
        service: the label of the service, `project/service`.
        argv: the command and its arguments.
        time_limit: seconds after which the command's whole session is killed.
    """
    # A file, because a daemon that the command starts may keep a pipe open.
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ},
                cwd="/",
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            return RestartResult(service, False, f"{argv[0]}: {getattr(error, 'strerror', None) or error}")
        stopped = _wait(process, output, time_limit)
        output.seek(0)
        message = " ".join(output.read(SHOWN_OUTPUT).decode(errors="replace").split())
    if stopped:
        return RestartResult(service, False, f"{argv[0]} {stopped} and was killed")
    return RestartResult(service, process.returncode == 0, message or f"exit status {process.returncode}")


def _wait(process: subprocess.Popen[bytes], output: IO[bytes], time_limit: float) -> str:
    """Wait for the command. If it has to be killed, return why."""
    deadline = time.monotonic() + time_limit
    reason = ""
    while process.poll() is None and not reason:
        if time.monotonic() > deadline:
            reason = f"was still running after {time_limit:.0f} seconds"
        elif os.fstat(output.fileno()).st_size > MOST_OUTPUT:
            reason = f"printed more than {MOST_OUTPUT // 1024} KB"
        else:
            time.sleep(POLL_SECONDS)
    if reason:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return reason
