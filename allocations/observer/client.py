"""Ask the observer."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

from django.conf import settings

DIRECTORY, SOCKET = "observer", "socket"  # in PORTAL_HOME
SECONDS = 10.0
RESTART_SECONDS = 60.0
LARGEST_ANSWER = 64 * 1024 * 1024


class ObserverUnavailable(Exception):
    """Raised if the observer cannot be asked; the text says why."""


def is_expected() -> bool:
    """Return whether root started Portal, so that an observer should be running."""
    try:
        return os.geteuid() != 0 and settings.PORTAL_HOME.stat().st_uid == 0
    except OSError:
        return False


def listeners(first: int, last: int, protocol: str | None) -> list[dict[str, Any]]:
    """Return the sockets that are listening on the ports from `first` to `last`, with their processes.

    Raises:
        ObserverUnavailable
    """
    answer = _ask({"request": "listeners", "first": first, "last": last, "protocol": protocol})
    sockets: list[dict[str, Any]] = answer["sockets"]
    return sockets


def directory_exists(path: Path) -> bool | None:
    """Return whether a directory exists, or None if that cannot be known.

    Raises:
        ObserverUnavailable
    """
    return {"yes": True, "no": False}.get(_ask({"request": "directory", "path": str(path)})["exists"])


def restart(service: str) -> tuple[bool, str]:
    """Restart a service, and return whether it worked, and what the command printed.

    Raises:
        ObserverUnavailable
    """
    answer = _ask({"request": "restart", "service": service}, RESTART_SECONDS)
    return bool(answer["succeeded"]), str(answer["message"])


def _ask(request: dict[str, Any], seconds: float = SECONDS) -> dict[str, Any]:
    try:
        directory = os.open(settings.PORTAL_HOME / DIRECTORY, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(seconds)
                # The path of a socket is limited to 107 bytes, and PORTAL_HOME may be longer.
                connection.connect(f"/proc/self/fd/{directory}/{SOCKET}")
                connection.sendall(json.dumps(request).encode() + b"\n")
                with connection.makefile("rb") as answers:
                    answer = json.loads(answers.readline(LARGEST_ANSWER))
        finally:
            os.close(directory)
    except (FileNotFoundError, ConnectionRefusedError):
        raise ObserverUnavailable("the observer is not running") from None
    except (OSError, ValueError) as error:
        raise ObserverUnavailable(f"the observer does not answer ({error})") from error
    if not isinstance(answer, dict) or "error" in answer:
        raise ObserverUnavailable(f"the observer refused: {answer['error'] if isinstance(answer, dict) else answer}")
    return answer
