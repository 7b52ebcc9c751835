"""Authenticate requests that are not for pages: by a token, by a session of the dashboard, or anonymously."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest
from ninja.utils import check_csrf

from allocations.errors import NotPermitted

from .lookup import caller_for_token, caller_for_user
from .roles import Caller

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


def authenticate(request: HttpRequest) -> Caller | None:
    """Return the caller who sends the request, or None if access is denied.

    Raises:
        NotPermitted: a page of another origin sent the request, or its CSRF token is missing or wrong.
    """
    if "Authorization" in request.headers:
        return authenticate_token(request)
    _refuse_other_origins(request)
    if request.user.is_authenticated:
        if request.method not in SAFE_METHODS and check_csrf(request):
            raise NotPermitted("The CSRF token is missing or wrong: send it as X-CSRFToken, or use a token.")
        return caller_for_user(request.user)
    # The middleware defines is_local(), which asks the kernel. Without it, nobody is local.
    if settings.PORTAL_ANONYMOUS_READ and request.method in SAFE_METHODS and getattr(request, "is_local", bool)():
        return Caller.anonymous()
    return None


def authenticate_token(request: HttpRequest) -> Caller | None:
    """Return the caller whose token the request carries, or None if it carries no valid one.

    Raises:
        NotPermitted: a page of another origin sent the request.
    """
    _refuse_other_origins(request)
    scheme, _, text = request.headers.get("Authorization", "").partition(" ")
    return caller_for_token(text.strip()) if scheme.lower() == "bearer" else None


def _refuse_other_origins(request: HttpRequest) -> None:
    origin = request.headers.get("Origin")
    if origin is not None and origin != f"{request.scheme}://{request.get_host()}":
        raise NotPermitted("Portal does not accept requests from pages of other origins.", field="Origin")
