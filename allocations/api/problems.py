"""Every refusal below /api/ as a problem (RFC 9457)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase

from allocations.errors import PortError

CONTENT_TYPE = "application/problem+json"
POLICIES = ("Content-Security-Policy",)
# What Django, or the web server, answers before or after the API has its say.
SENTENCES = {
    400: "The request cannot be understood: look at its address, its Host header and its body.",
    401: "Log in, or send a valid token: Authorization: Bearer ptl_…",
    403: "That is not permitted.",
    404: "There is nothing at this address. See /api/docs.",
    405: "This address does not take that method. See /api/docs.",
    411: "Say how long the body is.",
    413: "The body is too large.",
    415: "The body must be JSON: Content-Type: application/json.",
    500: "Something broke that nobody foresaw. It is in Portal's log, under the X-Request-ID of this answer.",
    503: "Portal cannot answer now. Nothing was changed; try again in a moment.",
}


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    errors: Sequence[Mapping[str, Any]] = (),
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> HttpResponse:
    """A problem.

    Args:
        code: what programs go by; `type` and `title` are made of it.
        detail: the sentence for people.
        errors: which fields are wrong, each with `field` and `message`.
        more: further members, of the same facts as data.
    """
    body: dict[str, Any] = {
        "type": f"urn:portal:problem:{code}",
        "title": code.replace("_", " ").capitalize(),
        "status": status,
        "detail": detail,
        "code": code,
    }
    if errors:
        body["errors"] = list(errors)
    if more:
        body["details"] = more
    return JsonResponse(body, status=status, content_type=CONTENT_TYPE, headers=dict(headers or {}))


def refused(refusal: PortError, path: str = "") -> HttpResponse:
    """A refusal of PortManager. `details` holds the facts that `detail` tells in words.

    Args:
        path: what was asked, for names that differ from one body to the other.
    """
    headers = {}
    facts = dict(refusal.details)
    if "retry_after" in facts:
        headers["Retry-After"] = str(facts.pop("retry_after"))
    errors = [{"field": field_name(refusal, path), "message": refusal.sentence}] if refusal.field else []
    return problem(refusal.status, refusal.code, refusal.sentence, errors=errors, headers=headers, **facts)


FIELDS = {
    "service_name": "service",
    "new_name": "service",
    "service_type": "serviceType",
    "type": "serviceType",
    "cloudflare_hostname": "cloudflareHostname",
    "expires_at": "expiresAt",
    "host": "hostname",
    "start port": "start",
    "end port": "end",
}


# A project is called by its `name` where it is the thing itself, and so is a range.
FIELDS_OF = {
    "/api/projects": {"project": "name"},
    "/api/ranges": {"range": "name"},
    "/api/reservations": {"start port": "lastPort", "end port": "lastPort"},
}


def field_name(refusal: PortError, path: str = "") -> str:
    """The field as the API calls it; of many services at once with its place."""
    own = next((names for start, names in FIELDS_OF.items() if path.startswith(start)), {})
    name = own.get(refusal.field) or FIELDS.get(refusal.field, refusal.field)
    return f"services.{refusal.details['index']}.{name}" if "index" in refusal.details else name


def plain(status: int, headers: Mapping[str, str] | None = None) -> HttpResponse:
    """A problem of which no more is known than its status."""
    code = {413: "body_too_large", 415: "not_json", 503: "unavailable"}.get(status) or (
        HTTPStatus(status).phrase.lower().replace(" ", "_").replace("-", "_")
    )
    return problem(status, code, SENTENCES.get(status, f"{HTTPStatus(status).phrase}."), headers=headers)


class ProblemsMiddleware:
    """Turns every error page below /api/ into a problem: an unknown address, a wrong method, a crash. Answers HEAD, as
    uptime monitors ask, as GET without the body (RFC 9110, 9.3.2)."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        is_head = request.method == "HEAD" and request.path.startswith("/api/")
        if is_head:
            request.method = "GET"
        response = self._problem_or(request, self.get_response(request))
        if is_head and isinstance(response, HttpResponse):
            response["Content-Length"] = str(len(response.content))
            response.content = b""
        return response

    @staticmethod
    def _problem_or(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        is_error = response.status_code >= HTTPStatus.BAD_REQUEST
        is_answer = response.get("Content-Type", "") in (CONTENT_TYPE, "application/json")
        if not request.path.startswith("/api/") or not is_error or is_answer:
            return response
        kept = {name: value for name, value in response.items() if not name.startswith("Content-")}
        return plain(response.status_code, kept | {n: response[n] for n in POLICIES if n in response})
