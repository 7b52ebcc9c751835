"""The containers that engines tell about, from the answers that Docker 26 and Podman 5 gave."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from subprocess import run

import pytest

from allocations import containers, importers
from allocations.listeners import Socket

DATA = Path(__file__).parent / "data" / "containers"


@contextmanager
def engine(path: Path, status: int, answer: bytes) -> Iterator[None]:
    """Serve at a Unix socket what an engine has answered."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = answer if "/containers/json" in self.path else b'{"ApiVersion": "1.45"}'
            self.send_response(status if "/containers/json" in self.path else 200)
            self.send_header("Content-Type", "application/containers/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

        def address_string(self) -> str:
            return "unix"

    with ThreadingUnixStreamServer(str(path), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


def test_a_scan_is_named_by_docker(tmp_path: Path) -> None:
    with engine(tmp_path / "s", 200, (DATA / "docker.json").read_bytes()):
        running = containers.running(tmp_path / "s")
    api, host, web = running
    assert api.published == {(18100, "tcp"), (18101, "tcp")}
    assert (host.published, host.service) == (set(), "host")
    listening = [
        Socket("tcp", "::", 18100, process="docker-proxy", container="docker.service"),
        Socket("tcp", "127.0.0.1", 18090, process="httpd", container=host.id),
        Socket("tcp", "::", 18070, process="node", cwd="/srv/shop"),
    ]
    rows = importers.scan(listening, running).rows
    assert [(r.port, r.protocol, r.name, r.project, r.description) for r in rows] == [
        (18070, "tcp", "shop", None, ""),
        (18080, "tcp", "web_1", None, "bb:1"),
        (18081, "udp", "web_1", None, "bb:1"),
        (18090, "tcp", "host", None, "bb:1"),
        (18100, "tcp", "api", "shop", "bb:1"),
        (18101, "tcp", "api", "shop", "bb:1"),
    ]
    assert web.service == "Web_1"


def test_an_engine_that_refuses_is_named(tmp_path: Path) -> None:
    with (
        engine(tmp_path / "s", 500, b'{"message": "it is\\nill"}'),
        pytest.raises(containers.EngineUnavailable, match=rf"^{tmp_path}/s: 500 Server Error.*it is ill"),
    ):
        containers.running(tmp_path / "s")


@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")
def test_an_engine_that_is_gone_is_named(tmp_path: Path) -> None:
    with engine(tmp_path / "s", 200, b"[]"):
        pass
    with pytest.raises(containers.EngineUnavailable, match=f"^{tmp_path}/s: "):
        containers.running(tmp_path / "s")
    gc.collect()  # the package leaves a socket open that could not connect


def test_root_asks_no_socket_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/s")
    with engine(tmp_path / "s", 200, b"[]"):
        assert tmp_path / "s" in containers.sockets()
        if os.geteuid() == 0:
            os.chown(tmp_path / "s", 1000, 1000)
            assert tmp_path / "s" not in containers.sockets()


def test_real_engine() -> None:
    """Whatever engine this machine has tells the same as its own command."""
    paths = [path for path in containers.sockets() if os.access(path, os.W_OK)]
    if not paths:
        pytest.skip("no Docker or Podman runs on this machine")
    for path in paths:
        command = ["docker", "-H", f"unix://{path}", "ps", "--no-trunc", "--format", "{{.ID}}"]
        out = run(command, capture_output=True, text=True, check=True).stdout
        assert {c.id for c in containers.running(path)} == {line[:12] for line in out.split()}
