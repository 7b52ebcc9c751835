"""The official client before the tools: in this process, over stdio, and over HTTP."""

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

from allocations.ports import PortManager
from tests import make
from tests.loops import in_a_loop_of_its_own

FIRST = make.FIRST


@pytest.fixture
def ports() -> PortManager:
    manager = make.manager()
    manager.add_project("shop", size=20, start=FIRST)
    manager.add_project("bank", size=20, start=FIRST + 100)
    return manager


def over_stdio(use: Callable[[Client], Awaitable[Any]], token: str = "") -> Any:
    """Use `manage.py mcp` as a client would that starts it; the test's database is behind it."""
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
            return await use(client)

    return in_a_loop_of_its_own(run())


def over_http(address: str, token: str, use: Callable[[Client], Awaitable[Any]], **options: Any) -> Any:
    """Use /mcp of a server with a bearer token."""

    async def run() -> Any:
        async with (
            httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=60) as web,
            Client(streamable_http_client(f"{address}/mcp", http_client=web), **options) as client,
        ):
            return await use(client)

    return in_a_loop_of_its_own(run())


def said(result: Any) -> dict[str, Any]:
    """What a tool gave, the same as structured content and as text."""
    assert not result.is_error, result.content
    structured: dict[str, Any] = result.structured_content
    assert json.loads(result.content[0].text) == structured
    return structured


def refused(result: Any) -> str:
    """The sentence of a refusal."""
    assert result.is_error
    assert result.structured_content is None
    return str(result.content[0].text)
