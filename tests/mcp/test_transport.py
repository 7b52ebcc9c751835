"""/mcp of a gunicorn with two workers, through the official client."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Collection
from typing import Any

import httpx2
import pytest
from django.db import connection
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client

from allocations.models import Event, PortAllocation
from allocations.ports import PortManager, projects, tokens
from tests import make
from tests.loops import in_a_loop_of_its_own
from tests.make import BANK
from tests.serving import gunicorn

from .conftest import FIRST, content, over_http, refusal

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
SERVED = make.FIRST + 910
WEB = {"projectName": "shop", "serviceName": "web"}
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}


def post(secret: str, body: bytes | None = None, method: str = "POST", **headers: str) -> tuple[int, dict[str, str]]:
    web = http.client.HTTPConnection("127.0.0.1", SERVED, timeout=30)
    sent_headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    sent_headers |= {"Authorization": f"Bearer {secret}"} if secret else {}
    sent_headers |= {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        web.request(method, "/mcp", json.dumps(LIST).encode() if body is None else body, sent_headers)
        answer = web.getresponse()
        answer.read()
        return answer.status, dict(answer.headers)
    finally:
        web.close()


def test_tokens_roles_and_headers_are_checked(ports: PortManager) -> None:
    ports.allocate("bank", "vault")
    operator = tokens.create(ports.context, "agent", role="operator", projects=["shop"])[1]
    viewer = tokens.create(ports.context, "looker", role="viewer")[1]
    with gunicorn(SERVED) as address:

        async def use(client: Any) -> Any:
            return (
                content(await client.call_tool("get-port", WEB)),
                content(await client.call_tool("get-port", WEB)),
                refusal(await client.call_tool("get-port", {"projectName": "bank", "serviceName": "x"})),
                refusal(await client.call_tool("release-port", {"projectName": "bank", "serviceName": "vault"})),
                content(await client.call_tool("list-ports", {}))["total"],
                content(await client.call_tool("explain-port", {"port": BANK})),
            )

        new, again, other, release, total, explanation = over_http(address, operator, use)
        assert (new["port"], new["created"], again["port"], again["created"]) == (FIRST, True, FIRST, False)
        assert "There is no project bank" in other
        assert "There is no project bank" in release
        assert total == 1
        assert "vault" not in json.dumps(explanation)
        newest = Event.objects.first()
        assert newest is not None
        assert (newest.source, newest.actor) == ("mcp", "agent")

        async def look(client: Any) -> Any:
            return refusal(await client.call_tool("get-port", {**WEB, "serviceName": "other"}))

        for mode in ("auto", "legacy"):  # the current and the earlier versions of the protocol
            assert "requires the role operator" in over_http(address, viewer, look, mode=mode)

        # The server is stateless, so it accepts this message without a session. The requests below are refused because
        # of what they change in it.
        assert post(operator)[0] == 200
        status, headers = post("")
        assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
        assert post("ptl_garbage")[0] == 401
        assert post(operator, Origin="https://evil.example")[0] == 403
        assert post(operator, Host="evil.example")[0] == 400
        assert post(operator, method="GET")[0] == 405
        assert post(operator, method="DELETE")[0] == 405
        assert post(operator, b"x" * 6_000_000)[0] == 413
        assert post(operator, b"{broken")[0] == 400
        assert post(operator, Mcp_Protocol_Version="2099-01-01")[0] == 400
    assert PortAllocation.objects.held().count() == 2


async def many_calls(address: str, secret: str, clients: int, each: int) -> list[int]:
    async def one(number: int) -> list[int]:
        async with (
            httpx2.AsyncClient(headers={"Authorization": f"Bearer {secret}"}, timeout=120) as web,
            Client(streamable_http_client(f"{address}/mcp", http_client=web)) as client,
        ):
            request = {"projectName": "crowd", "serviceName": f"s{number}"}
            return [content(await client.call_tool("get-port", request))["port"] for _ in range(each)]

    return [port for ports in await asyncio.gather(*(one(n) for n in range(clients))) for port in ports]


def sessions(excluding: Collection[int] = ()) -> dict[int, str]:
    """Return the state of each other session on the test database, by its pid."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pid, state FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid() AND pid <> ALL (%s)",
            [list(excluding)],
        )
        return dict(cursor.fetchall())


@pytest.mark.parametrize(("pool", "clients"), [(0, 20), (4, 50)])
def test_many_calls_leave_no_connection_behind(ports: PortManager, pool: int, clients: int) -> None:
    projects.add(ports.context, "crowd", start_port=FIRST + 200, size=50)
    secret = tokens.create(ports.context, "crowd", role="operator")[1]
    earlier_sessions = sessions()  # sessions of threads that other tests started in this process
    with gunicorn(SERVED, pool=pool, rate_limit=100_000) as address:
        numbers = in_a_loop_of_its_own(many_calls(address, secret, clients=clients, each=20))
        assert len(numbers) == 20 * clients
        assert len(set(numbers)) == clients
        web = http.client.HTTPConnection("127.0.0.1", SERVED, timeout=10)
        web.request("GET", "/login")
        page = web.getresponse()
        assert (page.status, b"Portal" in page.read()) == (200, True), "the site no longer answers"
        web.close()
        # Sessions that nobody uses are closed after a moment.
        deadline = time.monotonic() + 10
        while len(remaining := sessions(excluding=earlier_sessions)) > 2 * pool and time.monotonic() < deadline:
            time.sleep(0.1)
        assert "idle in transaction" not in remaining.values()
        assert len(remaining) <= 2 * pool, "more sessions remain than the pools of two workers keep"
    assert make.broken_invariants() == []


def test_an_agent_deploys_a_service(ports: PortManager) -> None:
    """A supervisor deploys a service on its port, an audit sees it, and another agent gets the same port."""
    projects.add(ports.context, "consilio", start_port=FIRST + 300, size=100)
    supervisor = tokens.create(ports.context, "supervisor", role="operator", projects=["consilio"])[1]
    second = tokens.create(ports.context, "second", role="operator")[1]
    request = {"projectName": "consilio", "serviceName": "new-api"}
    with gunicorn(SERVED) as address:

        async def deploy(client: Any) -> Any:
            return content(await client.call_tool("get-port", {**request, "serviceType": "api"}))

        async def look(client: Any) -> Any:
            return content(await client.call_tool("audit-ports", {"projectName": "consilio"}))

        async def other(client: Any) -> Any:
            same = content(await client.call_tool("get-port", request))
            return same, content(await client.call_tool("explain-port", {"port": same["port"]}))

        new = over_http(address, supervisor, deploy)
        assert (new["port"], new["created"]) == (FIRST + 300, True)
        server = subprocess.Popen(
            [sys.executable, "-m", "http.server", str(new["port"]), "--bind", "127.0.0.1"],
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            for _ in range(100):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", new["port"])) == 0:
                        break
                time.sleep(0.05)
            audit = over_http(address, supervisor, look)
            assert audit["summary"] == {
                **{"allocated": 1, "inUse": 1, "notRunning": 0, "healthPercentage": 100},
                **{"unknown": 0, "drift": 0, "unallocated": 0},
            }
            assert audit["conflicts"] == []
            same, explanation = over_http(address, second, other)
            assert (same["port"], same["created"]) == (new["port"], False)
            assert "is held by consilio/new-api" in explanation["explanation"]
            assert explanation["listener"]["pid"] == server.pid
        finally:
            server.terminate()
            server.communicate()
