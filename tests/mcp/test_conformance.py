"""The MCP server under the conformance suite of the protocol, and with the MCP Inspector."""

from __future__ import annotations

import http.client
import json
import os
import re
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection

from allocations.ports import PortManager, tokens
from tests import make
from tests.node import node
from tests.serving import gunicorn

from .conftest import FIRST

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
SERVED = make.FIRST + 920
EXPECTED = Path(__file__).with_name("conformance.yml")
# Scenarios that every server must pass, whatever its tools are.
FOR_ANY_SERVER = {
    *("server-initialize", "ping", "tools-list", "tools-call-simple-text", "tools-call-error"),
    *("resources-list", "prompts-list", "dns-rebinding-protection"),
}


class BearerProxy(BaseHTTPRequestHandler):
    """Forward requests with a token added. Everything else stays the same, including Host and Origin."""

    secret = ""

    def do_POST(self) -> None:
        self.forward()

    def do_GET(self) -> None:
        self.forward()

    def do_DELETE(self) -> None:
        self.forward()

    def forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        web = http.client.HTTPConnection("127.0.0.1", SERVED, timeout=30)
        web.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            web.putheader(name, value)
        web.putheader("Authorization", f"Bearer {self.secret}")
        web.endheaders(body)
        answer = web.getresponse()
        content = answer.read()
        web.close()
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def address_without_token(ports: PortManager) -> Iterator[str]:
    """Provide the address of a proxy that adds a token, because the suite cannot send one."""
    BearerProxy.secret = tokens.create(ports.context, "conformance", role="operator")[1]
    with gunicorn(SERVED), ThreadingHTTPServer(("127.0.0.1", 0), BearerProxy) as proxy:
        thread = threading.Thread(target=proxy.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{proxy.server_port}"
        proxy.shutdown()
        thread.join()


def test_scenarios_pass_unless_they_are_listed(address_without_token: str, tmp_path: Path) -> None:
    """Run all scenarios. Those that conformance.yml lists with a reason must fail, and all others must pass."""
    done = node(
        "@modelcontextprotocol/conformance/dist/index.js",
        *("server", "--url", f"{address_without_token}/mcp", "--suite", "all"),
        *("--expected-failures", str(EXPECTED)),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = set(re.findall(r"^✓ ([\w-]+): [1-9]\d* passed, 0 failed", done.stdout, re.MULTILINE))
    assert passed == FOR_ANY_SERVER


class TestInspector:
    @staticmethod
    def inspect(home: Path, *arguments: str) -> str:
        program = "@modelcontextprotocol/inspector/clients/launcher/build/index.js"
        done = node(program, "--cli", *arguments, env=os.environ | {"HOME": str(home)}, cwd=settings.BASE_DIR)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def test_inspector_works_over_http(self, ports: PortManager, tmp_path: Path) -> None:
        secret = tokens.create(ports.context, "inspector", role="operator")[1]
        with gunicorn(SERVED) as address:
            target = (f"{address}/mcp", "--transport", "http", "--header", f"Authorization: Bearer {secret}")
            listing = json.loads(self.inspect(tmp_path, *target, "--method", "tools/list", "--strict"))
            arguments = ("--tool-arg", "projectName=shop", "serviceName=web")
            call = ("--method", "tools/call", "--tool-name", "get-port", *arguments)
            answer = json.loads(self.inspect(tmp_path, *target, *call))
            read = ("--method", "resources/read", "--uri", "portal://projects/shop")
            resource = self.inspect(tmp_path, *target, *read)
        assert len(listing["tools"]) == 9
        assert answer["structuredContent"]["port"] == FIRST
        assert str(FIRST) in resource

    def test_inspector_works_over_stdio(self, ports: PortManager, tmp_path: Path) -> None:
        server_settings = {
            "DJANGO_SETTINGS_MODULE": "tests.served",
            "SERVED_DATABASE": connection.settings_dict["NAME"],
        }
        variables = [argument for name, value in server_settings.items() for argument in ("-e", f"{name}={value}")]
        target = (sys.executable, "manage.py", "mcp", *variables)
        listing = json.loads(self.inspect(tmp_path, *target, "--method", "tools/list", "--strict"))
        assert len(listing["tools"]) == 9
