"""POST /api/ports through gunicorn with two workers, compared with the simplest view that returns the same JSON."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import allocator
from .harness import interleaved, line, sql

PORT, SECONDS, CONNECTIONS = 3999, 4, 8
ROOT = Path(__file__).resolve().parents[2]
# Each request of `new` is for a service that has no port yet.
SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer %s"
local count, run = 0, "%s"
request = function()
  count = count + 1
  local name = run == "" and "known" or ("s-" .. run .. "-" .. tostring(wrk):sub(-6) .. "-" .. count)
  return wrk.format(nil, nil, nil, '{"project": "bench", "service": "' .. name:gsub("[^a-z0-9-]", "") .. '"}')
end
"""
times: dict[str, list[str]] = {}


def run() -> None:
    if shutil.which("wrk") is None:
        print("wrk is not installed (apt-get install wrk): POST /api/ports is not measured.", file=sys.stderr)
        return
    from allocations.ports import PortManager, projects, tokens

    allocator.make_room()
    ports = PortManager(actor="bench")
    projects.add(ports.context, "bench", size=50_000, start_port=10_000)
    allocation = ports.get_or_allocate("bench", "known")
    secret = tokens.create(ports.context, "bench", role="operator")[1]
    rounds = iter(range(1_000_000))
    with served():
        rates = interleaved(
            {
                "yardstick": lambda: wrk("yardstick", f"/yardstick/{allocation.pk}", ""),
                "existing": lambda: wrk("existing", "/api/ports", SCRIPT % (secret, "")),
                "new": lambda: wrk("new", "/api/ports", SCRIPT % (secret, f"r{next(rounds)}")),
            },
            lambda: sql(
                "UPDATE port_allocations SET status = 'released' WHERE status <> 'released' AND service_name LIKE 's-%'"
            ),
        )
    for name, goal in (("existing", ">= 0.7"), ("new", ">= 0.5")):
        detail = f"{rates[name]:.0f}/s against {rates['yardstick']:.0f}/s; p50/p99 {', '.join(times[name][-1:])}"
        line(f"POST /api/ports, {name}, against one query by key", rates[name] / rates["yardstick"], goal, detail)


def wrk(name: str, address: str, script: str, port: int = PORT) -> float:
    """Return the number of requests per second to an address. A refusal ends the benchmark."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        done = subprocess.run(
            [
                *("wrk", "--latency", "-t", "2", "-c", str(CONNECTIONS), "-d", f"{SECONDS}s"),
                *(("-s", file.name) if script else ()),
                f"http://127.0.0.1:{port}{address}",
            ],
            capture_output=True,
            text=True,
            check=True,
        )
    # A time-out (over 2 s) only means that the machine is busy. A refusal is an error.
    if "Non-2xx" in done.stdout or re.search(r"(connect|read|write) [1-9]", done.stdout):
        sys.exit(done.stdout)
    times.setdefault(name, []).append("/".join(latencies(done.stdout)))
    rate = re.search(r"Requests/sec:\s+([0-9.]+)", done.stdout)
    assert rate is not None
    return float(rate[1])


def latencies(report: str) -> list[str]:
    """Return p50 and p99 from the latency distribution in a report of wrk.

    Whole lines are matched, because the thread statistics contain percentages too, and 60.50% ends with 50%.
    """
    matches = (re.search(rf"^\s+{p}%\s+(\S+)$", report, re.MULTILINE) for p in (50, 99))
    return [match[1] if match else "?" for match in matches]


@contextmanager
def served(port: int = PORT) -> Iterator[None]:
    """Serve the Portal that this process has set up."""
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "tests.benchmarks.served",
        "PORTAL_PORT": str(port),
        "PORTAL_RATE_LIMIT": "1000000",
    }
    command = [sys.executable, "-m", "gunicorn", "-c", str(ROOT / "tests" / "gunicorn.conf.py"), "--max-requests", "0"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz")
                break
            except urllib.error.URLError:
                time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(30)
