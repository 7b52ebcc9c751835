"""Compare allocate_port with plain single-row inserts into the same table on the same server."""

from __future__ import annotations

import itertools

from .harness import interleaved, line, pgbench, sql

RUNS = itertools.count(1)

ALLOCATE = """
\\set i :i + 1
\\set n (:client_id * :per + :i) % {ranges}
SELECT port_number FROM bench_keys k, allocate_port(k.project, k.range, 's' || :client_id || '-' || :i, '')
 WHERE k.n = :n;
"""
# The port is calculated from the number of the client, so that no two inserts collide.
INSERT = """
\\set i :i + 1
\\set m :client_id * :per + :i
\\set n :m % {ranges}
\\set offset {held} + :m / {ranges}
INSERT INTO port_allocations (project_id, port_range_id, port_number, service_name)
SELECT k.project, k.range, k.first + :offset, 's' || :client_id || '-' || :i FROM bench_keys k WHERE k.n = :n;
"""


def make_room() -> None:
    """Release everything, and shrink all ranges to one port below 4000. Ranges with a history cannot be deleted."""
    sql("UPDATE port_allocations SET status = 'released' WHERE status <> 'released'")
    for n, (pk,) in enumerate(sql("SELECT id FROM port_ranges ORDER BY start_port"), start=1):
        sql("UPDATE port_ranges SET start_port = %s, end_port = %s WHERE id = %s", n, n, pk)


def ranges(count: int, size: int, held: int) -> None:
    """Create `count` projects with a range of `size` ports each, of which the first `held` are allocated."""
    sql("DROP TABLE IF EXISTS bench_keys")
    make_room()
    tag = f"bench{next(RUNS)}"
    sql("INSERT INTO projects (name) SELECT %s || '-' || g FROM generate_series(1, %s) g", tag, count)
    sql(
        "INSERT INTO port_ranges (project_id, range_name, start_port, end_port) "
        "SELECT id, name, 4000 + %s * (n - 1), 3999 + %s * n "
        "FROM (SELECT *, row_number() OVER (ORDER BY name) AS n FROM projects WHERE name LIKE %s || '-%%') numbered",
        *(size, size, tag),
    )
    sql(
        "CREATE TABLE bench_keys AS SELECT row_number() OVER (ORDER BY start_port) - 1 AS n, project_id AS project, "
        "id AS range, start_port AS first FROM port_ranges WHERE range_name LIKE %s || '-%%'",
        tag,
    )
    sql("ALTER TABLE bench_keys ADD PRIMARY KEY (n)")
    sql(
        "INSERT INTO port_allocations (project_id, port_range_id, port_number, service_name) "
        "SELECT project, range, first + g, 'held-' || g FROM bench_keys, generate_series(0, %s) g",
        held - 1,
    )


CLEAN = (
    "UPDATE port_allocations SET status = 'released' WHERE status <> 'released' AND service_name LIKE 's%'",
    "VACUUM ANALYZE port_allocations",
)


def clean() -> None:
    """Release the allocations of a round, and remove the dead index entries that it left."""
    for statement in CLEAN:
        sql(statement)


def compare(what: str, goal: str, count: int, size: int, held: int, clients: int, each: int) -> None:
    scripts = {
        "allocate": ALLOCATE.format(ranges=count),
        "insert": INSERT.format(ranges=count, held=held),
    }
    rates = interleaved(
        {n: lambda s=s: pgbench(s, clients=clients, transactions=each) for n, s in scripts.items()},  # type: ignore[misc]
        clean,
    )
    rate, plain = rates["allocate"], rates["insert"]
    line(f"{what}, {clients} clients", rate / plain, goal, f"{rate:.0f}/s against {plain:.0f}/s")


def run() -> None:
    for clients, each in ((1, 400), (8, 55), (32, 14)):
        ranges(1, 1000, 500)
        compare("one range of 1,000, half full", ">= 0.6", 1, 1000, 500, clients, each)
    for clients, each in ((1, 1500), (8, 300), (32, 75)):
        ranges(100, 500, 50)
        compare("100 ranges of 500, a tenth full", ">= 0.8", 100, 500, 50, clients, each)
    ranges(1, 60000, 59400)
    compare("one range of 60,000, 99 % full", "", 1, 60000, 59400, 8, 30)
