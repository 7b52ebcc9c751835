"""The REST API (spec section 6): parses, asks PortManager, answers."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import RequestDataTooBig
from django.db import Error as DatabaseFault
from django.http import HttpRequest, HttpResponse
from ninja import NinjaAPI
from ninja.errors import AuthenticationError, HttpError, ValidationError

from allocations.errors import InvalidName, InvalidValue, PortError, PortOutOfRange
from allocations.ports.refusals import refusal_of

from . import history, owning, ports, problems
from .door import BearerToken, StrictParser

DESCRIPTION = (
    "Ports for services, from a registry that cannot hand one out twice.\n\n"
    "Send Authorization: Bearer ptl_… with a token of the page Tokens, or of manage.py create_token. Names are "
    "camelCase, integers are JSON integers, and unknown fields and parameters are refused by name. Lists come in "
    "pages: follow next, or the Link header. Refusals are problems of RFC 9457: go by their code."
)


# What views call their arguments, which are no fields.
ARGUMENTS = ("body", "query")


# Codes of words.py, which travel as pydantic's own.
CODES = {InvalidValue.code, InvalidName.code, PortOutOfRange.code}


# What a pattern asks for, in words.
PATTERNS = {
    "limit": "a whole number from 1 to 500",
    "port": "a whole number from 1 to 65535",
    "q": "text without control characters",
    "cursor": "the cursor as `next` of the page before gave it",
    "Idempotency-Key": "1 to 255 printable ASCII characters without spaces",
}


class PortalAPI(NinjaAPI):
    """django-ninja with problems for refusals."""

    def get_openapi_schema(self, **options: Any) -> Any:
        schema = super().get_openapi_schema(**options)
        for methods in schema["paths"].values():
            for operation in methods.values():
                _as_problems(operation)
        return schema


def _as_problems(operation: dict[str, Any]) -> None:
    problem = operation["responses"][401]["content"]["application/json"]
    for status, answer in operation["responses"].items():
        if status >= 400 and answer["content"]["application/json"] == problem:
            answer["content"] = {problems.CONTENT_TYPE: problem}
        elif status >= 400:  # an audit that found conflicts
            answer["content"][problems.CONTENT_TYPE] = problem
    operation["responses"][401]["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
    operation["responses"][429]["headers"] = {"Retry-After": {"schema": {"type": "string", "pattern": "^[0-9]+$"}}}


api = PortalAPI(
    title="Portal",
    version="1",
    description=DESCRIPTION,
    docs_url=None,
    openapi_url=None,
    auth=BearerToken(),
    parser=StrictParser(),
    urls_namespace="api-1",
)
api.add_router("", ports.router)
api.add_router("", owning.router)
api.add_router("", history.router)


@api.exception_handler(PortError)
def _refused(request: HttpRequest, refusal: PortError) -> HttpResponse:
    return problems.refused(refusal, request.path)


@api.exception_handler(ValidationError)
def _invalid(request: HttpRequest, invalid: ValidationError) -> HttpResponse:
    errors = [{"field": _place(error["loc"]), "message": _message(error)} for error in invalid.errors]
    # What words.py says names the field itself.
    told = [
        e["message"] if known["type"] in CODES else f"{e['field']}: {e['message']}".removeprefix(": ")
        for e, known in zip(errors, invalid.errors, strict=True)
    ]
    more = f" (and {len(told) - 3} more)" if len(told) > 3 else ""
    code = invalid.errors[0]["type"] if invalid.errors[0]["type"] in CODES else InvalidValue.code
    return problems.problem(400, code, " ".join(_ended(text) for text in told[:3]) + more, errors=errors)


def _ended(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


def _place(loc: tuple[Any, ...]) -> str:
    """`services.3.service`: without where it was sent, and without the name of the function's own argument."""
    return ".".join(str(part) for part in loc[1:] if part not in ARGUMENTS)[:200]


def _message(error: dict[str, Any]) -> str:
    if error["type"] == "extra_forbidden":
        return "unknown field: correct its name, or leave it out"
    if error["type"] == "string_pattern_mismatch":
        return "use " + PATTERNS.get(_place(error["loc"]), "other characters")
    if error["type"] == "too_long" and _place(error["loc"]) == "services":
        return f"at most {error['ctx']['max_length']} services at once, not {error['ctx']['actual_length']}"
    if error["type"] == "missing":
        return "required" if _place(error["loc"]) else "a JSON object is required"
    return str(error["msg"])


@api.exception_handler(AuthenticationError)
def _nobody(request: HttpRequest, error: AuthenticationError) -> HttpResponse:
    return problems.plain(401, {"WWW-Authenticate": "Bearer"})


@api.exception_handler(HttpError)
def _known(request: HttpRequest, error: HttpError) -> HttpResponse:
    # django-ninja wraps what a parser raises.
    cause = error.__cause__
    if isinstance(cause, PortError):
        return problems.refused(cause, request.path)
    return problems.plain(cause.status_code if isinstance(cause, HttpError) else error.status_code)


@api.exception_handler(RequestDataTooBig)
def _too_large(request: HttpRequest, error: RequestDataTooBig) -> HttpResponse:
    return problems.plain(413)


@api.exception_handler(DatabaseFault)
def _database(request: HttpRequest, fault: DatabaseFault) -> HttpResponse:
    known = refusal_of(fault)
    if known is None:
        raise fault
    return problems.refused(known)
