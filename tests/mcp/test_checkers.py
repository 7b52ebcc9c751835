"""What others check a server with: the protocol's conformance suite and the inspector."""

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

from allocations.ports import PortManager
from tests import make
from tests.node import node
from tests.serving import gunicorn

from .conftest import FIRST

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
SERVED = make.FIRST + 920
EXPECTED = Path(__file__).with_name("conformance.yml")
# What holds for any server, whatever its tools are.
FOR_ANY_SERVER = {
    *("server-initialize", "ping", "tools-list", "tools-call-simple-text", "tools-call-error"),
    *("resources-list", "prompts-list", "dns-rebinding-protection"),
}


class Bearer(BaseHTTPRequestHandler):
    """Passes a request on with a token; all else, Host and Origin among it, as it came."""

    secret = ""

    def do_POST(self) -> None:
        self.pass_on()

    def do_GET(self) -> None:
        self.pass_on()

    def do_DELETE(self) -> None:
        self.pass_on()

    def pass_on(self) -> None:
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
def with_a_token(ports: PortManager) -> Iterator[str]:
    """The address of a server that asks for no token: conformance has none to send."""
    Bearer.secret = ports.create_token("conformance", role="operator")[1]
    with gunicorn(SERVED), ThreadingHTTPServer(("127.0.0.1", 0), Bearer) as proxy:
        thread = threading.Thread(target=proxy.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{proxy.server_port}"
        proxy.shutdown()
        thread.join()


def test_conformance(with_a_token: str, tmp_path: Path) -> None:
    """All its scenarios: what fails is listed in conformance.yml with the reason, and nothing that is listed passes."""
    done = node(
        "@modelcontextprotocol/conformance/dist/index.js",
        *("server", "--url", f"{with_a_token}/mcp", "--suite", "all"),
        *("--expected-failures", str(EXPECTED)),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = set(re.findall(r"^✓ ([\w-]+): [1-9]\d* passed, 0 failed", done.stdout, re.MULTILINE))
    assert passed == FOR_ANY_SERVER


class TestInspector:
    @staticmethod
    def inspected(home: Path, *words: str) -> str:
        program = "@modelcontextprotocol/inspector/clients/launcher/build/index.js"
        done = node(program, "--cli", *words, env=os.environ | {"HOME": str(home)}, cwd=settings.BASE_DIR)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def test_over_http(self, ports: PortManager, tmp_path: Path) -> None:
        secret = ports.create_token("inspector", role="operator")[1]
        with gunicorn(SERVED) as address:
            target = (f"{address}/mcp", "--transport", "http", "--header", f"Authorization: Bearer {secret}")
            offered = json.loads(self.inspected(tmp_path, *target, "--method", "tools/list", "--strict"))
            arguments = ("--tool-arg", "projectName=shop", "serviceName=web")
            called = ("--method", "tools/call", "--tool-name", "get-port", *arguments)
            given = json.loads(self.inspected(tmp_path, *target, *called))
            read = ("--method", "resources/read", "--uri", "portal://projects/shop")
            attached = self.inspected(tmp_path, *target, *read)
        assert len(offered["tools"]) == 9
        assert given["structuredContent"]["port"] == FIRST
        assert str(FIRST) in attached

    def test_over_stdio(self, ports: PortManager, tmp_path: Path) -> None:
        served = {"DJANGO_SETTINGS_MODULE": "tests.served", "SERVED_DATABASE": connection.settings_dict["NAME"]}
        variables = [word for name, value in served.items() for word in ("-e", f"{name}={value}")]
        target = (sys.executable, "manage.py", "mcp", *variables)
        offered = json.loads(self.inspected(tmp_path, *target, "--method", "tools/list", "--strict"))
        assert len(offered["tools"]) == 9
