"""Health checks for supervisors and load balancers.

They need no login, and therefore answer only yes or no, without any details.
"""

from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from functools import cache

from django.contrib.auth.decorators import login_not_required
from django.db import Error, OperationalError, connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from portal.postgresql.base import release_session

MOST_SECONDS = 1.5
READ_ONLY = "session is read-only"


@login_not_required
@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    """Return 200 if the process is running."""
    return HttpResponse("ok\n", content_type="text/plain")


@login_not_required
@require_safe
def readyz(request: HttpRequest) -> HttpResponse:
    """Return 200 if the database is available, fully migrated and not read-only, as a standby is, and 503 otherwise.

    A database that hangs does not keep a load balancer waiting.
    """
    check = _checks().submit(is_ready)
    try:
        ready = check.result(MOST_SECONDS)
    except FutureTimeout:
        check.cancel()  # if it has not begun, because earlier ones hang
        ready = False
    if ready:
        return HttpResponse("ready\n", content_type="text/plain")
    return HttpResponse("not ready\n", status=503, content_type="text/plain", headers={"Retry-After": "5"})


@cache  # not at import, because a worker is forked afterwards
def _checks() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(4, "readyz")


def is_ready() -> bool:
    """Return whether the database is available, fully migrated and not read-only. It may take as long as its limits."""
    try:
        applied = set(MigrationRecorder(connection).applied_migrations())
        return newest_migrations() <= applied and is_writable()
    except Error:
        return False
    finally:
        release_session()


def is_writable() -> bool:
    """Return whether the database takes changes.

    Raises:
        Error: it cannot be reached.
    """
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('transaction_read_only')")
            (value,) = cursor.fetchone()
    except OperationalError as error:
        if READ_ONLY in str(error):  # so libpq reports that none of several hosts takes changes
            return False
        raise
    return bool(value == "off")


@cache  # reading the files takes 50 ms, and they do not change while the process is running
def newest_migrations() -> frozenset[tuple[str, str]]:
    """Return the (app, name) of the latest migration of each app."""
    return frozenset(MigrationLoader(None).graph.leaf_nodes())
