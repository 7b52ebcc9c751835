"""Requests in other charsets than UTF-8, and WebSockets, are refused by a real gunicorn without a crash."""

from __future__ import annotations

import base64
import socket

import httpx2
import pytest
from django.conf import settings

from portal.charsets import is_utf_8
from tests import make
from tests.serving import gunicorn

pytestmark = pytest.mark.slow
SERVED = make.FIRST + 910
CODECS = ["hex", "rot13", "idna", "undefined", "utf-7", "unicode_escape", "base64", "utf-16", "latin-1", "nothing"]


@pytest.mark.parametrize("charset", ["", "utf-8", "UTF8", '"utf-8"', "ascii", "us-ascii"])
def test_utf_8_is_accepted(charset: str) -> None:
    assert is_utf_8(charset)


@pytest.mark.django_db(transaction=True)
def test_other_charsets_are_refused() -> None:
    form = b'--B\r\nContent-Disposition: form-data; name="username"\r\n\r\nabc\r\n--B--\r\n'
    with gunicorn(SERVED, workers=1) as address, httpx2.Client(base_url=address) as web:
        for charset in CODECS:
            for kind in ("multipart/form-data; boundary=B", "application/json", "text/plain"):
                headers = {"Content-Type": f"{kind}; charset={charset}"}
                page = web.post("/login?next=/", content=form, headers=headers)
                assert (page.status_code, "Send the request in UTF-8." in page.text) == (400, True), headers
                problem = web.get("/api/ports?limit=1", headers=headers)
                assert (problem.status_code, problem.json()["code"]) == (400, "bad_request"), headers
        accepted = web.post("/login", content=form, headers={"Content-Type": "multipart/form-data; boundary=B"})
        assert accepted.status_code == 403, "it has no CSRF token, but it was read"
        assert web.get("/login", headers={"Cookie": f'{settings.SESSION_COOKIE_NAME}="abcdefgh\\000i"'}).is_success


@pytest.mark.django_db(transaction=True)
def test_a_websocket_is_refused() -> None:
    with gunicorn(SERVED, workers=1), socket.create_connection(("127.0.0.1", SERVED), timeout=10) as client:
        key = base64.b64encode(bytes(16)).decode()
        headers = f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}"
        client.sendall(f"GET / HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n".encode())
        assert client.recv(4096).startswith(b"HTTP/1.1 403 ")
        log = (settings.PORTAL_HOME / f"served-{SERVED}.log").read_text()
        assert "Traceback" not in log
