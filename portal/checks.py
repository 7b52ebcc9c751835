"""Checks of `./manage.py check --deploy`."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Tags, Warning, register
from django.db import Error, connection

from portal.database import application_role


@register(Tags.security, deploy=True)
def check_limits(app_configs: Any, **options: Any) -> list[CheckMessage]:
    """Warn if nothing ends a statement that takes too long."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SHOW statement_timeout")
            (limit,) = cursor.fetchone()
    except Error:
        return []  # every command reports that
    if limit != "0":
        return []
    return [
        Warning(
            "The database ends no statement of Portal, however long it takes, because statement_timeout is 0.",
            hint="Run `./manage.py migrate`, which sets the limits of the role that serves, and leave `options` out of "
            "DATABASE_URL.",
            id="portal.W002",
        )
    ]


@register(Tags.security, deploy=True)
def check_roles(app_configs: Any, **options: Any) -> list[CheckMessage]:
    """Warn if the role that serves Portal owns the database."""
    if application_role():
        return []
    return [
        Warning(
            "The role that serves Portal owns the database, so it could change the history and switch the guards off.",
            hint="Create a role that only serves, and name the owner in DATABASE_OWNER_URL; see docs/operations.md.",
            id="portal.W001",
        )
    ]
