"""Who may send requests: anonymous callers, sessions of the dashboard, and tokens."""

from __future__ import annotations

import functools
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client

from allocations.models import PortAllocation
from allocations.ports import PortManager, tokens
from tests.make import FIRST
from tests.users import user_with_role

from .conftest import ApiClient

pytestmark = pytest.mark.django_db
REQUEST = {"project": "shop", "service": "api"}


class TestAnonymousRead:
    @pytest.fixture(autouse=True)
    def _is_enabled(self, settings: Any, anybody: ApiClient) -> Iterator[None]:
        """Let anonymous requests name a real connection, which this process has opened."""
        settings.PORTAL_ANONYMOUS_READ = True
        with (
            socket.create_server(("127.0.0.1", 0)) as server,
            socket.create_connection(server.getsockname()) as client,
        ):
            address, port = server.getsockname()
            ends = {"SERVER_NAME": address, "SERVER_PORT": str(port), "REMOTE_PORT": str(client.getsockname()[1])}
            anybody.client.generic = functools.partial(anybody.client.generic, **ends)  # type: ignore[method-assign]
            yield

    def test_everything_can_be_read(self, anybody: ApiClient, web: PortAllocation) -> None:
        for address in (
            "/api/ports/audit",
            "/api/ports",
            "/api/projects",
            "/api/openapi.json",
            "/metrics",
            "/api/docs",
        ):
            assert anybody("GET", address).status_code == 200, address

    def test_nothing_can_be_changed(self, anybody: ApiClient, web: PortAllocation) -> None:
        assert anybody("POST", "/api/ports", REQUEST).status_code == 401
        assert anybody("DELETE", f"/api/ports/{web.pk}").status_code == 401

    def test_an_invalid_token_is_refused(self, web: PortAllocation) -> None:
        assert ApiClient("ptl_wrong")("GET", "/api/ports").status_code == 401

    @pytest.mark.parametrize(
        "header",
        [
            *("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Server", "Forwarded", "Via"),
            *("CF-Connecting-IP", "CF-Ray", "X-Real-IP", "True-Client-IP", "CDN-Loop", "X-Forwarded", "Forwarded-For"),
            *("Fly-Client-IP", "Fastly-Client-IP", "X-Azure-ClientIP", "Tailscale-User-Login", "X-Client-IP"),
            *("X-Envoy-External-Address", "X-Original-Host", "Client-IP", "X-Cluster-Client-IP", "X-Remote-Addr"),
        ],
    )
    def test_a_request_through_a_proxy_requires_a_token(
        self, anybody: ApiClient, web: PortAllocation, header: str
    ) -> None:
        assert anybody("GET", "/api/ports", **{header.replace("-", "_"): "203.0.113.9"}).status_code == 401

    def test_an_unknown_connection_requires_a_token(self, anybody: ApiClient, web: PortAllocation) -> None:
        del anybody.client.generic  # its requests have no connection now
        assert anybody("GET", "/api/ports").status_code == 401

    def test_pages_require_a_login(self, web: PortAllocation) -> None:
        assert Client().get("/").status_code == 302


def test_reading_requires_a_login(anybody: ApiClient, web: PortAllocation) -> None:
    answer = anybody("GET", "/api/ports/audit")
    assert (answer.status_code, answer["WWW-Authenticate"]) == (401, "Bearer")
    assert Client().get("/api/docs").status_code == 302


class TestSessions:
    @pytest.fixture
    def browser_client(self, ports: PortManager) -> Client:
        client = Client(enforce_csrf_checks=True)
        client.force_login(user_with_role("operator"))
        return client

    def test_reading_is_allowed(self, browser_client: Client) -> None:
        assert browser_client.get("/api/ports").status_code == 200

    def test_changes_require_the_csrf_token(self, browser_client: Client) -> None:
        request = {"data": REQUEST, "content_type": "application/json"}
        refusal = browser_client.post("/api/ports", **request)
        assert (refusal.status_code, "X-CSRFToken" in refusal.json()["detail"]) == (403, True)
        page = browser_client.get("/projects/shop").content.decode()
        csrf = re.search(r'csrfmiddlewaretoken" value="(\w+)"', page)
        assert csrf is not None
        assert browser_client.post("/api/ports", **request, headers={"X-CSRFToken": csrf[1]}).status_code == 201


def test_a_token_in_the_address_is_refused(anybody: ApiClient, ports: PortManager) -> None:
    text = tokens.create(ports.context, "x")[1]
    assert anybody("GET", f"/api/ports?token={text}").status_code == 401


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://testserver:81", "https://testserver"])
def test_requests_from_another_origin_are_refused(viewer: ApiClient, origin: str) -> None:
    assert viewer("GET", "/api/ports", Origin=origin).status_code == 403
    assert viewer("GET", "/api/ports", Origin="http://testserver").status_code == 200


def test_the_most_frequent_request_takes_three_queries(
    operator: ApiClient, web: PortAllocation, django_assert_num_queries: Any
) -> None:
    request = {"project": "shop", "service": "web"}
    operator("POST", "/api/ports", request)
    # They read the token, the rate limits, and the port that the service holds.
    with django_assert_num_queries(3):
        assert operator("POST", "/api/ports", request).status_code == 200
    assert web.port_number == FIRST
