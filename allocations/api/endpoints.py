"""The checks that every endpoint of the API runs first."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse

from allocations.auth.authentication import SAFE_METHODS
from allocations.auth.roles import Role
from allocations.ports.rate_limits import count_request

from .auth import context_of
from .parsing import refuse_unknown_parameters
from .request_schemas import Input

View = Callable[..., HttpResponse]


def endpoint(query: type[Input] | None = None, *, is_audit: bool = False) -> Callable[[View], View]:
    """Turn a function into an endpoint.

    Callers without the right to read are refused, and so are unknown and repeated parameters. Changes and audits count
    towards the caller's rate limit.

    Args:
        query: the schema of the parameters in the address; None if there are none.
        is_audit: whether it runs an audit, which only reads but costs as much as several changes.
    """
    parameters = {info.alias or name for name, info in query.model_fields.items()} if query else set()

    def decorate(view: View) -> View:
        @functools.wraps(view)
        def run(request: HttpRequest, **inputs: Any) -> HttpResponse:
            # A refusal names fields as this request does: see problems.field_name().
            request.inputs = [value for value in inputs.values() if isinstance(value, Input)]  # type: ignore[attr-defined]
            context = context_of(request)
            context.caller.require(Role.VIEWER, "look at ports")
            refuse_unknown_parameters(request, parameters)
            if is_audit or request.method not in SAFE_METHODS:
                count_request(context, "audit" if is_audit else "change", request.META.get("REMOTE_ADDR", ""))
            return view(request, **inputs)

        return run

    return decorate
