"""Health checks for supervisors and load balancers.

They need no login, and therefore answer only yes or no, without any details.
"""

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
    """Return 200 if the process is running."""
    return HttpResponse("ok\n", content_type="text/plain")


@login_not_required
@require_safe
def readyz(request: HttpRequest) -> HttpResponse:
    """Return 200 if the database is available, fully migrated and not read-only, as a standby is, and 503 otherwise."""
    try:
        ready = newest_migrations() <= set(MigrationRecorder(connection).applied_migrations()) and is_writable()
    except Error:
        ready = False
    if ready:
        return HttpResponse("ready\n", content_type="text/plain")
    return HttpResponse("not ready\n", status=503, content_type="text/plain", headers={"Retry-After": "5"})


def is_writable() -> bool:
    """Return whether the database takes changes."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('transaction_read_only')")
        (value,) = cursor.fetchone()
    return bool(value == "off")


@cache  # reading the files takes 50 ms, and they do not change while the process is running
def newest_migrations() -> frozenset[tuple[str, str]]:
    """Return the (app, name) of the latest migration of each app."""
    return frozenset(MigrationLoader(None).graph.leaf_nodes())
