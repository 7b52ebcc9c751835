"""Large request bodies, with a real gunicorn: each interface refuses them in its own format, and none is stored."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from allocations.ports import projects, tokens
from tests import make
from tests.serving import gunicorn

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
SERVED = make.FIRST + 930
TOKEN = b""


@pytest.fixture(scope="module")
def chunk() -> bytes:
    return b"x" * 1_000_000


def post(headers: dict[str, str], chunks: Iterator[bytes], address: str = "/api/ports") -> tuple[int, bytes]:
    """Send a POST request in chunks, and return the status and the body of the response.

    http.client can't do that, since it doesn't read the response if the server closes the connection early.
    """
    with socket.create_connection(("127.0.0.1", SERVED), timeout=30) as client:
        lines = [f"POST {address} HTTP/1.1", "Host: localhost", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        client.sendall("\r\n".join([*lines, "", ""]).encode())
        try:
            for chunk in chunks:
                client.sendall(chunk)
        except OSError:
            pass
        response = b""
        while data := client.recv(65536):
            response += data
    head, _, body = response.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def size_of_temporary_files() -> int:
    """Return the size of the deleted files that gunicorn still has open, in bytes."""
    total = 0
    for process in psutil.process_iter():
        try:
            if "gunicorn" in " ".join(process.cmdline()):
                for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
                    if "(deleted)" in str(descriptor.readlink()) and "/worker" not in str(descriptor.readlink()):
                        total += descriptor.stat().st_size
        except (psutil.Error, OSError):
            continue
    return total


def test_large_bodies_are_refused(chunk: bytes) -> None:
    ports = make.manager()
    secret = tokens.create(ports.context, "deploy", role="operator")[1]
    token = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
    chunked = token | {"Transfer-Encoding": "chunked"}
    with gunicorn(SERVED, workers=1):
        # Judging by the declared length, and by what is actually sent.
        status, body = post(token | {"Content-Length": "10000000"}, iter([chunk] * 10))
        assert (status, json.loads(body)["code"]) == (413, "body_too_large")
        status, body = post(chunked, iter([*(b"f4240\r\n" + chunk + b"\r\n" for _ in range(5)), b"0\r\n\r\n"]))
        assert status == 413
        assert post(token | {"Content-Length": "10000000"}, iter([chunk] * 10), "/mcp")[0] == 413
        # An unauthenticated request is refused anyway, and a huge body isn't waited for.
        assert post({"Content-Length": "10000000"}, iter([chunk] * 10))[0] == 401
        assert post(token | {"Content-Length": "99000000000"}, iter([chunk]))[0] == 413
        # A large body below the limit is accepted.
        services = [{"service": f"s{n}", "description": "d" * 1900} for n in range(500)]
        projects.add(ports.context, "shop", start_port=make.FIRST, size=500)
        batch = json.dumps({"project": "shop", "services": services}).encode()
        status, body = post(token | {"Content-Length": str(len(batch))}, iter([batch]), "/api/ports/batch")
        assert (status, json.loads(body)["created"]) == (201, 500)


def test_large_bodies_are_not_stored(chunk: bytes) -> None:
    with gunicorn(SERVED, workers=1), socket.create_connection(("127.0.0.1", SERVED), timeout=30) as client:
        client.sendall(b"POST /api/ports HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000000\r\n\r\n")
        for _ in range(40):
            client.sendall(chunk)
        time.sleep(0.5)
        assert size_of_temporary_files() < 1_000_000
