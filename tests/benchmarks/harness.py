"""A Portal of its own to measure on, pgbench, and medians of interleaved rounds."""

from __future__ import annotations

import logging
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROUNDS = 5


@contextmanager
def scratch_portal() -> Iterator[None]:
    """A migrated, empty Portal on an embedded PostgreSQL of its own; nothing of it is left."""
    # /var/tmp: as root the server runs as `nobody`, who must be able to reach it.
    home = Path(tempfile.mkdtemp(prefix="portal-bench-", dir="/var/tmp"))
    os.environ |= {"PORTAL_HOME": str(home), "DATABASE_URL": "", "DJANGO_SETTINGS_MODULE": "portal.settings"}
    import django

    django.setup()
    logging.disable()
    from django.core.management import call_command

    from portal.embedded.server import Server

    try:
        call_command("migrate", verbosity=0)
        sql("SET statement_timeout = 0")  # a million rows take their time
        yield
    finally:
        Server(home).stop()
        shutil.rmtree(home)


def sql(text: str, *values: object) -> list[tuple[object, ...]]:
    """Run one statement."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(text, values or None)
        return list(cursor.fetchall()) if cursor.description else []


def pgbench(script: str, *, clients: int, transactions: int) -> float:
    """Transactions per second of a pgbench script, run so often by each client over prepared statements."""
    from django.db import connection

    from portal.embedded.server import bin_dir

    given = connection.settings_dict
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(script)
        file.flush()
        done = subprocess.run(
            [
                *(str(bin_dir() / "pgbench"), "--no-vacuum", "--protocol=prepared", "--max-tries=1"),
                *(f"--client={clients}", f"--jobs={min(clients, 2)}", f"--transactions={transactions}"),
                *("--define=i=0", f"--define=per={transactions}", f"--file={file.name}"),
                *("-h", str(given["HOST"]), "-p", str(given["PORT"]), "-U", str(given["USER"]), str(given["NAME"])),
            ],
            capture_output=True,
            text=True,
        )
    found = re.search(r"tps = ([0-9.]+) \(without", done.stdout)
    if done.returncode or not found:
        sys.exit(done.stderr)
    return float(found[1])


def interleaved(arms: dict[str, Callable[[], float]], between: Callable[[], object]) -> dict[str, float]:
    """The median of each arm over rounds in which they take turns; `between` puts everything back."""
    figures: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(ROUNDS):
        for name, arm in arms.items():
            between()
            figures[name].append(arm())
    return {name: statistics.median(found) for name, found in figures.items()}


def seconds(work: Callable[[], object], times: int = 1) -> float:
    """How long it takes on average."""
    begun = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - begun) / times


def line(what: str, ratio: float, goal: str, detail: str) -> None:
    """One figure."""
    print(f"{what:58} {ratio:6.2f}   goal {goal:9} {detail}", flush=True)
