"""Fill a Portal with as many projects, services and past services as a large fleet has.

`make bench-fill` makes one in a directory of its own, which `PORTAL_HOME=DIRECTORY make up` serves.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from .harness import portal_in, sql

FIRST, LAST = 4000, 63999
BATCH = 50_000  # rows in each statement


def fill(projects: int, held: int, released: int) -> None:
    """Add projects with one range each, services on as many hosts as are needed, and services that are gone.

    Args:
        projects: at most 60,000; the ports are shared out equally.
        held: the number of ports that are held.
        released: the number of rows of services that have been released.
    """
    size = (LAST - FIRST + 1) // projects
    hosts = -(-held // (size * projects))
    sql("INSERT INTO projects (name) SELECT 'fleet-' || g FROM generate_series(0, %s) g", projects - 1)
    sql(
        "INSERT INTO port_ranges (project_id, range_name, start_port, end_port) "
        "SELECT id, name, %s + n * %s, %s + n * %s - 1 "
        "FROM (SELECT id, name, substr(name, 7)::int AS n FROM projects WHERE name LIKE 'fleet-%%') p",
        *(FIRST, size, FIRST + size, size),
    )
    sql(
        "CREATE TEMPORARY TABLE fleet AS SELECT substr(range_name, 7)::int AS n, id AS range, project_id AS project, "
        "start_port FROM port_ranges WHERE range_name LIKE 'fleet-%%'"
    )
    sql("CREATE UNIQUE INDEX ON fleet (n)")
    sql("ANALYZE fleet")
    _rows("released", released, size, projects, hosts)
    _rows("held", held, size, projects, hosts)
    sql("VACUUM ANALYZE")


def _rows(what: str, count: int, size: int, projects: int, hosts: int) -> None:
    """Insert rows whose number says which port of which project on which host each is about."""
    for start in range(0, count, BATCH):
        end = min(start + BATCH, count) - 1
        sql(
            "INSERT INTO port_allocations (project_id, port_range_id, port_number, service_name, hostname, health) "
            f"SELECT project, range, start_port + (g / {projects}) %% {size}, 'service-' || g / {projects}, "
            f"CASE WHEN g < {projects * size} THEN 'localhost' ELSE 'host-' || g / {projects * size} %% {hosts} END, "
            f"(ARRAY['up', 'down'])[1 + (g %% 20 = 0)::int] "
            f"FROM generate_series(%s::bigint, %s::bigint) g JOIN fleet ON n = g %% {projects}",
            *(start, end),
        )
        if what == "released":
            sql("UPDATE port_allocations SET status = 'released' WHERE status <> 'released'")
        print(f"{what}: {end + 1:,} of {count:,}", file=sys.stderr, end="\r")
    print(file=sys.stderr)


def main() -> None:
    """Fill the Portal of a directory, which must not have one yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path, help="the PORTAL_HOME of the new Portal")
    parser.add_argument("--projects", type=int, default=10_000)
    parser.add_argument("--held", type=int, default=1_000_000)
    parser.add_argument("--released", type=int, default=1_000_000)
    options = parser.parse_args()
    if options.directory.exists():
        sys.exit(f"{options.directory} exists. Name a directory that does not.")
    started_at = time.monotonic()
    with portal_in(options.directory):
        fill(options.projects, options.held, options.released)
    print(f"Filled in {time.monotonic() - started_at:.0f} s. Serve it with: PORTAL_HOME={options.directory} make up")


if __name__ == "__main__":
    main()
