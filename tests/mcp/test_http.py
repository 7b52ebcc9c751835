"""/mcp behind a live gunicorn with two workers, through the official client."""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections.abc import Collection
from typing import Any

import httpx2
import pytest
from django.db import connection
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client

from allocations.models import Event, PortAllocation
from allocations.ports import PortManager
from tests import make
from tests.loops import in_a_loop_of_its_own
from tests.serving import gunicorn

from .conftest import FIRST, over_http, refused, said

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
SERVED = make.FIRST + 910
WEB = {"projectName": "shop", "serviceName": "web"}
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}


def post(secret: str, body: bytes | None = None, method: str = "POST", **headers: str) -> tuple[int, dict[str, str]]:
    web = http.client.HTTPConnection("127.0.0.1", SERVED, timeout=30)
    sent = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    sent |= {"Authorization": f"Bearer {secret}"} if secret else {}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        web.request(method, "/mcp", json.dumps(LIST).encode() if body is None else body, sent)
        answer = web.getresponse()
        answer.read()
        return answer.status, dict(answer.headers)
    finally:
        web.close()


def test_tokens_rights_and_headers(ports: PortManager) -> None:
    ports.allocate("bank", "vault")
    operator = ports.create_token("agent", role="operator", projects=["shop"])[1]
    viewer = ports.create_token("looker", role="viewer")[1]
    with gunicorn(SERVED) as address:

        async def use(client: Any) -> Any:
            return (
                said(await client.call_tool("get-port", WEB)),
                said(await client.call_tool("get-port", WEB)),
                refused(await client.call_tool("get-port", {"projectName": "bank", "serviceName": "x"})),
                refused(await client.call_tool("release-port", {"projectName": "bank", "serviceName": "vault"})),
                said(await client.call_tool("list-ports", {}))["total"],
                said(await client.call_tool("explain-port", {"port": FIRST + 100})),
            )

        new, again, other, release, total, explained = over_http(address, operator, use)
        assert (new["port"], new["created"], again["port"], again["created"]) == (FIRST, True, FIRST, False)
        assert "There is no project bank" in other
        assert "There is no project bank" in release
        assert total == 1
        assert "vault" not in json.dumps(explained)
        newest = Event.objects.first()
        assert newest is not None
        assert (newest.source, newest.actor) == ("mcp", "agent")

        async def look(client: Any) -> Any:
            return refused(await client.call_tool("get-port", {**WEB, "serviceName": "other"}))

        for mode in ("auto", "legacy"):  # both eras of the protocol
            assert "takes the role operator" in over_http(address, viewer, look, mode=mode)

        # Stateless: each message stands for itself, so a list is answered without a session having been begun. It is
        # also what tells that the refusals below are for what is changed in them, and not for the message.
        assert post(operator)[0] == 200
        nobody, headers = post("")
        assert (nobody, headers["WWW-Authenticate"]) == (401, "Bearer")
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
            asked = {"projectName": "crowd", "serviceName": f"s{number}"}
            return [said(await client.call_tool("get-port", asked))["port"] for _ in range(each)]

    return [port for ports in await asyncio.gather(*(one(n) for n in range(clients))) for port in ports]


def sessions(but: Collection[int] = ()) -> dict[int, str]:
    """The sessions on the test's database beside this one, by their pid, with their state."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pid, state FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid() AND pid <> ALL (%s)",
            [list(but)],
        )
        return dict(cursor.fetchall())


@pytest.mark.parametrize("pool", [0, 4])
def test_a_thousand_calls_leave_no_connection_behind(ports: PortManager, pool: int) -> None:
    ports.add_project("crowd", start=FIRST + 200, size=50)
    secret = ports.create_token("crowd", role="operator")[1]
    others = sessions()  # of threads of other tests in this process
    with gunicorn(SERVED, pool=pool, rate_limit=100_000) as address:
        found = in_a_loop_of_its_own(many_calls(address, secret, clients=50, each=20))
        assert len(found) == 1000
        assert len(set(found)) == 50
        web = http.client.HTTPConnection("127.0.0.1", SERVED, timeout=10)
        web.request("GET", "/login")
        page = web.getresponse()
        assert (page.status, b"Portal" in page.read()) == (200, True), "the site still answers"
        web.close()
        # PostgreSQL takes a moment to see off the session of the last request.
        deadline = time.monotonic() + 10
        while len(left := sessions(but=others)) > 2 * pool and time.monotonic() < deadline:
            time.sleep(0.1)
        assert "idle in transaction" not in left.values()
        assert len(left) <= 2 * pool, "without a pool none, with one what it keeps"
    assert make.broken_invariants() == []


def test_the_story_of_the_spec(ports: PortManager) -> None:
    """A supervisor deploys a service on the port it gets; the audit sees it; another agent gets the same answer."""
    import subprocess
    import sys

    ports.add_project("consilio", start=FIRST + 300, size=100)
    supervisor = ports.create_token("supervisor", role="operator", projects=["consilio"])[1]
    second = ports.create_token("second", role="operator")[1]
    asked = {"projectName": "consilio", "serviceName": "new-api"}
    with gunicorn(SERVED) as address:

        async def deploy(client: Any) -> Any:
            return said(await client.call_tool("get-port", {**asked, "serviceType": "api"}))

        async def look(client: Any) -> Any:
            return said(await client.call_tool("audit-ports", {"projectName": "consilio"}))

        async def other(client: Any) -> Any:
            same = said(await client.call_tool("get-port", asked))
            return same, said(await client.call_tool("explain-port", {"port": same["port"]}))

        given = over_http(address, supervisor, deploy)
        assert (given["port"], given["created"]) == (FIRST + 300, True)
        server = subprocess.Popen(
            [sys.executable, "-m", "http.server", str(given["port"]), "--bind", "127.0.0.1"],
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            import socket

            for _ in range(100):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", given["port"])) == 0:
                        break
                time.sleep(0.05)
            seen = over_http(address, supervisor, look)
            assert seen["summary"] == {"allocated": 1, "inUse": 1, "notRunning": 0, "healthPercentage": 100}
            assert seen["conflicts"] == []
            same, explained = over_http(address, second, other)
            assert (same["port"], same["created"]) == (given["port"], False)
            assert "is held by consilio/new-api" in explained["explanation"]
            assert explained["listener"]["pid"] == server.pid
        finally:
            server.terminate()
            server.communicate()
