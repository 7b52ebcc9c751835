"""What every operation of the API shares: who asks, what was sent, and how it is answered."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse, JsonResponse
from ninja import Schema
from ninja.errors import HttpError
from ninja.parser import Parser
from ninja.security import HttpBearer

from allocations import errors, words
from allocations.access import Caller, Role
from allocations.credentials import SAFE, caller_behind
from allocations.ports import PortManager

DEEPEST = 32
AUDITS_COST = 10  # as much of the limit as so many changes


class BearerToken(HttpBearer):
    """`Authorization: Bearer ptl_…`, the session of the dashboard, or nobody, where nobody may look."""

    def __call__(self, request: HttpRequest) -> Caller | None:
        caller = caller_behind(request)
        if caller is not None:
            request.caller = caller  # type: ignore[attr-defined]
        return caller

    def authenticate(self, request: HttpRequest, token: str) -> Caller | None:
        return Caller.of_token(token)


def ports_of(request: HttpRequest) -> PortManager:
    """The manager in the name of who asks."""
    caller: Caller = request.caller  # type: ignore[attr-defined]
    return PortManager(actor=caller.name, source="api", caller=caller)


def caller_of(request: HttpRequest) -> Caller:
    """Who asks; the door has looked."""
    found: Caller = request.caller  # type: ignore[attr-defined]
    return found


class StrictParser(Parser):
    """JSON of objects alone, in UTF-8, not too deep, without what PostgreSQL or UTF-8 cannot carry."""

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
            found = json.loads(body.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_number)
        except UnicodeDecodeError:
            raise errors.InvalidValue("The body is not UTF-8.") from None
        except RecursionError:
            raise errors.InvalidValue(f"The body is nested more than {DEEPEST} levels deep.") from None
        except json.JSONDecodeError as error:
            place = f"line {error.lineno}, column {error.colno}"
            raise errors.InvalidValue(f"The body is not JSON: {error.msg} at {place}.") from None
        except ValueError as error:
            raise errors.InvalidValue(f"The body is not JSON that Portal takes: {error}.") from None
        if not isinstance(found, dict):
            raise errors.InvalidValue("The body is not a JSON object: send {…}.")
        _refuse_deep(found)
        if not words.is_speakable(found):
            raise errors.InvalidValue("The body has a NUL or half of a surrogate pair in it: neither is text.")
        return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{json.dumps(twice[:50])} stands twice in one object")
    return found


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no JSON number")


def _refuse_deep(value: Any) -> None:
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > DEEPEST:
            raise errors.InvalidValue(f"The body is nested more than {DEEPEST} levels deep.")
        level = [
            child
            for item in level
            for child in (item.values() if isinstance(item, dict) else item)
            if isinstance(child, dict | list)
        ]


def door(
    query: type[Schema] | None = None, *, counted: str = ""
) -> Callable[[Callable[..., HttpResponse]], Callable[..., HttpResponse]]:
    """Make a function an operation: who may not even look goes no further, unknown and repeated parameters are refused
    by name, and requests are counted.

    Args:
        query: the schema of the parameters in the address; None: there are none.
        counted: `audit`, where the operation reads but costs as much as a change does.
    """
    known = {field.alias or name for name, field in query.model_fields.items()} if query else set()

    def decorate(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
        @functools.wraps(view)
        def run(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            caller_of(request).require(Role.VIEWER, "look at ports")
            _refuse_unknown(request, known)
            if counted or request.method not in SAFE:
                limit = settings.PORTAL_RATE_LIMIT // (AUDITS_COST if counted else 1)
                address = request.META.get("REMOTE_ADDR", "")
                ports_of(request).count_request(counted or "change", limit, address)
            return view(request, *args, **kwargs)

        return run

    return decorate


def _refuse_unknown(request: HttpRequest, known: set[str]) -> None:
    for name, values in request.GET.lists():
        shown = json.dumps(name[:50])
        if name not in known:
            allowed = f"use {words.either(sorted(known))}" if known else "this address takes none"
            raise errors.InvalidValue(f"The parameter {shown} is unknown: {allowed}.", field=name[:50])
        if len(values) > 1:
            raise errors.InvalidValue(f"The parameter {shown} stands there {len(values)} times.", field=name)


# Answers


def answer(value: Mapping[str, Any], status: int = 200, **headers: str) -> HttpResponse:
    """A JSON answer; a header `Link_x` is written with hyphens."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return JsonResponse(value, status=status, headers=named, json_dumps_params={"ensure_ascii": False})


def versioned(value: Mapping[str, Any], version: str, status: int = 200, **headers: str) -> HttpResponse:
    """A JSON answer with the ETag that a change can name in If-Match."""
    return answer(value, status, ETag=f'"{version}"', **headers)


def expected(if_match: str | None) -> frozenset[str] | None:
    """The versions of an If-Match header; None: any, as without one. Weak tags never match (RFC 9110, 13.1.1)."""
    if if_match is None or if_match.strip() == "*":
        return None
    return frozenset(re.findall(r'(?<!W/)"([^"]*)"', if_match))


def once(
    request: HttpRequest, key: str | None, body: Schema, do: Callable[[], tuple[Mapping[str, Any], int, str]]
) -> HttpResponse:
    """Run `do`, which returns an answer, its status and its location; the same key with the same body gets the same."""

    def done() -> dict[str, Any]:
        value, status, location = do()
        return {"value": value, "status": status, "location": location}

    if key is None:
        kept, again = done(), False
    else:
        asked = {"address": request.path, "body": body.model_dump(mode="json", exclude_unset=True)}
        found, again = ports_of(request).once(key, asked, done)
        kept = dict(found)
    headers = {"Location": kept["location"]} if kept["location"] else {}
    if again:
        headers["Idempotency_Replayed"] = "true"
    return answer(kept["value"], kept["status"], **headers)
