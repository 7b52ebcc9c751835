"""PortManager against the bare function on the same connection, and the price of a long history."""

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
    found = interleaved(
        {w.__name__: lambda w=w: seconds(w, EACH) for w in (bare, managed, again)},  # type: ignore[misc]
        allocator.clean,
    )
    detail = f"{found['managed'] * 1000:.2f} ms against {found['bare'] * 1000:.2f} ms"
    line("PortManager.allocate against the function", found["bare"] / found["managed"], ">= 0.5", detail)
    detail = f"{found['again'] * 1000:.2f} ms"
    line("get_or_allocate of a known service against the function", found["bare"] / found["again"], "", detail)
    history(str(project), str(port_range), number)


def history(project: str, port_range: str, number: itertools.count[int]) -> None:
    """What a million released rows cost: two databases, alike but for their history, take turns."""
    released(project, port_range, 1_000)
    with copied("young") as young, database("portal") as old:
        released(project, port_range, 1_000_000)

        def one(session: psycopg.Connection[Any]) -> None:
            given = (project, port_range, f"s{next(number)}")
            session.execute("SELECT * FROM allocate_port(%s, %s, %s, '')", given)

        def clean() -> None:
            for session in (young, old):
                for statement in allocator.CLEAN:
                    session.execute(statement)

        arms = {"young": young, "old": old}
        found = interleaved({n: lambda s=s: seconds(lambda: one(s), EACH) for n, s in arms.items()}, clean)  # type: ignore[misc]
    line(
        "cost at 1,000,000 released rows against 1,000",
        found["old"] / found["young"],
        "<= 1.2",
        f"{found['old'] * 1000:.2f} ms against {found['young'] * 1000:.2f} ms",
    )


@contextmanager
def database(name: str) -> Iterator[psycopg.Connection[Any]]:
    """A session on a database of the server."""
    from django.db import connection

    given = connection.settings_dict
    place = {"host": given["HOST"], "port": given["PORT"], "user": given["USER"]}
    with psycopg.connect(dbname=name, autocommit=True, **place) as session:
        yield session


@contextmanager
def copied(name: str) -> Iterator[psycopg.Connection[Any]]:
    """A session on a copy of the database as it is now."""
    from django.db import connection

    connection.close()  # a template has no sessions
    with database("postgres") as session:
        session.execute(f"CREATE DATABASE {name} TEMPLATE portal")
        with database(name) as copy:
            yield copy
        session.execute(f"DROP DATABASE {name}")


def released(project: str, port_range: str, rows: int) -> None:
    """Bring the history to so many released rows: born held in real life, so the guards look away here."""
    sql("SET statement_timeout = 0")  # a million rows take their time
    ((there,),) = sql("SELECT count(*) FROM port_allocations WHERE status = 'released'")
    sql("ALTER TABLE port_allocations DISABLE TRIGGER USER")
    sql(
        "INSERT INTO port_allocations (project_id, port_range_id, port_number, service_name, status, released_at) "
        "SELECT %s, %s, 4000 + g %% 1000, 'old-' || g %% 5000, 'released', now() FROM generate_series(1, %s) g",
        *(project, port_range, max(0, rows - int(str(there)))),
    )
    for trigger in ("guard", "event_insert", "event_update", "no_truncate"):
        sql(f"ALTER TABLE port_allocations ENABLE ALWAYS TRIGGER port_allocations_{trigger}")
    sql("VACUUM ANALYZE port_allocations")
