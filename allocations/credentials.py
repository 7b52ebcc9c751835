"""Who asks for something that is no page: by a token, by the session of the dashboard, or as anybody."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest
from ninja.utils import check_csrf

from . import errors
from .access import Caller

SAFE = ("GET", "HEAD", "OPTIONS")


def caller_behind(request: HttpRequest) -> Caller | None:
    """Who asks; None for everybody who may not come in, whatever the reason.

    Raises:
        NotPermitted: the page that sent the request is not Portal's.
    """
    if "Authorization" in request.headers:
        return token_behind(request)
    _refuse_foreign_origin(request)
    if request.user.is_authenticated:
        if request.method not in SAFE and check_csrf(request):
            raise errors.NotPermitted("The CSRF token is missing or wrong: send it as X-CSRFToken, or use a token.")
        return Caller.of_user(request.user)
    if settings.PORTAL_ANONYMOUS_READ and request.method in SAFE and not getattr(request, "is_forwarded", False):
        return Caller.anonymous()
    return None


def token_behind(request: HttpRequest) -> Caller | None:
    """Who asks by a token, and nobody else.

    Raises:
        NotPermitted: the page that sent the request is not Portal's.
    """
    _refuse_foreign_origin(request)
    scheme, _, text = request.headers.get("Authorization", "").partition(" ")
    return Caller.of_token(text.strip()) if scheme.lower() == "bearer" else None


def _refuse_foreign_origin(request: HttpRequest) -> None:
    origin = request.headers.get("Origin")
    if origin is not None and origin != f"{request.scheme}://{request.get_host()}":
        raise errors.NotPermitted("This Portal takes no requests from pages of other origins.", field="Origin")
