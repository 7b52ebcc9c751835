"""Run one process of a race: `python -m tests.ports.racer`, with its jobs as JSON on standard input.

The process prints `ready` when each of its threads is connected, waits for a line, runs its jobs and prints one JSON
object for each. See test_concurrency.py.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from threading import Barrier, Thread
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

import django

django.setup()

from django.db import connection  # noqa: E402

from allocations.errors import PortError  # noqa: E402
from allocations.models import PortRange  # noqa: E402
from allocations.ports import PortManager, projects, ranges  # noqa: E402

ports = PortManager(actor=f"racer-{os.getpid()}", source="race")
PAUSE = 0.005  # seconds between the query and the write of a naive job


def allocate(project: str, service: str) -> int:
    return ports.allocate(project, service).port_number


def get_or_allocate(project: str, service: str) -> int:
    return ports.get_or_allocate(project, service).port_number


def allocate_many(project: str, services: list[str]) -> list[int]:
    return [a.port_number for a in ports.allocate_many(project, services)]


def resize(name: str, end: int) -> int:
    return ranges.update(ports.context, PortRange.objects.get(range_name=name).pk, end_port=end).end_port


def add_project(name: str) -> int:
    return projects.add(ports.context, name).ranges.get().start_port


def release(project: str, service: str) -> int:
    return ports.release(project, service)[0].port_number


def allocate_and_die(project: str, service: str) -> None:
    """Allocate a port and kill this process before it commits."""
    from django.db import transaction

    with transaction.atomic():
        print(json.dumps({"taken": ports.allocate(project, service).port_number}), flush=True)
        os.kill(os.getpid(), 9)


# Deliberately naive jobs: they query and then write, in tables without constraints. The race tests must see them fail.


def naive_allocate(first: int, service: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT coalesce(max(port) + 1, %s) FROM naive_ports", [first])
        port: int = cursor.fetchone()[0]
        time.sleep(PAUSE)
        cursor.execute("INSERT INTO naive_ports (port, service) VALUES (%s, %s)", [port, service])
    return port


def naive_get_or_allocate(first: int, service: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT port FROM naive_ports WHERE service = %s", [service])
        if row := cursor.fetchone():
            return int(row[0])
    return naive_allocate(first, service)


def naive_tighten(first: int) -> int:
    """Shrink the range to the ports that a query sees, then grow it again. Return how many ports were outside."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT coalesce(max(port), %s) FROM naive_ports", [first])
        last = cursor.fetchone()[0]
        time.sleep(PAUSE)
        cursor.execute("UPDATE naive_range SET last = %s", [last])
        cursor.execute("SELECT count(*) FROM naive_ports, naive_range WHERE port > last")
        outside: int = cursor.fetchone()[0]
        cursor.execute("UPDATE naive_range SET last = %s", [first + 199])
    return outside


def naive_allocate_inside(first: int, service: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT last FROM naive_range")
        last = cursor.fetchone()[0]
        cursor.execute("SELECT count(*) FROM naive_ports")
        port = first + cursor.fetchone()[0]
        time.sleep(PAUSE)
        if port <= last:
            cursor.execute("INSERT INTO naive_ports (port, service) VALUES (%s, %s)", [port, service])
    return port


JOBS: dict[str, Callable[..., Any]] = {
    f.__name__: f
    for f in (
        *(add_project, allocate, get_or_allocate, allocate_many, resize, release, allocate_and_die),
        *(naive_allocate, naive_get_or_allocate, naive_tighten, naive_allocate_inside),
    )
}


def run_job(name: str, *arguments: Any) -> dict[str, Any]:
    try:
        return {"value": JOBS[name](*arguments)}
    except PortError as error:
        return {"code": error.code, "message": error.sentence}


def run_jobs(jobs: list[list[Any]], begin: Barrier) -> None:
    """Run the jobs over this thread's own connection. All threads connect before any of them starts."""
    connection.ensure_connection()
    begin.wait()
    begin.wait()
    for job in jobs:
        sys.stdout.write(json.dumps(run_job(*job)) + "\n")  # print() could interleave
        sys.stdout.flush()
    connection.close()


def main() -> None:
    work = json.loads(sys.stdin.readline())
    connection.settings_dict["NAME"] = work["database"]
    jobs, count = work["jobs"], work.get("threads", 1)
    begin = Barrier(count + 1)
    threads = [Thread(target=run_jobs, args=(jobs[n::count], begin)) for n in range(count)]
    for thread in threads:
        thread.start()
    begin.wait()
    print("ready", flush=True)
    sys.stdin.readline()
    begin.wait()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
