"""Who asks, what they may, and how often."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.db import connection


def name_actor(actor: str, source: str, *, is_agent: bool = False, token: UUID | None = None) -> None:
    """Tell the event triggers who acts and by which door, until the transaction ends.

    Never for the session: a connection pool would hand the name on to the next caller.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT set_config('portal.actor', %s, true), set_config('portal.source', %s, true), "
            "set_config('portal.agent', %s, true), set_config('portal.token', %s, true)",
            (actor, source, "on" if is_agent else "", str(token or "")),
        )


def user_facts(user: int) -> dict[str, Any]:
    """What decides a person's rights: names of their groups, whether they are limited, and to which projects."""
    return _one(
        """
        SELECT ARRAY(SELECT g.name FROM auth_user_groups m JOIN auth_group g ON g.id = m.group_id
                      WHERE m.user_id = %s) AS groups,
               EXISTS (SELECT FROM user_limits l WHERE l.user_id = %s) AS is_limited,
               ARRAY(SELECT p.project_id FROM user_limit_projects p WHERE p.userlimit_id = %s) AS projects
        """,
        (user, user, user),
    ) or {"groups": [], "is_limited": True, "projects": []}


def token_facts(public_id: str) -> dict[str, Any] | None:
    """What decides a token's rights, its owner's among them, in one statement; None where none is valid now.

    Nobody's token, and a superuser's, is unbound: no groups and no limit of an owner stand above it.
    """
    return _one(
        """
        SELECT t.id, t.secret_hash, t.name, t.role, t.is_limited, t.user_id, u.username,
               coalesce(u.is_superuser, true) AS is_unbound,
               t.last_used_at IS NULL OR t.last_used_at < statement_timestamp() - interval '1 minute' AS is_use_unnoted,
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


def note_use(token: UUID) -> None:
    """Remember that a token was used: to the minute, so that a busy one costs no write per request."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE api_tokens SET last_used_at = statement_timestamp() WHERE id = %s", (token,))


def _one(question: str, values: tuple[Any, ...]) -> dict[str, Any] | None:
    """The only row of an answer, by the names of its columns."""
    with connection.cursor() as cursor:
        cursor.execute(question, values)
        row = cursor.fetchone()
        return None if row is None else dict(zip((c.name for c in cursor.description), row, strict=True))


def count_request(limits: Mapping[str, int]) -> float:
    """Count one request against each key; how many seconds the caller must wait, 0 to go on.

    Args:
        limits: how many requests per minute each key may make.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT count_request(%s, %s)", (list(limits), list(limits.values())))
        (wait,) = cursor.fetchone()
    return float(wait)
