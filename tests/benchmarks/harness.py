"""A temporary Portal to measure, pgbench, and medians of interleaved rounds."""

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
    """Provide an empty, migrated Portal with its own embedded PostgreSQL server, and remove it afterwards."""
    # In /var/tmp, because root runs the server as another account, which must be able to enter the directory.
    home = Path(tempfile.mkdtemp(prefix="portal-bench-", dir="/var/tmp"))
    try:
        with portal_in(home):
            yield
    finally:
        shutil.rmtree(home)


@contextmanager
def portal_in(home: Path) -> Iterator[None]:
    """Provide a migrated Portal in a directory, and stop its PostgreSQL server afterwards."""
    os.environ |= {"PORTAL_HOME": str(home), "DATABASE_URL": "", "DJANGO_SETTINGS_MODULE": "portal.settings"}
    import django

    django.setup()
    logging.disable()
    from django.core.management import call_command

    from portal.database import as_owner
    from portal.embedded.server import Server

    try:
        with as_owner():
            call_command("migrate", verbosity=0)
            sql("SET statement_timeout = 0")  # inserting a million rows takes a while
            yield
    finally:
        Server(home).stop()


def sql(text: str, *values: object) -> list[tuple[object, ...]]:
    """Run one statement, and return its rows."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(text, values or None)
        return list(cursor.fetchall()) if cursor.description else []


def pgbench(script: str, *, clients: int, transactions: int) -> float:
    """Run a pgbench script with prepared statements, and return the transactions per second.

    Args:
        script: the script of one transaction.
        clients: the number of concurrent clients.
        transactions: how often each client runs the script.
    """
    from django.db import connection

    from portal.embedded.server import bin_dir

    database = connection.settings_dict
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(script)
        file.flush()
        done = subprocess.run(
            [
                *(str(bin_dir() / "pgbench"), "--no-vacuum", "--protocol=prepared", "--max-tries=1"),
                *(f"--client={clients}", f"--jobs={min(clients, 2)}", f"--transactions={transactions}"),
                *("--define=i=0", f"--define=per={transactions}", f"--file={file.name}"),
                *(
                    "-h",
                    str(database["HOST"]),
                    "-p",
                    str(database["PORT"]),
                    "-U",
                    str(database["USER"]),
                    str(database["NAME"]),
                ),
            ],
            capture_output=True,
            text=True,
        )
    rate = re.search(r"tps = ([0-9.]+) \(without", done.stdout)
    if done.returncode or not rate:
        sys.exit(done.stderr)
    return float(rate[1])


def interleaved(arms: dict[str, Callable[[], float]], between: Callable[[], object]) -> dict[str, float]:
    """Return the median of each arm over rounds in which they take turns. `between` runs before each measurement."""
    figures: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(ROUNDS):
        for name, arm in arms.items():
            between()
            figures[name].append(arm())
    return {name: statistics.median(values) for name, values in figures.items()}


def seconds(work: Callable[[], object], times: int = 1) -> float:
    """Return how many seconds `work` takes on average."""
    started_at = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - started_at) / times


def line(what: str, ratio: float, goal: str, detail: str) -> None:
    """Print one result."""
    print(f"{what:58} {ratio:6.2f}   goal {goal:9} {detail}", flush=True)
