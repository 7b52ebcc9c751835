"""Probes for supervisors and load balancers: yes or no, and no detail, because anybody may ask."""

from functools import cache

from django.contrib.auth.decorators import login_not_required
from django.db import Error, connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe


@login_not_required
@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    """Answer 200: the process lives."""
    return HttpResponse("ok\n", content_type="text/plain")


@login_not_required
@require_safe
def readyz(request: HttpRequest) -> HttpResponse:
    """Answer 200 if the database answers and has every migration of this code, else 503."""
    try:
        ready = newest_migrations() <= set(MigrationRecorder(connection).applied_migrations())
    except Error:
        ready = False
    if ready:
        return HttpResponse("ready\n", content_type="text/plain")
    return HttpResponse("not ready\n", status=503, content_type="text/plain", headers={"Retry-After": "5"})


@cache  # the files of a running process do not change, and reading them takes 50 ms
def newest_migrations() -> frozenset[tuple[str, str]]:
    """Return (app, name) of the last migration of each app."""
    return frozenset(MigrationLoader(None).graph.leaf_nodes())
