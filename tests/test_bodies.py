"""Large bodies before a real gunicorn: refused in each door's words, and kept nowhere."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests import make
from tests.serving import gunicorn

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
SERVED = make.FIRST + 930
TOKEN = b""


@pytest.fixture(scope="module")
def part() -> bytes:
    return b"x" * 1_000_000


def said(headers: dict[str, str], parts: Iterator[bytes], address: str = "/api/ports") -> tuple[int, bytes]:
    """The answer to a POST whose body comes in parts, read by hand: http.client stops at a server that closes."""
    with socket.create_connection(("127.0.0.1", SERVED), timeout=30) as web:
        lines = [f"POST {address} HTTP/1.1", "Host: localhost", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        web.sendall("\r\n".join([*lines, "", ""]).encode())
        try:
            for sent in parts:
                web.sendall(sent)
        except OSError:
            pass
        answer = b""
        while data := web.recv(65536):
            answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def kept_by_workers() -> int:
    """Bytes of the temporary files that processes of this user have open and nobody can see."""
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


def test_what_is_too_large(part: bytes) -> None:
    ports = make.manager()
    secret = ports.create_token("deploy", role="operator")[1]
    token = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
    chunked = token | {"Transfer-Encoding": "chunked"}
    with gunicorn(SERVED, workers=1):
        # By its declared length, and by what really comes.
        status, body = said(token | {"Content-Length": "10000000"}, iter([part] * 10))
        assert (status, json.loads(body)["code"]) == (413, "body_too_large")
        status, body = said(chunked, iter([*(b"f4240\r\n" + part + b"\r\n" for _ in range(5)), b"0\r\n\r\n"]))
        assert status == 413
        assert said(token | {"Content-Length": "10000000"}, iter([part] * 10), "/mcp")[0] == 413
        # Nobody need read it to say no; and one that would fill the disk is not waited for.
        assert said({"Content-Length": "10000000"}, iter([part] * 10))[0] == 401
        assert said(token | {"Content-Length": "99000000000"}, iter([part]))[0] == 413
        # What is large and welcome still comes in whole.
        services = [{"service": f"s{n}", "description": "d" * 1900} for n in range(500)]
        ports.add_project("shop", start=make.FIRST, size=500)
        asked = json.dumps({"project": "shop", "services": services}).encode()
        status, body = said(token | {"Content-Length": str(len(asked))}, iter([asked]), "/api/ports/batch")
        assert (status, json.loads(body)["created"]) == (201, 500)


def test_nothing_of_it_is_kept(part: bytes) -> None:
    with gunicorn(SERVED, workers=1), socket.create_connection(("127.0.0.1", SERVED), timeout=30) as web:
        web.sendall(b"POST /api/ports HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000000\r\n\r\n")
        for _ in range(40):
            web.sendall(part)
        time.sleep(0.5)
        assert kept_by_workers() < 1_000_000
