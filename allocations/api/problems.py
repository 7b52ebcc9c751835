"""Report every error below /api/ as a problem (RFC 9457)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase

from allocations.errors import PortError

from .request_schemas import Input
from .responses import FieldError, Problem

CONTENT_TYPE = "application/problem+json"
POLICIES = ("Content-Security-Policy",)
# The errors that Django or the web server reports before the API runs, or after it has failed.
SENTENCES = {
    400: "The request is malformed: check its address, its Host header and its body.",
    401: "Log in, or send a valid token: Authorization: Bearer ptl_…",
    403: "You may not do that.",
    404: "There is nothing at this address. See /api/docs.",
    405: "This address does not support that method. See /api/docs.",
    411: "The request has no Content-Length: send the length of the body.",
    413: "The body is too large.",
    415: "The body is not JSON: send it with Content-Type: application/json.",
    500: "Something went wrong in Portal. Its log has the details under the X-Request-ID of this response.",
    503: "Portal cannot answer now. Nothing was changed; try again in a moment.",
}
CODES = {413: "body_too_large", 415: "not_json", 503: "unavailable"}


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    errors: Sequence[FieldError] = (),
    details: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> HttpResponse:
    """Return a problem as a response.

    Args:
        code: what programs rely on; `type` and `title` are made from it.
        detail: the sentence for people.
        errors: which fields are wrong.
        details: the same facts as data.
    """
    value = Problem(
        type=f"urn:portal:problem:{code}",
        title=code.replace("_", " ").capitalize(),
        status=status,
        detail=detail,
        code=code,
        errors=list(errors),
        details=dict(details or {}),
    )
    return JsonResponse(value.dump(), status=status, content_type=CONTENT_TYPE, headers=dict(headers or {}))


def problem_for_error(error: PortError, inputs: Sequence[Input] = ()) -> HttpResponse:
    """Return the problem for a PortError.

    Args:
        inputs: what the caller sent, so that the problem calls the field what the caller calls it.
    """
    details = {name: value for name, value in error.details.items() if name != "retry_after"}
    errors = [FieldError(field=field_name(error, inputs), message=error.sentence)] if error.field else []
    return problem(error.status, error.code, error.sentence, errors=errors, details=details, headers=error.headers)


def field_name(error: PortError, inputs: Sequence[Input] = ()) -> str:
    """Return the caller's name for the refused field, such as `port`, or `services.3.port` for one of many services.

    It comes from the schemas of the request. If the request has no such field, it is the field's name in answers or,
    for a header, the name of the header.
    """
    schemas = [type(value) for value in inputs]
    index = error.details.get("index")
    if index is not None:
        for schema in schemas:
            if name := schema.published_item_name(error.field, index):
                return name
    for schema in schemas:
        if name := schema.published_name(error.field):
            return name
    return re.sub(r"_([a-z])", lambda match: match[1].upper(), error.field)


def problem_for_status(status: int, headers: Mapping[str, str] | None = None) -> HttpResponse:
    """Return the problem for an error of which only the status is known."""
    phrase = HTTPStatus(status).phrase
    code = CODES.get(status) or re.sub("[ -]", "_", phrase.lower())
    return problem(status, code, SENTENCES.get(status, f"{phrase}."), headers=headers)


class ProblemsMiddleware:
    """Turn every error page below /api/ into a problem: an unknown address, a wrong method, a crash.

    It also answers HEAD, which uptime monitors send, as GET without the body (RFC 9110, 9.3.2).
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        is_head = request.method == "HEAD" and request.path.startswith("/api/")
        if is_head:
            request.method = "GET"
        response = self._as_problem(request, self.get_response(request))
        if is_head and isinstance(response, HttpResponse):
            response["Content-Length"] = str(len(response.content))
            response.content = b""
        return response

    @staticmethod
    def _as_problem(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        is_error = response.status_code >= HTTPStatus.BAD_REQUEST
        is_json = response.get("Content-Type", "") in (CONTENT_TYPE, "application/json")
        if not request.path.startswith("/api/") or not is_error or is_json:
            return response
        kept = {name: value for name, value in response.items() if not name.startswith("Content-")}
        return problem_for_status(
            response.status_code, kept | {name: response[name] for name in POLICIES if name in response}
        )
