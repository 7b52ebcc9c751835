"""The process of root that answers the account that serves Portal, and nobody else."""

from __future__ import annotations

import json
import os
import socket
import socketserver
import stat
import struct
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from allocations import listeners, restarts
from allocations.errors import PortError

from .client import DIRECTORY, SOCKET

LONGEST_REQUEST = 16 * 1024
LONGEST_PATH = 4096
SECONDS = 5.0  # in which a request must arrive
MOST_AT_ONCE = 16
PEER = struct.Struct("3i")  # pid, uid, gid


class BadRequest(Exception):
    """Raised if a request is not one of the three; the text says why."""


class Observer(socketserver.ThreadingUnixStreamServer):
    """Answer requests at the socket in PORTAL_HOME until the process that started it ends.

    Args:
        home: PORTAL_HOME, which belongs to root.
        uid: the account that may ask, beside root.
        gid: its group.
    """

    daemon_threads = True
    timeout = 1.0  # seconds between two looks at the parent
    request_queue_size = 128

    def __init__(self, home: Path, uid: int, gid: int) -> None:
        self.home, self.uid = home, uid
        self.slots = threading.BoundedSemaphore(MOST_AT_ONCE)
        directory = home / DIRECTORY
        directory.mkdir(exist_ok=True)
        status = directory.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise PermissionError(f"{directory} was not made by root. Find out who made it, and remove it.")
        os.chown(directory, -1, gid)
        directory.chmod(0o710)
        os.chdir(directory)  # a path may be too long for a socket
        Path(SOCKET).unlink(missing_ok=True)
        super().__init__(SOCKET, Handler)
        os.chown(SOCKET, -1, gid)
        Path(SOCKET).chmod(0o660)

    def serve_until_orphaned(self, parent: int) -> None:
        """Answer requests as long as this process has that parent; 0 means forever."""
        while parent in (0, os.getppid()):
            self.handle_request()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Return whether the account at the other end may ask."""
        _, uid, _ = PEER.unpack(request.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))
        return uid in (0, self.uid)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, unless too many are being answered."""
        if not self.slots.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that goes away is no error."""


class Handler(socketserver.StreamRequestHandler):
    """Answer one request, a line of JSON, with a line of JSON."""

    server: Observer
    timeout = SECONDS

    def handle(self) -> None:
        try:
            answer = answer_to(_parse(self.rfile.readline(LONGEST_REQUEST)), self.server.home)
        except BadRequest as error:
            answer = {"error": str(error)}
        self.wfile.write(json.dumps(answer).encode() + b"\n")


def answer_to(request: dict[str, Any], home: Path) -> dict[str, Any]:
    """Return the answer to a request.

    Raises:
        BadRequest: it is none of the three.
    """
    kind = request.pop("request", None)
    answer, parameters = ANSWERS.get(kind if isinstance(kind, str) else "", (None, set()))
    if answer is None or set(request) != parameters:
        raise BadRequest(f"the requests are {', '.join(ANSWERS)}, with their parameters")
    return answer(home, **request)


def _parse(line: bytes) -> dict[str, Any]:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        raise BadRequest("it is not a line of JSON") from None
    if not isinstance(request, dict):
        raise BadRequest("it is not an object")
    return request


def _listeners(home: Path, first: Any, last: Any, protocol: Any) -> dict[str, Any]:
    is_span = all(type(port) is int and 1 <= port <= 65535 for port in (first, last))
    if not is_span or protocol not in (None, *listeners.PROTOCOLS):
        raise BadRequest("first and last are ports, and protocol is tcp, udp or null")
    sockets = listeners.listening(first, last, protocol)
    return {"sockets": [asdict(s) | {"variables": listeners.environment(s)} for s in sockets]}


def _directory(home: Path, path: Any) -> dict[str, Any]:
    if not isinstance(path, str) or not path.startswith("/") or len(path) > LONGEST_PATH or "\0" in path:
        raise BadRequest("path is an absolute path")
    try:
        exists = "yes" if stat.S_ISDIR(os.stat(path).st_mode) else "no"  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        exists = "no"
    except (OSError, ValueError):
        exists = "unknown"
    return {"exists": exists}


def _restart(home: Path, service: Any) -> dict[str, Any]:
    if not isinstance(service, str):
        raise BadRequest("service is the name of a service")
    try:
        with restarts.commands_in(home / "restart.toml") as commands:
            result = restarts.restart_listed(service, commands)
    except PortError as error:
        return {"succeeded": False, "message": error.sentence}
    return {"succeeded": result.succeeded, "message": result.message}


ANSWERS: dict[str, tuple[Callable[..., dict[str, Any]], set[str]]] = {
    "listeners": (_listeners, {"first", "last", "protocol"}),
    "directory": (_directory, {"path"}),
    "restart": (_restart, {"service"}),
}
