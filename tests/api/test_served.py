"""The API of a gunicorn with two workers."""

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
from django.conf import settings
from django.db import connection

from allocations.models import Audit, PortAllocation
from allocations.ports import PortManager, projects, tokens
from tests import make
from tests.serving import gunicorn
from tests.settings import EMBEDDED_DATABASE

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
SERVED = make.FIRST + 900


def send(method: str, address: str, secret: str = "", body: object = None) -> tuple[int, bytes]:
    client = http.client.HTTPConnection("127.0.0.1", SERVED, timeout=60)
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    content = None if body is None else json.dumps(body)
    try:
        client.request(method, address, content, headers | {"Content-Type": "application/json"})
        answer = client.getresponse()
        return answer.status, answer.read()
    finally:
        client.close()


def test_two_workers_share_ports_audits_and_tokens() -> None:
    ports = make.manager()
    projects.add(ports.context, "shop", start_port=make.FIRST, size=200)
    token, secret = tokens.create(ports.context, "deploy", role="operator")
    with gunicorn(SERVED), ThreadPoolExecutor(32) as clients:
        answers = list(
            clients.map(
                lambda n: send("POST", "/api/ports", secret, {"project": "shop", "service": f"s{n}"}), range(200)
            )
        )
        assert collections.Counter(status for status, _ in answers) == {201: 200}
        assert {json.loads(body)["port"] for _, body in answers} == set(range(make.FIRST, make.FIRST + 200))
        full = send("POST", "/api/ports", secret, {"project": "shop", "service": "one-more"})
        assert full[0] == 409

        audits = list(clients.map(lambda _: send("GET", "/api/ports/audit", secret), range(20)))
        assert {status for status, _ in audits} == {200}
        assert Audit.objects.count() <= 2, "the requests did not share audits"

        assert send("GET", "/api/ports", secret)[0] == 200
        tokens.revoke(ports.context, token.pk)
        after = list(clients.map(lambda _: send("GET", "/api/ports", secret)[0], range(40)))
        assert set(after) == {401}, "a worker still accepts the revoked token"
        assert send("GET", "/api/ports/audit")[0] == 401
    assert make.broken_invariants() == []
    assert PortAllocation.objects.held().count() == 200


def limit_connections(limit: int) -> None:
    """Let the database have so many connections of those who are no superusers; -1 is no limit."""
    with connection.cursor() as cursor:
        name = connection.ops.quote_name(connection.settings_dict["NAME"])
        cursor.execute(f"ALTER DATABASE {name} CONNECTION LIMIT {limit}")


@pytest.mark.skipif(not EMBEDDED_DATABASE, reason="the role that serves may be a superuser")
def test_exhausted_connections_are_told_as_that() -> None:
    secret = tokens.create(make.manager().context, "deploy", role="viewer")[1]
    with gunicorn(SERVED):
        assert send("GET", "/api/ports", secret)[0] == 200
        limit_connections(0)
        try:
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
                    "AND pid <> pg_backend_pid()"
                )
            status, body = send("GET", "/api/ports", secret)
            assert (status, json.loads(body)["code"]) == (503, "unavailable")
            assert "it has no free connection" in json.loads(body)["detail"]
            assert send("GET", "/healthz")[0] == 200
            assert send("GET", "/readyz")[0] == 503
        finally:
            limit_connections(-1)
        assert send("GET", "/api/ports", secret)[0] == 200


def test_responses_conform_to_the_openapi_description(tmp_path: Path) -> None:
    """Schemathesis finds no server error, and no status or schema that the description does not mention."""
    ports = make.manager()
    projects.add(ports.context, "shop", start_port=make.FIRST, size=200)
    ports.allocate("shop", "web")
    secret = tokens.create(ports.context, "fuzz", role="admin")[1]
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
        # ?strict=1 answers 503, for uptime monitors.
        '[[operations]]\ninclude-name = "GET /api/ports/audit"\nchecks.not_a_server_error.enabled = false\n'
    )
    config.chmod(0o600)
    # One worker, because threads that parse source share a recursion limit in Python 3.11, and Hypothesis does.
    with gunicorn(SERVED) as address:
        done = subprocess.run(
            [
                *(str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(config)),
                *("run", f"{address}/api/openapi.json"),
                *("--max-examples", os.environ.get("SCHEMATHESIS_EXAMPLES", "10"), "--workers", "1", "--seed", "1"),
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
    assert int(generated[1]) > 350
    assert make.broken_invariants() == []


def test_tokens_are_in_no_process_list_and_no_log() -> None:
    ports: PortManager = make.manager()
    secret = tokens.create(ports.context, "deploy", role="viewer")[1]
    with gunicorn(SERVED):
        assert send("GET", "/api/ports", secret)[0] == 200
        assert send("GET", f"/api/ports?token={secret}")[0] == 401
        processes = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True).stdout
    log = (settings.PORTAL_HOME / f"served-{SERVED}.log").read_text()
    assert "/api/ports" in log
    assert secret not in processes + log
