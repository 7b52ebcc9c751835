"""Compare PortManager with the SQL function on the same connection, and measure the cost of a long history."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from . import allocator
from .harness import interleaved, line, seconds, sql

EACH = 150


def run() -> None:
    from allocations.ports import PortManager

    allocator.ranges(1, 1000, 100)
    ((project, port_range, name),) = sql(
        "SELECT k.project::text, k.range::text, p.name FROM bench_keys k JOIN projects p ON p.id = k.project"
    )
    ports, number = PortManager(actor="bench"), itertools.count()

    def bare() -> None:
        sql("SELECT * FROM allocate_port(%s, %s, %s, '')", project, port_range, f"s{next(number)}")

    def managed() -> None:
        ports.allocate(str(name), f"s{next(number)}")

    def again() -> None:
        ports.get_or_allocate(str(name), "known")

    ports.get_or_allocate(str(name), "known")
    medians = interleaved(
        {w.__name__: lambda w=w: seconds(w, EACH) for w in (bare, managed, again)},  # type: ignore[misc]
        allocator.clean,
    )
    detail = f"{medians['managed'] * 1000:.2f} ms against {medians['bare'] * 1000:.2f} ms"
    line("PortManager.allocate against the function", medians["bare"] / medians["managed"], ">= 0.5", detail)
    detail = f"{medians['again'] * 1000:.2f} ms"
    line("get_or_allocate of a known service against the function", medians["bare"] / medians["again"], "", detail)
    history(str(project), str(port_range), number)


def history(project: str, port_range: str, number: itertools.count[int]) -> None:
    """Measure the cost of a million released rows, with two databases that differ only in their history."""
    released(project, port_range, 1_000)
    with copied("young") as young, database("portal") as old:
        released(project, port_range, 1_000_000)

        def one(session: psycopg.Connection[Any]) -> None:
            arguments = (project, port_range, f"s{next(number)}")
            session.execute("SELECT * FROM allocate_port(%s, %s, %s, '')", arguments)

        def clean() -> None:
            for session in (young, old):
                for statement in allocator.CLEAN:
                    session.execute(statement)

        arms = {"young": young, "old": old}
        medians = interleaved({n: lambda s=s: seconds(lambda: one(s), EACH) for n, s in arms.items()}, clean)  # type: ignore[misc]
    line(
        "cost at 1,000,000 released rows against 1,000",
        medians["old"] / medians["young"],
        "<= 1.2",
        f"{medians['old'] * 1000:.2f} ms against {medians['young'] * 1000:.2f} ms",
    )


@contextmanager
def database(name: str) -> Iterator[psycopg.Connection[Any]]:
    """Connect to a database of the server."""
    from django.db import connection

    server = connection.settings_dict
    address = {"host": server["HOST"], "port": server["PORT"], "user": server["USER"]}
    with psycopg.connect(dbname=name, autocommit=True, **address) as session:
        yield session


@contextmanager
def copied(name: str) -> Iterator[psycopg.Connection[Any]]:
    """Copy the database, and connect to the copy."""
    from django.db import connection

    connection.close()  # a template must not have sessions
    with database("postgres") as session:
        session.execute(f"CREATE DATABASE {name} TEMPLATE portal")
        with database(name) as copy:
            yield copy
        session.execute(f"DROP DATABASE {name}")


def released(project: str, port_range: str, rows: int) -> None:
    """Extend the history to `rows` released rows, without the triggers, which refuse to insert released rows."""
    sql("SET statement_timeout = 0")  # inserting a million rows takes a while
    ((count,),) = sql("SELECT count(*) FROM port_allocations WHERE status = 'released'")
    sql("ALTER TABLE port_allocations DISABLE TRIGGER USER")
    sql(
        "INSERT INTO port_allocations (project_id, port_range_id, port_number, service_name, status, released_at) "
        "SELECT %s, %s, 4000 + g %% 1000, 'old-' || g %% 5000, 'released', now() FROM generate_series(1, %s) g",
        *(project, port_range, max(0, rows - int(str(count)))),
    )
    for trigger in ("guard", "event_insert", "event_update", "no_truncate"):
        sql(f"ALTER TABLE port_allocations ENABLE ALWAYS TRIGGER port_allocations_{trigger}")
    sql("VACUUM ANALYZE port_allocations")
