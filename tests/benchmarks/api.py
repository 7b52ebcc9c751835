"""POST /api/ports through gunicorn with two workers, against the plainest view that answers the same JSON."""

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
# Each request of `new` is for a service that nobody has asked for yet.
SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer %s"
local made, run = 0, "%s"
request = function()
  made = made + 1
  local name = run == "" and "known" or ("s-" .. run .. "-" .. tostring(wrk):sub(-6) .. "-" .. made)
  return wrk.format(nil, nil, nil, '{"project": "bench", "service": "' .. name:gsub("[^a-z0-9-]", "") .. '"}')
end
"""
times: dict[str, list[str]] = {}


def run() -> None:
    if shutil.which("wrk") is None:
        print("wrk is missing (apt-get install wrk): POST /api/ports is not measured.", file=sys.stderr)
        return
    from allocations.ports import PortManager

    allocator.make_room()
    ports = PortManager(actor="bench")
    ports.add_project("bench", size=50_000, start=10_000)
    known = ports.get_or_allocate("bench", "known")
    secret = ports.create_token("bench", role="operator")[1]
    rounds = iter(range(1_000_000))
    with served():
        found = interleaved(
            {
                "yardstick": lambda: wrk("yardstick", f"/yardstick/{known.pk}", ""),
                "existing": lambda: wrk("existing", "/api/ports", SCRIPT % (secret, "")),
                "new": lambda: wrk("new", "/api/ports", SCRIPT % (secret, f"r{next(rounds)}")),
            },
            lambda: sql(
                "UPDATE port_allocations SET status = 'released' WHERE status <> 'released' AND service_name LIKE 's-%'"
            ),
        )
    for name, goal in (("existing", ">= 0.7"), ("new", ">= 0.5")):
        detail = f"{found[name]:.0f}/s against {found['yardstick']:.0f}/s; p50/p99 {', '.join(times[name][-1:])}"
        line(f"POST /api/ports, {name}, against one query by key", found[name] / found["yardstick"], goal, detail)


def wrk(name: str, address: str, script: str) -> float:
    """Requests per second of that address; a refusal ends the benchmark."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        done = subprocess.run(
            [
                *("wrk", "--latency", "-t", "2", "-c", str(CONNECTIONS), "-d", f"{SECONDS}s"),
                *(("-s", file.name) if script else ()),
                f"http://127.0.0.1:{PORT}{address}",
            ],
            capture_output=True,
            text=True,
            check=True,
        )
    # A time-out (over 2 s) of a busy machine is only slow; a refusal is an error.
    if "Non-2xx" in done.stdout or re.search(r"(connect|read|write) [1-9]", done.stdout):
        sys.exit(done.stdout)
    times.setdefault(name, []).append("/".join(latencies(done.stdout)))
    rate = re.search(r"Requests/sec:\s+([0-9.]+)", done.stdout)
    assert rate is not None
    return float(rate[1])


def latencies(told: str) -> list[str]:
    """p50 and p99 of wrk's report: of the lines of its latency distribution, which hold nothing else.

    The thread statistics above them have a column of percentages, too, and 60.50% there ends like 50%.
    """
    found = (re.search(rf"^\s+{p}%\s+(\S+)$", told, re.MULTILINE) for p in (50, 99))
    return [match[1] if match else "?" for match in found]


@contextmanager
def served() -> Iterator[None]:
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "tests.benchmarks.served",
        "PORTAL_PORT": str(PORT),
        "PORTAL_RATE_LIMIT": "1000000",
    }
    command = [sys.executable, "-m", "gunicorn", "-c", str(ROOT / "portal" / "gunicorn.conf.py"), "--max-requests", "0"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{PORT}/healthz")
                break
            except urllib.error.URLError:
                time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(30)
