"""Paginate by cursor. No page repeats or skips a row, whatever is added or removed in between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

from django.core import signing
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse

from allocations.errors import InvalidValue
from allocations.schemas import Output

from .request_schemas import PageQuery
from .responses import respond


def respond_page(
    request: HttpRequest,
    rows: QuerySet[Any],
    order: Sequence[str],
    schema: Callable[[Any], Output],
    query: PageQuery,
    **members: Any,
) -> HttpResponse:
    """Return one page of the rows, with a Link header that leads to the next.

    Args:
        order: names of fields that are unique together, with a `-` before each in descending order.
        schema: builds the published schema of a row.
        query: the number of rows, and the cursor to start after.
        members: further members of the answer.
    """
    limit, ordered = int(query.limit), rows.order_by(*order)
    if query.cursor:
        ordered = ordered.filter(_rows_after(order, _read_cursor(query.cursor, request)))
    page = list(ordered[: limit + 1])
    cursor = None
    if len(page) > limit:
        page.pop()
        cursor = _make_cursor(page[-1], order, request)
    body = {"items": [schema(row).dump() for row in page], "next": cursor, **members}
    if cursor is None:
        return respond(body)
    parameters = request.GET.copy()
    parameters["cursor"] = cursor
    address = request.build_absolute_uri(f"{request.path}?{parameters.urlencode()}")
    return respond(body, Link=f'<{address}>; rel="next"')


def _salt(request: HttpRequest) -> str:
    """Return the salt of a list's cursors, so that none is valid for another list."""
    return f"allocations.api.cursor {request.path}"


def _make_cursor(row: Any, order: Sequence[str], request: HttpRequest) -> str:
    values = [attrgetter(name.lstrip("-").replace("__", "."))(row) for name in order]
    return signing.dumps([value if isinstance(value, int) else str(value) for value in values], salt=_salt(request))


def _read_cursor(cursor: str, request: HttpRequest) -> list[Any]:
    try:
        values: list[Any] = signing.loads(cursor, salt=_salt(request))
    except signing.BadSignature:
        raise InvalidValue(
            "The cursor does not belong to this list: take it from next of the previous page, or leave it out.",
            field="cursor",
        ) from None
    return values


def _rows_after(order: Sequence[str], values: Sequence[Any]) -> Q:
    """Return the condition for the rows after these values: (a > 1) or (a = 1 and b > 2) or …"""
    after, equal = Q(pk__in=[]), Q()
    for name, value in zip(order, values, strict=True):
        field, lookup = (name[1:], "lt") if name.startswith("-") else (name, "gt")
        after |= equal & Q(**{f"{field}__{lookup}": value})
        equal &= Q(**{field: value})
    return after
