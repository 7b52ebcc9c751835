"""Measure the home page with 1,000 projects and 100,000 allocations."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from . import allocator
from .harness import ROUNDS, line, seconds, sql


def run() -> None:
    from django.contrib.auth.models import User
    from django.test import Client
    from django.test.utils import override_settings

    client = Client(headers={"host": "localhost"})
    client.force_login(User.objects.create_superuser("bench", password="bench"))
    plain = {"staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}}
    with override_settings(STORAGES=plain, MIDDLEWARE=_without_static_files()):
        allocator.ranges(100, 100, 10)
        sql("VACUUM ANALYZE")
        small = cost(client)
        fill()
        large = cost(client)
        queries = count(client)
    ((projects, held),) = sql(
        "SELECT (SELECT count(*) FROM projects), (SELECT count(*) FROM port_allocations WHERE status <> 'released')"
    )
    line(
        f"home page, {projects} projects, {held} allocations, against 1,000",
        large / small,
        "",
        f"{large * 1000:.0f} ms against {small * 1000:.0f} ms on the server, {queries} queries",
    )


def _without_static_files() -> list[str]:
    """Return the middleware without that for static files, which the benchmark neither collects nor requests."""
    from django.conf import settings

    return [name for name in settings.MIDDLEWARE if "StaticFiles" not in name]


def fill() -> None:
    """Create 100,000 allocations on 60,000 ports, some of them on a second host, and 400 projects without ports."""
    allocator.ranges(600, 100, 0)
    sql("INSERT INTO projects (name) SELECT 'more-' || g FROM generate_series(1, 400) g")
    for host, count in (("localhost", 100), ("web-1", 67)):
        sql(
            "INSERT INTO port_allocations (project_id, port_range_id, port_number, service_name, hostname, health) "
            "SELECT project, range, first + g, 'held-' || g, %s, (ARRAY['up', 'down'])[1 + g %% 2] "
            "FROM bench_keys, generate_series(0, %s) g",
            *(host, count - 1),
        )
    sql("VACUUM ANALYZE")


def cost(client: Any) -> float:
    """Return how many seconds the server takes to render the page."""
    assert b"held" in client.get("/").content
    return statistics.median(seconds(lambda: client.get("/")) for _ in range(ROUNDS))


def count(client: Any) -> int:
    """Return the number of queries of the page."""
    from django.db import connection

    queries: list[str] = []

    def counted(execute: Callable[..., Any], text: str, values: Any, many: bool, context: Any) -> Any:
        queries.append(text)
        return execute(text, values, many, context)

    with connection.execute_wrapper(counted):
        client.get("/")
    return len(queries)
