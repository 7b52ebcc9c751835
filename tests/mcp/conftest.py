"""The official client, over stdio and over HTTP. It compares every result of a tool with its schema."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest
from django.conf import settings
from django.db import connection
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

from allocations import schemas
from allocations.mcp.results import ChangedPort, ListedPorts, ServicePort
from allocations.models import PortRange
from allocations.ports import PortManager
from allocations.schemas import Output
from tests import make
from tests.loops import in_a_loop_of_its_own
from tests.output_schemas import deviations, strict

FIRST = make.FIRST
RESULTS: dict[str, type[Output]] = {
    "get-port": ServicePort,
    "allocate-port": ServicePort,
    "list-ports": ListedPorts,
    "audit-ports": schemas.Audit,
    "port-summary": schemas.PortSummary,
    "release-port": ChangedPort,
    "update-port": ChangedPort,
    "reserve-port": ChangedPort,
    "explain-port": schemas.Explanation,
}


@pytest.fixture
def ports(ports: PortManager, bank: PortRange) -> PortManager:
    """Return the shared manager, after adding the project bank."""
    return ports


class CheckedClient:
    """A client that compares every result of a tool with the published schema and with the full schema."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)

    async def call_tool(self, name: str, arguments: dict[str, Any]) -> Any:
        result: Any = await self.client.call_tool(name, arguments)
        if not result.is_error:
            published = {tool.name: tool.output_schema for tool in (await self.client.list_tools()).tools}
            full_schema = RESULTS[name].model_json_schema(mode="serialization", by_alias=True)
            assert deviations(result.structured_content, published[name]) == []
            assert deviations(result.structured_content, strict(full_schema)) == []
        return result


def over_stdio(use: Callable[[CheckedClient], Awaitable[Any]], token: str = "") -> Any:
    """Start `manage.py mcp` on the test database, as an agent would, and use it."""
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "tests.served",
        "SERVED_DATABASE": connection.settings_dict["NAME"],
        "PORTAL_TOKEN": token,
    }
    server = StdioServerParameters(
        command=sys.executable, args=["manage.py", "mcp"], cwd=settings.BASE_DIR, env=environment
    )

    async def run() -> Any:
        async with Client(stdio_client(server)) as client:
            return await use(CheckedClient(client))

    return in_a_loop_of_its_own(run())


def over_http(address: str, token: str, use: Callable[[CheckedClient], Awaitable[Any]], **options: Any) -> Any:
    """Use /mcp of a running server with a bearer token."""

    async def run() -> Any:
        async with (
            httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=60) as web,
            Client(streamable_http_client(f"{address}/mcp", http_client=web), **options) as client,
        ):
            return await use(CheckedClient(client))

    return in_a_loop_of_its_own(run())


def content(result: Any) -> dict[str, Any]:
    """Return the structured content of a result. Its text must say the same."""
    assert not result.is_error, result.content
    structured: dict[str, Any] = result.structured_content
    assert json.loads(result.content[0].text) == structured
    return structured


def refusal(result: Any) -> str:
    """Return the sentence of a refusal."""
    assert result.is_error
    assert result.structured_content is None
    return str(result.content[0].text)
