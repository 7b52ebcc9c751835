"""The home page with 1,000 projects and 100,000 allocations."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from . import allocator
from .harness import ROUNDS, line, seconds, sql


def run() -> None:
    from django.contrib.auth.models import User
    from django.db import connection
    from django.test import Client
    from django.test.utils import override_settings

    allocator.ranges(600, 100, 0)
    sql("INSERT INTO projects (name) SELECT 'more-' || g FROM generate_series(1, 400) g")
    # 100,000 allocations on the 60,000 ports: some on a second host.
    for host, count in (("localhost", 100), ("web-1", 67)):
        sql(
            "INSERT INTO port_allocations (project_id, port_range_id, port_number, service_name, hostname, health) "
            "SELECT project, range, first + g, 'held-' || g, %s, (ARRAY['up', 'down'])[1 + g %% 2] "
            "FROM bench_keys, generate_series(0, %s) g",
            *(host, count - 1),
        )
    sql("VACUUM ANALYZE")
    ((projects, held),) = sql(
        "SELECT (SELECT count(*) FROM projects), (SELECT count(*) FROM port_allocations WHERE status <> 'released')"
    )
    client = Client(headers={"host": "localhost"})
    client.force_login(User.objects.create_superuser("bench", password="bench"))
    plain = {"staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}}
    with override_settings(STORAGES=plain):
        queries: list[str] = []

        def count(execute: Callable[..., Any], text: str, values: Any, many: bool, context: Any) -> Any:
            queries.append(text)
            return execute(text, values, many, context)

        with connection.execute_wrapper(count):
            found = client.get("/")
        assert b"held" in found.content, found.content[:300]
        took = statistics.median(seconds(lambda: client.get("/")) for _ in range(ROUNDS))
        empty = statistics.median(seconds(lambda: client.get("/?q=no-such-project")) for _ in range(ROUNDS))
    line(
        f"home page, {projects} projects, {held} allocations, against one without cards",
        took / empty,
        "",
        f"{took * 1000:.0f} ms on the server, {len(queries)} queries",
    )
