"""Compare an audit of 10,000 allocations on this host, with 5,000 real listeners, with running `ss -tlnH`."""

from __future__ import annotations

import functools
import statistics
import subprocess
import sys
from contextlib import ExitStack

from . import allocator
from .harness import ROUNDS, line, seconds, sql

LISTENERS, ALLOCATIONS, PROCESSES = 5_000, 10_000, 5
SERVE = """
import resource, socket, sys
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
sockets = []
for port in range(int(sys.argv[1]), int(sys.argv[2])):
    s = socket.socket()
    try:
        s.bind(("127.0.0.1", port))
        s.listen(1)
        sockets.append(s)
    except OSError:
        pass
print(len(sockets), flush=True)
sys.stdin.read()
"""


def run() -> None:
    from allocations import listeners
    from allocations.ports import PortManager

    allocator.ranges(1, ALLOCATIONS, ALLOCATIONS)  # 4000 to 13999
    share = LISTENERS // PROCESSES
    with ExitStack() as stack:
        total = 0
        for n in range(PROCESSES):
            child = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", SERVE, str(4000 + n * share), str(4000 + (n + 1) * share)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            assert child.stdout is not None
            total += int(child.stdout.readline())
        manager = PortManager(actor="bench")
        parts: dict[str, list[float]] = {"ss": [], "probing": [], "owners": [], "unrecorded": [], "audit": []}
        for _ in range(ROUNDS):
            parts["ss"].append(seconds(lambda: subprocess.run(["ss", "-tlnH"], stdout=subprocess.DEVNULL, check=True)))
            parts["probing"].append(seconds(functools.partial(listeners.listening, processes=False)))
            parts["owners"].append(seconds(listeners.listening))
            parts["unrecorded"].append(seconds(lambda: manager.audit(record=False)))
            parts["audit"].append(seconds(manager.audit))
        medians = {name: statistics.median(times) for name, times in parts.items()}
        ms = {name: f"{value * 1000:.0f} ms" for name, value in medians.items()}
        line(
            f"audit: seeing {total} listeners against ss -tlnH",
            medians["probing"] / medians["ss"],
            "<= 3",
            f"{ms['probing']} against {ms['ss']}",
        )
        print(
            f"    the rest: owners +{(medians['owners'] - medians['probing']) * 1000:.0f} ms, reading and comparing "
            f"{ALLOCATIONS} allocations +{(medians['unrecorded'] - medians['owners']) * 1000:.0f} ms, recording "
            f"+{(medians['audit'] - medians['unrecorded']) * 1000:.0f} ms; the whole {ms['audit']}"
        )
        ((up,),) = sql("SELECT count(*) FROM port_allocations WHERE health = 'up'")
        assert int(str(up)) >= total - 50, (up, total)
