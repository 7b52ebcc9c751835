"""Checks of `manage.py check --deploy`."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Tags, Warning, register

from portal.database import application_role


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
