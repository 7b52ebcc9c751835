"""Restart services that an audit found not running.

The commands come from a file on this host and nowhere else:

    # PORTAL_HOME/restart.toml
    [services]
    "consilio/api-server" = ["systemctl", "restart", "consilio-api"]

No command is ever read from the database, a page or an agent, because permission to edit the registry must not become
permission to run programs. The file must belong to root or to the user who runs the audit, and nobody else may be able
to write to it. Commands run without a shell, in a process group of their own that is killed at the time limit.
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import InvalidValue

TIME_LIMIT = 30.0  # seconds
MAX_OUTPUT = 64 * 1024  # bytes


@dataclass(frozen=True, slots=True)
class RestartResult:
    """The outcome of one restart command; `message` is its output, or what went wrong."""

    service: str
    succeeded: bool
    message: str


def load_commands(file: Path) -> dict[str, list[str]]:
    """Return the restart command of each `project/service` named in the file.

    Raises:
        InvalidValue: the file is missing, malformed or writable by other users.
    """
    try:
        # Not a link, and not another file than the one whose owner is checked.
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, encoding="utf-8", errors="replace") as opened:  # noqa: PTH123 it is a descriptor
            status = os.fstat(descriptor)
            text = opened.read() if stat.S_ISREG(status.st_mode) else ""
    except OSError as error:
        raise InvalidValue(
            f"{file} cannot be read ({error.strerror}). It must name the command that restarts each service."
        ) from None
    if (
        not stat.S_ISREG(status.st_mode)
        or status.st_uid not in {0, os.geteuid()}
        or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    ):
        raise InvalidValue(
            f"{file} can be changed by others. Make sure that it belongs to you or to root, and run chmod 644 on it."
        )
    try:
        services = tomllib.loads(text).get("services", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidValue(f"{file} is not valid TOML: {error}.") from None
    for service, argv in services.items():
        if not (isinstance(argv, list) and argv and all(isinstance(word, str) for word in argv)):
            raise InvalidValue(
                f'{file}: "{service}" must be a list of strings, such as ["systemctl", "restart", "api"].'
            )
    return dict(services)


def restart_listed(service: str, commands: Mapping[str, Sequence[str]]) -> RestartResult:
    """Restart a service with its command, if the file names one; see `load_commands()`."""
    if service not in commands:
        return RestartResult(service, False, "restart.toml has no command for it")
    return restart(service, commands[service])


def restart(service: str, argv: Sequence[str], time_limit: float = TIME_LIMIT) -> RestartResult:
    """Run the restart command of a service and wait for it to finish.

    Args:
        service: the label of the service, `project/service`.
        argv: the command and its arguments.
        time_limit: seconds after which the command's whole process group is killed.
    """
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
    except OSError as error:
        return RestartResult(service, False, f"{argv[0]}: {error.strerror}")
    try:
        output, _ = process.communicate(timeout=time_limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return RestartResult(
            service, False, f"{argv[0]} was still running after {time_limit:.0f} seconds and was killed"
        )
    message = " ".join(output[:MAX_OUTPUT].decode(errors="replace").split())
    return RestartResult(service, process.returncode == 0, message or f"exit status {process.returncode}")
