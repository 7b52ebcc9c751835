"""Statements about transactions: who acts in them, what they wait for, and how often a caller may start one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from uuid import UUID

from django.db import connection


def set_actor(actor: str, source: str, *, is_agent: bool = False, token: UUID | None = None) -> None:
    """Tell the triggers who acts and through which door, until the transaction ends.

    It is never set for the session, because a connection pool would pass the name on to the next caller.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT set_config('portal.actor', %s, true), set_config('portal.source', %s, true), "
            "set_config('portal.agent', %s, true), set_config('portal.token', %s, true)",
            (actor, source, "on" if is_agent else "", str(token or "")),
        )


def count_request(limits: Mapping[str, int]) -> float:
    """Count one request against each key; return how many seconds the caller must wait, or 0.

    Args:
        limits: how many requests per minute are allowed for each key.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT count_request(%s, %s)", (list(limits), list(limits.values())))
        (wait,) = cursor.fetchone()
    return float(wait)


@contextmanager
def exclusive(task: str) -> Iterator[None]:
    """Run a task while nobody else runs the same one, over as many transactions as it takes.

    A session of its own holds the lock, because a lock of the working session would end with its first transaction.
    """
    other = connection.copy()
    try:
        other.set_autocommit(False)
        with other.cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = 0")
            cursor.execute("SET LOCAL statement_timeout = 0")
            cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"portal {task}",))
        yield
    finally:
        other.close()


def wait_for_turn(task: str, seconds: int) -> None:
    """Wait until nobody else runs the same task, and keep others waiting until the transaction ends.

    Args:
        task: what is run.
        seconds: how long to wait.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('lock_timeout', %s, true)", (f"{seconds}s",))
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"portal {task}",))
