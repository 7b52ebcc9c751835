"""Parse requests strictly: anything ambiguous in a JSON body or a query string is refused."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest
from ninja.errors import HttpError
from ninja.parser import Parser

from allocations.errors import InvalidValue
from allocations.text import join_or, quoted
from allocations.validators import is_storable

DEEPEST = 32


class StrictParser(Parser):
    """Accept JSON objects in UTF-8: not nested too deeply, no duplicate names, only text that can be stored."""

    def parse_body(self, request: HttpRequest) -> Any:
        if (request.content_type or "") != "application/json":
            raise HttpError(415, "not_json")
        try:
            body = request.body
        except RequestDataTooBig:
            raise HttpError(413, "body_too_large") from None
        if not body.strip():
            return {}
        try:
            value = json.loads(body.decode("utf-8"), object_pairs_hook=_unique_members, parse_constant=_refuse_constant)
        except UnicodeDecodeError:
            raise InvalidValue("The body is not UTF-8.") from None
        except RecursionError:
            raise _nested_too_deeply() from None
        except json.JSONDecodeError as error:
            place = f"line {error.lineno}, column {error.colno}"
            raise InvalidValue(f"The body is not JSON: {error.msg} at {place}.") from None
        except ValueError as error:
            raise InvalidValue(f"The body is not valid JSON: {error}.") from None
        if not isinstance(value, dict):
            raise InvalidValue("The body is not a JSON object: send {…}.")
        if _is_deeper_than(value, DEEPEST):
            raise _nested_too_deeply()
        if not is_storable(value):
            raise InvalidValue("The body contains a NUL or half of a surrogate pair.")
        return value


def _unique_members(members: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(members)
    if len(value) != len(members):
        names = [name for name, _ in members]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{quoted(repeated)} occurs twice in one object")
    return value


def _refuse_constant(name: str) -> None:
    """Refuse NaN and Infinity, which Python accepts although they are not JSON."""
    raise ValueError(f"{name} is not a JSON number")


def _is_deeper_than(value: Any, limit: int) -> bool:
    """Return whether a JSON value has more levels than `limit`, without recursion."""
    level: Sequence[Any] = [value]
    for _ in range(limit):
        level = [
            child
            for item in level
            for child in (item.values() if isinstance(item, dict) else item)
            if isinstance(child, dict | list)
        ]
    return bool(level)


def _nested_too_deeply() -> InvalidValue:
    return InvalidValue(f"The body is nested more than {DEEPEST} levels deep.")


def refuse_unknown_parameters(request: HttpRequest, names: Collection[str]) -> None:
    """Refuse parameters in the address that are unknown or repeated.

    Raises:
        InvalidValue: it names the parameter.
    """
    for name, values in request.GET.lists():
        if name not in names:
            hint = f"use {join_or(sorted(names))}" if names else "this address takes none"
            raise InvalidValue(f"The parameter {quoted(name)} is unknown: {hint}.", field=name[:50])
        if len(values) > 1:
            raise InvalidValue(f"The parameter {quoted(name)} occurs {len(values)} times: send it once.", field=name)
