"""Statements that look up the rights of people and tokens."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db import connection


def user_rights(user: int) -> dict[str, Any]:
    """Return a person's groups, whether they are limited to projects, and to which."""
    return _one(
        """
        SELECT ARRAY(SELECT g.name FROM auth_user_groups m JOIN auth_group g ON g.id = m.group_id
                      WHERE m.user_id = %s) AS groups,
               EXISTS (SELECT FROM user_limits l WHERE l.user_id = %s) AS is_limited,
               ARRAY(SELECT p.project_id FROM user_limit_projects p WHERE p.userlimit_id = %s) AS projects
        """,
        (user, user, user),
    ) or {"groups": [], "is_limited": True, "projects": []}


def token_rights(public_id: str) -> dict[str, Any] | None:
    """Return a valid token with its rights and those of its user, or None, in one statement.

    A token without a user or of a superuser is unbound: no groups and no limit of a user restrict it.
    """
    return _one(
        """
        SELECT t.id, t.secret_hash, t.name, t.role, t.is_limited, t.user_id, u.username,
               coalesce(u.is_superuser, true) AS is_unbound,
               t.last_used_at IS NULL OR t.last_used_at < statement_timestamp() - interval '1 minute' AS is_use_due,
               ARRAY(SELECT p.project_id FROM api_token_projects p WHERE p.token_id = t.id) AS projects,
               ARRAY(SELECT g.name FROM auth_user_groups m JOIN auth_group g ON g.id = m.group_id
                      WHERE m.user_id = t.user_id) AS groups,
               EXISTS (SELECT FROM user_limits l WHERE l.user_id = t.user_id) AS is_user_limited,
               ARRAY(SELECT p.project_id FROM user_limit_projects p WHERE p.userlimit_id = t.user_id) AS user_projects
          FROM api_tokens t LEFT JOIN auth_user u ON u.id = t.user_id
         WHERE t.public_id = %s AND t.revoked_at IS NULL AND t.expires_at > statement_timestamp()
           AND u.is_active IS NOT FALSE
        """,
        (public_id,),
    )


def record_token_use(token: UUID) -> None:
    """Record that a token was used. Once a minute is enough, so that a busy token does not cost a write per request."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE api_tokens SET last_used_at = statement_timestamp() WHERE id = %s", (token,))


def _one(query: str, values: tuple[Any, ...]) -> dict[str, Any] | None:
    """Return the only row of a query as a dictionary, or None if there is none."""
    with connection.cursor() as cursor:
        cursor.execute(query, values)
        row = cursor.fetchone()
        return None if row is None else dict(zip((c.name for c in cursor.description), row, strict=True))
