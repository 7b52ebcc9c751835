"""Run a request once, however often it is repeated."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from allocations import validators
from allocations.auth.roles import Role
from allocations.errors import KeyReused
from allocations.models import IdempotentAnswer

from .operations import Context, operation, require_rights
from .queries import get_project


@operation(Role.VIEWER, "send requests")
def run_once(
    context: Context,
    key: str,
    request: Mapping[str, Any],
    run: Callable[[], Mapping[str, Any]],
    *,
    of: Callable[..., Any],
    project: str | None = None,
) -> tuple[Mapping[str, Any], bool]:
    """Run something once, however often the caller repeats the request with the same key within a day.

    Args:
        key: the caller's own name for this request.
        request: what was requested, so that a different request with the same key is refused.
        run: the function to run in this transaction; the answer is what it returns, as JSON.
        of: the operation that it runs, or one that requires the same rights. A repetition requires them, too, since
            they may have changed.
        project: the project that the request names, which the caller has to see.

    Returns:
        The answer, and whether it is a repetition. A refusal is not remembered, because nothing was done.

    Raises:
        InvalidValue: the key is not valid.
        KeyReused: the key was used with a different request.
        NotPermitted, UnknownProject: it is a repetition, and the caller may not send this request any longer.
    """
    fingerprint = hashlib.sha256(json.dumps(request, sort_keys=True, default=str).encode()).digest()
    # Of two concurrent repetitions, the second waits here until the first has ended.
    record, is_new = IdempotentAnswer.objects.get_or_create(
        principal=context.caller.identity,
        key=validators.idempotency_key(key),
        defaults={"fingerprint": fingerprint},
    )
    if is_new:
        record.answer = run()
        record.save(update_fields=["answer"])
    elif bytes(record.fingerprint) != fingerprint:
        raise KeyReused(
            "This Idempotency-Key was used before with a different request: use a new key for a new request.",
            field="Idempotency-Key",
        )
    else:
        require_rights(context, of)
        if project is not None:
            get_project(context, project)
    answer: Mapping[str, Any] = record.answer or {}
    return answer, not is_new
