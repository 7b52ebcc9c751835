"""Request IDs, the request log, headers, static files and client addresses."""

import gzip
import logging
from ipaddress import ip_network

import pytest
from django.test import Client, RequestFactory
from pytest_django import Settings

from portal.middleware import resolve_client
from tests import make
from tests.users import client_with_role

FILE_NAME = 8  # the flag of a name in the header of a gzip file


def test_pages_have_all_security_headers(client: Client) -> None:
    headers = client.get("/nowhere").headers

    assert headers["Cache-Control"] == "private, no-store"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert "camera=()" in headers["Permissions-Policy"]
    assert len(headers["X-Request-ID"]) == 16


def test_log_line_cannot_be_forged(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "portal.requests")

    client.get("/a%0d%0aINFO forged%1b[31m", {"token": "secret"})

    [line] = [record.getMessage() for record in caplog.records if record.name == "portal.requests"]
    assert line.startswith(r"127.0.0.1 GET /a\r\nINFO forged\x1b[31m 404 ")
    assert "secret" not in line


def test_static_files(client: Client) -> None:
    response = client.get("/static/admin/css/base.css")

    assert response.status_code == 200
    assert not response.streaming  # an ASGI server would need a thread for each chunk
    assert response.headers["Content-Type"].startswith("text/css")
    assert response.headers["X-Request-ID"]
    assert client.head("/static/admin/css/base.css").content == b""


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client", "trusted"),
    [
        ("203.0.113.9", "", "203.0.113.9", False),
        ("203.0.113.9", "198.51.100.1", "203.0.113.9", False),  # any client can send the header
        ("10.0.0.1", "198.51.100.1", "198.51.100.1", True),
        ("10.0.0.1", "1.1.1.1, 198.51.100.1", "198.51.100.1", True),  # only the last address was added by the proxy
        ("10.0.0.1", "198.51.100.1, 10.0.0.2", "198.51.100.1", True),
        ("10.0.0.1", "unknown", "10.0.0.1", True),
        ("10.0.0.1", "", "10.0.0.1", True),
        ("", "198.51.100.1", "", False),
    ],
)
def test_client_address(settings: Settings, peer: str, forwarded_for: str, client: str, trusted: bool) -> None:
    settings.PORTAL_TRUSTED_PROXIES = [ip_network("10.0.0.0/8")]
    request = RequestFactory().get(
        "/", REMOTE_ADDR=peer, HTTP_X_FORWARDED_FOR=forwarded_for, HTTP_X_FORWARDED_PROTO="https"
    )

    assert resolve_client(request) is trusted
    assert request.META["REMOTE_ADDR"] == client
    assert request.is_secure() is trusted


def test_request_id_of_a_trusted_proxy_is_kept(client: Client, settings: Settings) -> None:
    assert client.get("/healthz", headers={"X-Request-ID": "from-outside"}).headers["X-Request-ID"] != "from-outside"

    settings.PORTAL_TRUSTED_PROXIES = [ip_network("127.0.0.1")]

    assert client.get("/healthz", headers={"X-Request-ID": "from-outside"}).headers["X-Request-ID"] == "from-outside"
    assert client.get("/healthz", headers={"X-Request-ID": "a b"}).headers["X-Request-ID"] != "a b"


@pytest.mark.django_db
def test_pages_and_json_are_compressed() -> None:
    make.port_range("shop", make.FIRST, 1000)
    client = client_with_role("operator")
    plain = client.get("/projects/shop")
    packed = client.get("/projects/shop", headers={"Accept-Encoding": "gzip"})
    assert packed["Content-Encoding"] == "gzip"
    assert str(make.FIRST + 999).encode() in gzip.decompress(packed.content)
    assert len(packed.content) < 25_000 < len(plain.content)
    assert "Accept-Encoding" in packed["Vary"]
    for n in range(10):  # a short text would not become shorter
        make.port_range(f"more-{n}", make.FIRST + 1000 + 10 * n, 10)
    assert client.get("/api/ranges", headers={"Accept-Encoding": "gzip"})["Content-Encoding"] == "gzip"


@pytest.mark.django_db
def test_compressed_pages_differ_in_length() -> None:
    """Django puts a name of random length into the header, so that lengths tell little about secrets (BREACH)."""
    client = client_with_role("operator")
    pages = [client.get("/", headers={"Accept-Encoding": "gzip"}).content for _ in range(8)]
    assert len({page[10 : page.index(0, 10)] for page in pages if page[3] & FILE_NAME}) > 1


@pytest.mark.django_db
def test_an_etag_stays_strong() -> None:
    port_range = make.port_range("shop", make.FIRST, 20)
    answer = client_with_role("operator").get(f"/api/ranges/{port_range.pk}", headers={"Accept-Encoding": "gzip"})
    assert answer["ETag"].startswith('"')
    assert "Content-Encoding" not in answer
