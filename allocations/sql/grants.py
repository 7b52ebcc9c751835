"""What the application may do in the database: exactly what Portal needs while it is running.

It can change neither the tables and triggers nor the history. Triggers write the history, as the owner; see
`record_event` in schema.sql.
"""

from __future__ import annotations

from typing import LiteralString

from django.db import connection, transaction
from psycopg.sql import SQL, Identifier

READ, KEEP, EDIT = "SELECT", "SELECT, INSERT, UPDATE", "SELECT, INSERT, UPDATE, DELETE"
# The rights in each table. A table that is not here can't be used while Portal is running.
GRANTS: dict[str, LiteralString] = {
    "projects": EDIT,
    "port_ranges": EDIT,
    "port_allocations": KEEP,
    "reservations": KEEP,
    "events": READ,
    "audits": EDIT,
    "port_health_checks": EDIT,
    "quiet_audits": EDIT,
    "listeners": EDIT,
    "hosts": "SELECT, INSERT, DELETE",
    "api_tokens": EDIT,
    "api_token_projects": "SELECT, INSERT, DELETE",
    "user_limits": EDIT,
    "user_limit_projects": EDIT,
    "idempotent_answers": EDIT,
    "rate_limits": EDIT,
    # Django and django-axes
    "auth_user": EDIT,
    "auth_user_groups": EDIT,
    "auth_user_user_permissions": EDIT,
    "auth_group": EDIT,
    "auth_group_permissions": EDIT,
    "auth_permission": READ,
    "django_content_type": READ,
    "django_migrations": READ,
    "django_admin_log": "SELECT, INSERT, DELETE",  # deleted with its user
    "django_session": EDIT,
    "axes_accessattempt": EDIT,
    "axes_accessattemptexpiration": EDIT,
    "axes_accessfailurelog": EDIT,
    "axes_accesslog": EDIT,
}


def apply_grants(role: str) -> None:
    """Give a role these rights in every table that exists, and take all others away.

    Args:
        role: the role that serves Portal. The current role must own the tables.
    """
    name = Identifier(role)
    with transaction.atomic(), connection.cursor() as cursor:  # so that a server that is running loses no right
        for table in connection.introspection.table_names(cursor):
            cursor.execute(SQL("REVOKE ALL ON {} FROM {}").format(Identifier(table), name))
            if table in GRANTS:
                rights = SQL(GRANTS[table])
                cursor.execute(SQL("GRANT {} ON {} TO {}").format(rights, Identifier(table), name))
        # A temporary table could take the place of a real one.
        cursor.execute(
            "SELECT datname FROM pg_database WHERE datname = current_database() AND pg_has_role(datdba, 'MEMBER')"
        )
        for (database,) in cursor.fetchall():
            cursor.execute(SQL("REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC").format(Identifier(database)))
