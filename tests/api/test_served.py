"""Two real workers, real sockets."""

from __future__ import annotations

import collections
import http.client
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from allocations.models import Audit, PortAllocation
from allocations.ports import PortManager
from tests import make
from tests.serving import gunicorn

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
SERVED = make.FIRST + 900


def ask(method: str, address: str, secret: str = "", body: object = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", SERVED, timeout=60)
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    sent = None if body is None else json.dumps(body)
    try:
        connection.request(method, address, sent, headers | {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_two_workers() -> None:
    ports = make.manager()
    ports.add_project("shop", start=make.FIRST, size=200)
    token, secret = ports.create_token("deploy", role="operator")
    with gunicorn(SERVED), ThreadPoolExecutor(32) as crowd:
        many = list(
            crowd.map(lambda n: ask("POST", "/api/ports", secret, {"project": "shop", "service": f"s{n}"}), range(200))
        )
        assert collections.Counter(status for status, _ in many) == {201: 200}
        assert {json.loads(body)["port"] for _, body in many} == set(range(make.FIRST, make.FIRST + 200))
        full = ask("POST", "/api/ports", secret, {"project": "shop", "service": "one-more"})
        assert full[0] == 409

        audits = list(crowd.map(lambda _: ask("GET", "/api/ports/audit", secret), range(20)))
        assert {status for status, _ in audits} == {200}
        assert Audit.objects.count() <= 2, "shared by callers, in both workers"

        assert ask("GET", "/api/ports", secret)[0] == 200
        ports.revoke_token(token.pk)
        after = list(crowd.map(lambda _: ask("GET", "/api/ports", secret)[0], range(40)))
        assert set(after) == {401}, "at once, in every worker"
        assert ask("GET", "/api/ports/audit")[0] == 401
    assert make.broken_invariants() == []
    assert PortAllocation.objects.held().count() == 200


def test_everything_that_the_openapi_file_admits(tmp_path: Path) -> None:
    """schemathesis: no server error, no status and no shape that the file does not tell of."""
    ports = make.manager()
    ports.add_project("shop", start=make.FIRST, size=200)
    ports.allocate("shop", "web")
    secret = ports.create_token("fuzz", role="admin")[1]
    checks = (
        *("not_a_server_error", "status_code_conformance", "content_type_conformance"),
        *("response_schema_conformance", "response_headers_conformance", "unsupported_method", "ignored_auth"),
    )
    config = tmp_path / "schemathesis.toml"
    config.write_text(
        f'headers = {{ Authorization = "Bearer {secret}" }}\n'
        "[checks]\nenabled = false\n"
        + "".join(f"{name}.enabled = true\n" for name in checks)
        +
        # ?strict=1 is a 503 for uptime monitors.
        '[[operations]]\ninclude-name = "GET /api/ports/audit"\nchecks.not_a_server_error.enabled = false\n'
    )
    config.chmod(0o600)
    # One worker: in Python 3.11 two threads that parse source count their recursion together (hypothesis parses).
    with gunicorn(SERVED) as address:
        done = subprocess.run(
            [
                *(str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(config)),
                *("run", f"{address}/api/openapi.json"),
                *("--max-examples", os.environ.get("SCHEMATHESIS_EXAMPLES", "15"), "--workers", "1", "--seed", "1"),
                *("--generation-database", "none", "--no-color", "--suppress-health-check", "all"),
            ],
            capture_output=True,
            text=True,
            timeout=600,
            cwd=tmp_path,
        )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "Tested: 24" in done.stdout
    generated = re.search(r"(\d+) generated", done.stdout)
    assert generated is not None
    assert int(generated[1]) > 500
    assert make.broken_invariants() == []


def test_the_worker_processes_show_no_token() -> None:
    """A token that came in stands in no process list and in no log."""
    ports: PortManager = make.manager()
    secret = ports.create_token("deploy", role="viewer")[1]
    with gunicorn(SERVED):
        assert ask("GET", "/api/ports", secret)[0] == 200
        assert ask("GET", f"/api/ports?token={secret}")[0] == 401
        shown = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True).stdout
    from django.conf import settings

    logged = (settings.PORTAL_HOME / f"served-{SERVED}.log").read_text()
    assert "/api/ports" in logged
    assert secret not in shown + logged
