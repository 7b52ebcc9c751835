"""The responses of the API: the envelopes around Portal's schemas, the statuses of an endpoint, and the responses."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

from django.http import HttpRequest, HttpResponse, JsonResponse
from ninja import Header
from pydantic import Field

from allocations import schemas
from allocations.ports.idempotency import run_once
from allocations.schemas import Output

from .auth import context_of
from .request_schemas import Input

# Envelopes


class Page(Output):
    """A page of a list. `next` is null on the last one."""

    next: str | None


class Allocations(Page):
    items: list[schemas.Allocation]


class Projects(Page):
    items: list[schemas.Project]


class Ranges(Page):
    items: list[schemas.Range]


class Events(Page):
    items: list[schemas.Event]


class Checks(Page):
    items: list[schemas.Check]
    uptime: schemas.Uptime


class NewAllocations(Output):
    """The ports of many services, and how many of them are new."""

    allocations: list[schemas.NewAllocation]
    created: int


class Reservations(Output):
    """The ports of a reservation."""

    allocations: list[schemas.Allocation]


class PrometheusTargets(Output):
    """One group of Prometheus HTTP service discovery."""

    targets: list[str]
    labels: dict[str, str]


class FieldError(Output):
    """What is wrong with one field."""

    field: str
    message: str


class Problem(Output):
    """A refusal, as RFC 9457 describes it. Programs rely on `code`; `details` holds the same facts as `detail`."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[FieldError] | None = Field(None, exclude_if=lambda errors: not errors)
    details: dict[str, Any] | None = Field(None, exclude_if=lambda details: not details)


# What an endpoint declares

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        max_length=128,
        pattern="^[!-~]+$",
        description="Your own name for this request. If you repeat it, you get the same response, and nothing changes.",
    ),
]
IfMatch = Annotated[
    str | None,
    Header(alias="If-Match", description="The ETag that you have read. The response is 412 if it has changed since."),
]

# 412 goes with If-Match, 422 with Idempotency-Key, 413 and 415 with a body.
IF_MATCH, IDEMPOTENT = (412, 429), (422, 429)
ALWAYS = (400, 401, 403, 429, 500, 503)


def responses(good: dict[int, Any], *refusals: int, body: bool = False) -> dict[Any, Any]:
    """Return the statuses of an endpoint, each with the schema of its response.

    Args:
        good: the schema for each status that is not a problem.
        refusals: the statuses of problems in addition to those that every endpoint may answer.
        body: whether it takes a body.
    """
    problems = {*ALWAYS, *refusals, *((413, 415) if body else ())}
    return {**good, frozenset(problems - set(good)): Problem}


# The responses


def respond(value: Mapping[str, Any], status: int = 200, **headers: str) -> HttpResponse:
    """Return a JSON response. An underscore in the name of a header stands for a hyphen."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return JsonResponse(value, status=status, headers=named, json_dumps_params={"ensure_ascii": False})


def respond_versioned(value: Output, version: str) -> HttpResponse:
    """Return a JSON response with the ETag that a change can send as If-Match."""
    return respond(value.dump(), ETag=f'"{version}"')


def expected_versions(if_match: str | None) -> frozenset[str] | None:
    """Return the versions that an If-Match header lists; None means any. Weak tags never match (RFC 9110, 13.1.1)."""
    if if_match is None or if_match.strip() == "*":
        return None
    return frozenset(tag for weak, tag in re.findall(r'(W/)?"([^"]*)"', if_match) if not weak)


class Result(NamedTuple):
    """The result of a POST: the answer, its status, and the address of what was created."""

    value: Output
    status: int
    location: str = ""


def respond_once(
    request: HttpRequest, key: str | None, body: Input, run: Callable[[], Result], of: Callable[..., Any]
) -> HttpResponse:
    """Run a POST and respond with its result. A repetition with the same key gets the same response.

    Args:
        key: the Idempotency-Key; None runs it every time.
        body: what was sent, so that a different request with the same key is refused.
        of: the operation that `run` runs, or one that requires the same rights.
    """

    def answer() -> dict[str, Any]:
        result = run()
        return {"value": result.value.dump(), "status": result.status, "location": result.location}

    if key is None:
        stored, is_repetition = answer(), False
    else:
        sent = body.model_dump(mode="json", by_alias=True, exclude_unset=True)
        fingerprint = {"address": request.path, "body": sent}
        repeated, is_repetition = run_once(
            context_of(request), key, fingerprint, answer, of=of, project=getattr(body, "project", None)
        )
        stored = dict(repeated)
    headers = {"Location": stored["location"]} if stored["location"] else {}
    if is_repetition:
        headers["Idempotency_Replayed"] = "true"
    return respond(stored["value"], stored["status"], **headers)
