"""Which answers an operation can give, so that the OpenAPI file tells of every one."""

from __future__ import annotations

from typing import Annotated, Any

from ninja import Header

from . import shown

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        max_length=255,
        pattern="^[!-~]+$",
        description="Your name for this request: its repetition gets the same answer, and changes nothing.",
    ),
]
IfMatch = Annotated[
    str | None,
    Header(alias="If-Match", description="The ETag you have seen: 412 if somebody changed it since."),
]

# 412 goes with If-Match, 422 with Idempotency-Key, 413 and 415 with a body.
IF_MATCH, IDEMPOTENT = (412, 429), (422, 429)
ALWAYS = (400, 401, 403, 429, 500, 503)


def answers(good: dict[int, Any], *refusals: int, body: bool = False) -> dict[Any, Any]:
    """The statuses of an operation: what it answers when all is well, and its problems.

    Args:
        good: by status; an audit tells of conflicts by a 503.
        refusals: statuses beside those that every operation may have.
        body: whether it takes one.
    """
    bad = {*ALWAYS, *refusals, *((413, 415) if body else ())}
    return {**good, frozenset(bad - set(good)): shown.Problem}
