"""Starts again what an audit found down, by commands that only a file on this host can name.

    # PORTAL_HOME/restart.toml
    [services]
    "consilio/api-server" = ["systemctl", "restart", "consilio-api"]

No command ever comes from the database, a page or an agent: who may edit the registry may not run programs. The file
must belong to root or to whoever runs the audit, and nobody else may write it. Programs run without a shell, in a
process group of their own that ends with the time limit.
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import InvalidValue

TIME_LIMIT = 30.0  # seconds
LONGEST_OUTPUT = 64 * 1024  # bytes


@dataclass(frozen=True, slots=True)
class Restart:
    """How one restart went."""

    service: str
    succeeded: bool
    said: str


def commands(file: Path) -> dict[str, list[str]]:
    """The command of each `project/service` that may be restarted.

    Raises:
        InvalidValue: the file is missing, broken, or others may write it; the sentence says which.
    """
    try:
        found = file.stat()
        text = file.read_text()
    except OSError as error:
        raise InvalidValue(
            f"{file} cannot be read ({error.strerror}): it names the command that restarts each service."
        ) from None
    if found.st_uid not in {0, os.geteuid()} or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise InvalidValue(f"{file} can be changed by others: it must belong to you or root, with mode 0644 or less.")
    try:
        services = tomllib.loads(text).get("services", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidValue(f"{file} is not TOML: {error}.") from None
    for service, argv in services.items():
        if not (isinstance(argv, list) and argv and all(isinstance(word, str) for word in argv)):
            raise InvalidValue(f'{file}: "{service}" needs a list of words, such as ["systemctl", "restart", "api"].')
    return dict(services)


def restart(service: str, argv: Sequence[str], time_limit: float = TIME_LIMIT) -> Restart:
    """Run one command and wait for it.

    Args:
        time_limit: seconds; then its whole process group is killed.
    """
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
    except OSError as error:
        return Restart(service, False, f"{argv[0]}: {error.strerror}")
    try:
        output, _ = process.communicate(timeout=time_limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return Restart(service, False, f"{argv[0]} did not end within {time_limit:.0f} seconds and was stopped")
    said = " ".join(output[:LONGEST_OUTPUT].decode(errors="replace").split())
    return Restart(service, process.returncode == 0, said or f"exit status {process.returncode}")
