"""`manage.py mcp` as a process: what it reads, what it writes, and when it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import connection

from allocations.models import PortAllocation
from allocations.ports import PortManager, tokens
from tests import make

from .conftest import FIRST, content, over_stdio, refusal

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
WEB = {"projectName": "shop", "serviceName": "web"}


def start(**environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "manage.py", "mcp"],
        cwd=settings.BASE_DIR,
        env=os.environ
        | {"DJANGO_SETTINGS_MODULE": "tests.served", "SERVED_DATABASE": connection.settings_dict["NAME"]}
        | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def message(number: int, method: str, **params: Any) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}) + "\n"


HELLO = message(
    1, "initialize", protocolVersion="2025-06-18", capabilities={}, clientInfo={"name": "test", "version": "1"}
)
READY = json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"}) + "\n"


def test_invalid_lines_are_skipped(ports: PortManager) -> None:
    process = start()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(HELLO + READY + "{broken\n\n[]\n" + message(2, "tools/call", name="get-port", arguments=WEB))
    process.stdin.flush()
    answers = {}
    while 2 not in answers:
        line = json.loads(process.stdout.readline())
        answers[line.get("id")] = line
    assert answers[2]["result"]["structuredContent"]["port"] == FIRST
    _, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in err


def test_closing_standard_input_during_a_call_ends_the_process(ports: PortManager) -> None:
    """The answer may be lost. Whether or not the port was allocated, repeating the call returns the same port."""
    process = start()
    out, err = process.communicate(HELLO + READY + message(2, "tools/call", name="get-port", arguments=WEB), timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in err
    assert all(json.loads(line) for line in out.splitlines())
    time.sleep(0.2)
    assert PortAllocation.objects.count() <= 1
    assert ports.get_or_allocate("shop", "web").port_number == FIRST
    assert make.broken_invariants() == []


def test_an_invalid_token_is_reported_in_one_line(ports: PortManager) -> None:
    process = start(PORTAL_TOKEN="ptl_bad")
    out, err = process.communicate("", timeout=20)
    assert (process.returncode, out) == (1, "")
    assert err.strip().endswith("make one with create_token, or leave it unset.")


def test_a_token_that_is_revoked_during_the_session_is_refused(ports: PortManager) -> None:
    """A session over stdio may last for weeks."""
    token, secret = tokens.create(ports.context, "agent", role="operator")

    async def use(client: Any) -> Any:
        before = content(await client.call_tool("get-port", WEB))
        await sync_to_async(tokens.revoke)(ports.context, token.pk)
        return before, refusal(await client.call_tool("get-port", WEB))

    before, sentence = over_stdio(use, secret)
    assert before["port"] == FIRST
    assert "PORTAL_TOKEN is not a valid token" in sentence
