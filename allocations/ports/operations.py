"""The context that every operation runs in, its transaction, and its retries."""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from django.db import Error as DatabaseError
from django.db import connection, transaction

from allocations import sql
from allocations.auth.roles import Caller, Role
from allocations.errors import Unavailable

from . import db_errors

F = TypeVar("F", bound=Callable[..., Any])

ATTEMPTS = 6
UNKNOWN_OUTCOME = (
    "The database was lost while it saved the change, so nobody knows whether it did. Look, or repeat the request: "
    "that changes nothing if it did. If each request gets something new, repeat it with the same Idempotency-Key."
)
LONGEST_PAUSE = 0.05  # seconds, doubled with each attempt


@dataclass(frozen=True, slots=True)
class Context:
    """Who runs an operation, through which door, and with which rights.

    Args:
        actor: the name that the history shows: a person, an agent, a script.
        source: the door: python, shell, web, admin, api or mcp.
        caller: whose rights apply.
    """

    actor: str
    source: str
    caller: Caller

    @classmethod
    def of(cls, caller: Caller, source: str) -> Context:
        """Return the context of a caller who acts in their own name."""
        return cls(caller.name, source, caller)

    @classmethod
    def trusted(cls, actor: str, source: str = "python") -> Context:
        """Return the context of code that has all rights, such as a command."""
        return cls(actor, source, Caller.trusted(actor))

    @property
    def is_agent(self) -> bool:
        """Return whether the caller is an agent: a program with a token, or one that uses MCP."""
        return self.caller.token is not None or self.source == "mcp"


# The role that each operation requires, and what the operation does.
REQUIRED: dict[Callable[..., Any], tuple[Role, str]] = {}


def operation(role: Role, action: str) -> Callable[[F], F]:
    """Turn a function into an operation: rights, one transaction, the actor's name, retries, and errors as PortError.

    Lost races, deadlocks and serialization failures are retried from the start, with jitter. A connection that turns
    out to be dead at the first statement is opened again once, because nothing has been done on it yet.

    Args:
        role: the lowest role that may run it.
        action: what the operation does, as the refusal words it, such as "release ports".
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def run(context: Context, *args: Any, **kwargs: Any) -> Any:
            context.caller.require(role, action)
            is_nested = connection.in_atomic_block
            for attempt in range(1, ATTEMPTS + 1):
                has_begun = has_run = False
                try:
                    with transaction.atomic():
                        token = context.caller.token
                        sql.set_actor(context.actor, context.source, is_agent=context.is_agent, token=token)
                        has_begun = True
                        result = function(context, *args, **kwargs)
                        has_run = True
                    return result
                except DatabaseError as error:
                    if has_run and not is_nested and db_errors.is_disconnect(error):  # during COMMIT
                        raise Unavailable(UNKNOWN_OUTCOME, retry_after=2) from error
                    if not is_nested and attempt < ATTEMPTS and db_errors.is_transient(error):
                        time.sleep(random.uniform(0, LONGEST_PAUSE * 2**attempt / 4))  # noqa: S311 jitter, not a secret
                        continue
                    if not is_nested and attempt == 1 and not has_begun and db_errors.is_lost(error):
                        connection.close()
                        continue
                    raise db_errors.port_error_for(error) from error
            raise AssertionError("unreachable: the last attempt returns or raises")

        REQUIRED[run] = (role, action)
        return cast(F, run)

    return decorate


def require_rights(context: Context, function: Callable[..., Any]) -> None:
    """Refuse a caller who may not run this operation today.

    Raises:
        NotPermitted: the caller's role is lower than the one that the operation requires.
    """
    context.caller.require(*REQUIRED[function])
