"""Pages by cursor: they never show a row twice nor leave one out, whatever is added or removed meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

from django.core import signing
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse

from allocations import errors

from .door import answer
from .sent import Paged


def paged(
    request: HttpRequest,
    rows: QuerySet[Any],
    order: Sequence[str],
    shown: Callable[[Any], dict[str, Any]],
    asked: Paged,
    **more: Any,
) -> HttpResponse:
    """One page of `rows`, with a Link to the next.

    Args:
        order: names of fields that together are unique; `-` before one for descending.
        shown: makes JSON of a row.
        asked: how many, and behind which row.
        more: further members of the answer.
    """
    limit, ordered = int(asked.limit), rows.order_by(*order)
    if asked.cursor:
        ordered = ordered.filter(_after(order, _values(asked.cursor, request)))
    found = list(ordered[: limit + 1])
    following = None
    if len(found) > limit:
        found.pop()
        last = found[-1]
        values = [attrgetter(name.lstrip("-").replace("__", "."))(last) for name in order]
        following = signing.dumps([str(v) if not isinstance(v, int) else v for v in values], salt=_salt(request))
    body = {"items": [shown(row) for row in found], "next": following, **more}
    if following is None:
        return answer(body)
    query = request.GET.copy()
    query["cursor"] = following
    address = request.build_absolute_uri(f"{request.path}?{query.urlencode()}")
    return answer(body, Link=f'<{address}>; rel="next"')


def _salt(request: HttpRequest) -> str:
    """A cursor is of one list, and opens no other."""
    return f"allocations.api.cursor {request.path}"


def _values(cursor: str, request: HttpRequest) -> list[Any]:
    try:
        values: list[Any] = signing.loads(cursor, salt=_salt(request))
    except signing.BadSignature:
        raise errors.InvalidValue(
            "The cursor is none of this list's: take it from `next` of the page before, or begin without one.",
            field="cursor",
        ) from None
    return values


def _after(order: Sequence[str], values: Sequence[Any]) -> Q:
    """The rows behind these values: (a > 1) or (a = 1 and b > 2) or …"""
    behind, same = Q(pk__in=[]), Q()
    for name, value in zip(order, values, strict=True):
        field, step = (name[1:], "lt") if name.startswith("-") else (name, "gt")
        behind |= same & Q(**{f"{field}__{step}": value})
        same &= Q(**{field: value})
    return behind
