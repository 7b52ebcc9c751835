"""Compare this checkout with an earlier commit: both serve the same registry, and take turns.

The commit is BENCH_BASE (`make bench BASE=…`), by default the one before HEAD. The registry has BENCH_PROJECTS projects
and BENCH_HELD held ports. BENCH_ONLY chooses the rows whose names contain it.
"""

from __future__ import annotations

import http.client
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Container, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .api import SCRIPT, wrk
from .harness import ROUNDS

ROOT = Path(__file__).resolve().parents[2]
BASE = os.environ.get("BENCH_BASE") or "HEAD~1"
PROJECTS = int(os.environ.get("BENCH_PROJECTS", "1000"))
HELD = int(os.environ.get("BENCH_HELD", "100000"))
ONLY = os.environ.get("BENCH_ONLY", "")
PORTS = (3997, 3998)
EACH = 5  # requests in each round
MCP = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Accept"] = "application/json, text/event-stream"
wrk.headers["Authorization"] = "Bearer %s"
wrk.body = '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get-port","arguments":' ..
  '{"projectName":"bench","serviceName":"known"}}}'
"""
# On a host of its own in each round, so that the range is never full.
NEW = SCRIPT.replace("""'"}')""", """'", "hostname": "web-%s"}')""")
COMPARING = """
import statistics, time, django
django.setup()
from allocations.ports import PortManager
manager, times = PortManager(actor="bench"), []
for _ in range(4):
    started_at = time.perf_counter()
    manager.audit(record=False)
    times.append(time.perf_counter() - started_at)
print(statistics.median(times[1:]))
"""


@dataclass
class Arm:
    """One of the two that are compared."""

    checkout: Path
    port: int
    home: str
    secret: str
    cookie: str

    def get(self, path: str, times: int = EACH, statuses: Container[int] = (200,)) -> float:
        """Return the median of the seconds that a page takes."""
        web = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        headers = {"Cookie": self.cookie, "Accept-Encoding": "gzip"}
        if path.startswith(("/api/", "/metrics")):
            headers["Authorization"] = f"Bearer {self.secret}"
        taken = []
        for _ in range(times):
            started_at = time.perf_counter()
            web.request("GET", path, headers=headers)
            response = web.getresponse()
            self.size = len(response.read())
            taken.append(time.perf_counter() - started_at)
            assert response.status in statuses, (path, response.status)
        web.close()
        return statistics.median(taken)

    def reused(self) -> float:
        """Return the seconds of an audit that somebody asks for just after another."""
        return [self.get("/api/ports/audit", 1, {200, 503}) for _ in range(2)][1]

    def bytes(self, path: str) -> float:
        """Return how many bytes of a page are sent."""
        self.get(path, 1)
        return float(self.size)

    def rate(self, path: str, script: str) -> float:
        """Return the seconds of one request of eight clients."""
        return 1 / wrk(path, path, script, port=self.port)

    def command(self, *words: str) -> float:
        """Return the CPU seconds of a command."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        self._run("manage.py", *words)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def comparing(self) -> float:
        """Return the seconds of an audit of everything that is not recorded."""
        return float(self._run("-c", COMPARING))

    def _run(self, *words: str) -> str:
        environment = os.environ | {"PORTAL_HOME": self.home, "DATABASE_URL": ""}
        command = [sys.executable, *words]
        done = subprocess.run(command, cwd=self.checkout, env=environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        return done.stdout


def run() -> None:
    """Print a line for each row of the table: how many times faster, or smaller, this checkout is."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="portal-bench-", dir="/var/tmp")))
        folder.chmod(0o755)
        earlier = stack.enter_context(checkout(folder / "base"))
        arms = [
            stack.enter_context(served(place, folder / f"home-{port}", port))
            for place, port in zip((earlier, ROOT), PORTS, strict=True)
        ]
        print(f"Beside {BASE}, {PROJECTS:,} projects, {HELD:,} held; the larger the ratio, the better.")
        rounds = iter(range(1_000_000))
        measures: dict[str, Callable[[Arm], float]] = {
            "POST existing, 8 clients": lambda arm: arm.rate("/api/ports", SCRIPT % (arm.secret, "")),
            "MCP get-port, 8 clients": lambda arm: arm.rate("/mcp", MCP % arm.secret),
            "GET /api/ports": partial(Arm.get, path="/api/ports"),
            "home": partial(Arm.get, path="/"),
            "project, range of 1,000 full": partial(Arm.get, path="/projects/full"),
            "search": partial(Arm.get, path="/search?q=service-7"),
            "unknown project": partial(Arm.get, path="/api/ports?project=fleet-x", statuses={404}),
            "events": partial(Arm.get, path="/events"),
            "GET /metrics": partial(Arm.get, path="/metrics"),
            "shared audit, reused": Arm.reused,
            "seeing and comparing": Arm.comparing,
            "manage.py allocate, CPU": lambda arm: arm.command("allocate", "bench", "known"),
            "home, bytes": lambda arm: arm.bytes("/"),
            "project, bytes": lambda arm: arm.bytes("/projects/full"),
            # The last, because the faster one has more services afterwards.
            "POST new, 8 clients": lambda arm: arm.rate("/api/ports", new_services(arm, next(rounds))),
        }
        for what, measure in measures.items():
            if ONLY in what:
                report(what, arms, measure)


def new_services(arm: Arm, number: int) -> str:
    """Return the script that asks for a new service with each request."""
    return NEW % (arm.secret, f"r{number}", number)


def report(what: str, arms: list[Arm], measure: Callable[[Arm], float]) -> None:
    """Measure both in turns, and print the ratio of the medians."""
    figures: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        for arm, taken in zip(arms, figures, strict=True):
            taken.append(measure(arm))
    before, now = map(statistics.median, figures)
    unit = "{:,.0f} B" if "bytes" in what else "{:,.1f} ms"
    scale = 1 if "bytes" in what else 1000
    print(f"{what:32} {before / now:7.2f}   {unit.format(before * scale)} -> {unit.format(now * scale)}", flush=True)


@contextmanager
def checkout(place: Path) -> Iterator[Path]:
    """Provide the earlier commit, with the benchmarks of this one."""
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(place), BASE], check=True)
    try:
        shutil.rmtree(place / "tests" / "benchmarks", ignore_errors=True)
        shutil.copytree(ROOT / "tests" / "benchmarks", place / "tests" / "benchmarks")
        shutil.copy(ROOT / "tests" / "gunicorn.conf.py", place / "tests")
        (place / ".venv").symlink_to(ROOT / ".venv")
        yield place
    finally:
        subprocess.run([*git, "remove", "--force", str(place)], check=True)


@contextmanager
def served(place: Path, home: Path, port: int) -> Iterator[Arm]:
    """Serve a filled Portal of a checkout."""
    command = [sys.executable, "-m", "tests.benchmarks.arm", str(home), str(port), str(PROJECTS), str(HELD)]
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    environment["PORTAL_PORT"] = str(port)  # the cookie is named after it
    process = subprocess.Popen(
        command, cwd=place, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        arm = Arm(checkout=place, **json.loads(process.stdout.readline()))
        yield arm
    finally:
        process.stdin.close()
        process.wait(120)
