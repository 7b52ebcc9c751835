"""The REST API. An endpoint parses its input, calls one operation and returns a schema."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import RequestDataTooBig
from django.db import Error as DatabaseError
from django.http import HttpRequest, HttpResponse
from ninja import NinjaAPI
from ninja.errors import AuthenticationError, HttpError, ValidationError
from ninja.operation import Operation

from allocations.errors import InvalidValue, PortError
from allocations.ports.db_errors import port_error_for

from . import discovery, history, ports, projects, ranges
from .auth import BearerToken
from .parsing import StrictParser
from .problems import CONTENT_TYPE, problem, problem_for_error, problem_for_status
from .responses import FieldError

DESCRIPTION = (
    "Ports for services, from a registry that never assigns one twice.\n\n"
    "Send Authorization: Bearer ptl_… with a token from the page Tokens or from `./manage.py create_token`. Names are "
    "camelCase, integers are JSON integers, and unknown fields and parameters are refused by name. Lists come in "
    "pages: follow next, or the Link header. Errors are problems as in RFC 9457: rely on their code."
)
# The names of the views' arguments. Callers know only what is inside them.
ARGUMENTS = ("body", "query", "path")
MOST_ERRORS = 3
# What the pattern of each parameter or header allows, in words.
PATTERNS = {
    "limit": "a whole number from 1 to 500",
    "port": "a whole number from 1 to 65535",
    "q": "text without control characters",
    "cursor": "the value of next from the previous page",
    "Idempotency-Key": "1 to 128 printable ASCII characters without spaces",
}


class PortalAPI(NinjaAPI):
    """A NinjaAPI that reports errors as problems, and whose operation ids do not depend on the module."""

    def get_openapi_operation_id(self, operation: Operation) -> str:
        return operation.view_func.__name__

    def get_openapi_schema(self, **options: Any) -> Any:
        schema = super().get_openapi_schema(**options)
        for methods in schema["paths"].values():
            for operation in methods.values():
                operation["summary"] = operation["summary"].capitalize()
                _declare_problems(operation["responses"])
        return schema


def _declare_problems(responses: dict[int, Any]) -> None:
    """Declare the content type and the headers of an operation's problems."""
    problem_schema = responses[401]["content"]["application/json"]
    for status, response in responses.items():
        if status >= 400 and response["content"]["application/json"] == problem_schema:
            response["content"] = {CONTENT_TYPE: problem_schema}
        elif status >= 400:  # an audit that found conflicts
            response["content"][CONTENT_TYPE] = problem_schema
    responses[401]["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
    responses[429]["headers"] = {"Retry-After": {"schema": {"type": "string", "pattern": "^[0-9]+$"}}}


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
for module in (ports, projects, ranges, history, discovery):
    api.add_router("", module.router)


# Errors. This is the only place where the API turns them into responses.


@api.exception_handler(PortError)
def _on_port_error(request: HttpRequest, error: PortError) -> HttpResponse:
    return problem_for_error(error, getattr(request, "inputs", ()))


@api.exception_handler(DatabaseError)
def _on_database_error(request: HttpRequest, error: DatabaseError) -> HttpResponse:
    return problem_for_error(port_error_for(error))


@api.exception_handler(AuthenticationError)
def _on_authentication_error(request: HttpRequest, error: AuthenticationError) -> HttpResponse:
    return problem_for_status(401, {"WWW-Authenticate": "Bearer"})


@api.exception_handler(HttpError)
def _on_http_error(request: HttpRequest, error: HttpError) -> HttpResponse:
    # django-ninja wraps what a parser raises.
    cause = error.__cause__
    if isinstance(cause, PortError):
        return problem_for_error(cause)
    return problem_for_status(cause.status_code if isinstance(cause, HttpError) else error.status_code)


@api.exception_handler(RequestDataTooBig)
def _on_large_body(request: HttpRequest, error: RequestDataTooBig) -> HttpResponse:
    return problem_for_status(413)


@api.exception_handler(ValidationError)
def _on_validation_error(request: HttpRequest, error: ValidationError) -> HttpResponse:
    errors = [FieldError(field=_field(e), message=_message(e)) for e in error.errors]
    # The sentence of a validator already names the field.
    sentences = [
        field_error.message if _is_from_rule(e) else f"{field_error.field}: {field_error.message}".removeprefix(": ")
        for field_error, e in zip(errors, error.errors, strict=True)
    ]
    detail = " ".join(f"{sentence.removesuffix('.')}." for sentence in sentences[:MOST_ERRORS])
    if len(sentences) > MOST_ERRORS:
        detail += f" (and {len(sentences) - MOST_ERRORS} more)"
    first = error.errors[0]
    return problem(400, first["type"] if _is_from_rule(first) else InvalidValue.code, detail, errors=errors)


def _is_from_rule(error: dict[str, Any]) -> bool:
    """Return whether a validator raised the error. If so, its type is the code of the PortError."""
    return "sentence" in error.get("ctx", {})


def _field(error: dict[str, Any]) -> str:
    """Return the path of the field, such as `services.3.service`, without its location and the view's argument."""
    return ".".join(str(part) for part in error["loc"][1:] if part not in ARGUMENTS)[:200]


def _message(error: dict[str, Any]) -> str:
    field, kind = _field(error), error["type"]
    if kind == "extra_forbidden":
        return "unknown field: correct its name, or leave it out"
    if kind == "string_pattern_mismatch":
        return "use " + PATTERNS.get(field, "other characters")
    if kind == "too_long" and field == "services":
        return f"at most {error['ctx']['max_length']} services at once, not {error['ctx']['actual_length']}"
    if kind == "missing":
        return "required" if field else "a JSON object is required"
    return str(error["msg"])
