"""Authenticate the requests to the API."""

from __future__ import annotations

from django.http import HttpRequest
from ninja.security import HttpBearer

from allocations.auth.authentication import authenticate, authenticate_token
from allocations.auth.roles import Caller
from allocations.ports import Context


class BearerToken(HttpBearer):
    """Authenticate by `Authorization: Bearer ptl_…`, by the session of the dashboard, or anonymously where allowed."""

    def __call__(self, request: HttpRequest) -> Caller | None:
        caller = authenticate(request)
        request.caller = caller  # type: ignore[attr-defined]
        return caller

    def authenticate(self, request: HttpRequest, token: str) -> Caller | None:
        return authenticate_token(request)


def context_of(request: HttpRequest) -> Context:
    """Return the context of an authenticated request."""
    caller: Caller = request.caller  # type: ignore[attr-defined]
    return Context.of(caller, "api")
