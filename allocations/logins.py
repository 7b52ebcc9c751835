"""Limit how often somebody may try to log in.

There are three limits. django-axes locks a user out for an address after some failures. Here, attempts are counted per
address, against one that tries many users, and per user, against many addresses that try one. So that strangers cannot
lock a person out by using up these two, a browser that has logged in before is told by a cookie, and is counted on its
own. See "Slow Down Online Guessing Attacks with Device Cookies" by OWASP.
"""

from __future__ import annotations

import functools
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core import signing
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from .errors import PortError, TooManyRequests
from .pages import error_page
from .ports.rate_limits import count_login

COOKIE = f"portal_device_{settings.PORTAL_PORT}"
COOKIE_AGE = 400 * 24 * 3600  # seconds; the most that browsers keep
RETRY_BUSY = 5  # seconds
SALT = "portal.device"
MOST_AT_ONCE = 20  # logins in each process
View = Callable[..., Any]

_places = threading.BoundedSemaphore(MOST_AT_ONCE)


def limit_logins(view: View) -> View:
    """Limit the attempts of a login view, and remember the browsers that have logged in."""

    @functools.wraps(view)
    def limited_view(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        if request.method != "POST":
            return view(request, *args, **kwargs)
        try:
            count_login(_username(request), request.META.get("REMOTE_ADDR", ""), _device(request))
            with _place():
                response = view(request, *args, **kwargs)
        except PortError as error:
            return error_page(request, error)
        if request.user.is_authenticated and not _device(request):
            _remember(response, request.user.get_username())
        return response

    return limited_view


@contextmanager
def _place() -> Iterator[None]:
    """Let only so many log in at the same time. Each waits for its password to be hashed, with a connection open."""
    if not _places.acquire(blocking=False):
        sentence = f"Too many people are logging in at the moment. Try again in {RETRY_BUSY} s."
        raise TooManyRequests(sentence, retry_after=RETRY_BUSY)
    try:
        yield
    finally:
        _places.release()


def is_known(request: HttpRequest, credentials: dict[str, Any] | None = None) -> bool:
    """Return whether the browser has logged in as this user before. django-axes does not lock it out."""
    return bool(_device(request))


def lockout(request: HttpRequest, response: HttpResponse | None, credentials: dict[str, Any]) -> HttpResponse:
    """Return the page that django-axes shows to a user who is locked out."""
    wait = settings.AXES_COOLOFF_TIME
    context = {"failure_limit": settings.AXES_FAILURE_LIMIT, "wait": wait}
    page = render(request, "lockout.html", context, status=TooManyRequests.status)
    page["Retry-After"] = str(int(wait.total_seconds()))
    return page


def _username(request: HttpRequest) -> str:
    """Return the user who is to be logged in, as the form will read it."""
    return request.POST.get("username", "").strip()[: User._meta.get_field("username").max_length]


def _device(request: HttpRequest) -> str:
    """Return the id of a browser that has logged in as this user before, or an empty string."""
    try:
        username, device = signing.loads(request.COOKIES.get(COOKIE, ""), salt=SALT, max_age=COOKIE_AGE)
    except signing.BadSignature:
        return ""
    return str(device) if username == _username(request) else ""


def _remember(response: HttpResponse, username: str) -> None:
    """Give the browser the cookie, with an id of its own."""
    response.set_cookie(
        COOKIE,
        signing.dumps([username, secrets.token_urlsafe(12)], salt=SALT),
        max_age=COOKIE_AGE,
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Lax",
    )
