"""What surrounds every request: who asks, its id and its log line, static files, headers that nothing else sets."""

import io
import ipaddress
import logging
import re
import time
import uuid
from collections.abc import Callable
from contextvars import ContextVar

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from whitenoise.middleware import WhiteNoiseMiddleware
from whitenoise.responders import StaticFile

logger = logging.getLogger("portal.requests")
request_id: ContextVar[str] = ContextVar("request_id", default="-")

FORWARDING = re.compile(r"HTTP_(X_FORWARDED_\w+|X_REAL_IP|FORWARDED|VIA|TRUE_CLIENT_IP|X_CLIENT_IP|CDN_LOOP|CF_\w+)")
HEADERS = {
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class RequestFilter(logging.Filter):
    """Gives every log record the id of the request it belongs to."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id.get()
        return True


class Middleware:
    """A synchronous middleware."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response


class RequestMiddleware(Middleware):
    """Settles who asks, gives the request an id, and writes its line to the log.

    The line has the path but not the query string, which may hold what somebody searched for or a token.
    """

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        started = time.monotonic()
        trusted = settle_client(request)
        given = request.headers.get("X-Request-ID", "")
        request_id.set(given if trusted and re.fullmatch(r"[\w-]{8,64}", given, re.ASCII) else uuid.uuid4().hex[:16])
        response = self.get_response(request)
        response.headers["X-Request-ID"] = request_id.get()
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        logger.info(
            "%s %s %s %d %.0f ms",
            request.META.get("REMOTE_ADDR") or "-",
            printable(request.method or ""),
            printable(request.path),
            response.status_code,
            (time.monotonic() - started) * 1000,
        )
        return response


class StaticFilesMiddleware(WhiteNoiseMiddleware):  # type: ignore[misc]  # it has no types
    """WhiteNoise, with answers that an asynchronous server can send without a thread per chunk of a file."""

    @staticmethod
    def serve(static_file: StaticFile, request: HttpRequest) -> HttpResponse:
        found = static_file.get_response(request.method, request.META)
        with found.file or io.BytesIO() as file:
            response = HttpResponse(file.read(), status=int(found.status))
        del response.headers["Content-Type"]
        for name, value in found.headers:
            response.headers[name] = value
        return response


class PrivatePagesMiddleware(Middleware):
    """Keeps pages out of every cache, unless they say otherwise.

    It stands last. Because it is synchronous, so is all of the chain above it, in one thread: asynchronous ones would
    cost a change of threads for each middleware, twice.
    """

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        response.headers.setdefault("Cache-Control", "private, no-store")
        return response


def settle_client(request: HttpRequest) -> bool:
    """Make REMOTE_ADDR the address of the client behind trusted proxies; say whether a trusted proxy sent the request.

    Without one the forwarding headers are anybody's words, and go.
    """
    # Who comes through a proxy is not on this machine, whatever address it has here.
    request.is_forwarded = any(FORWARDING.fullmatch(name) for name in request.META)  # type: ignore[attr-defined]
    hops = [hop.strip() for hop in request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")]
    address = request.META.get("REMOTE_ADDR", "")
    if not is_trusted(address):
        for name in ("HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_HOST"):
            request.META.pop(name, None)
        return False
    while hops and is_trusted(address) and is_address(hops[-1]):  # the nearest hop is the last word
        address = hops.pop()
    request.META["REMOTE_ADDR"] = address
    return True


def is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_trusted(address: str) -> bool:
    """Say whether `address` belongs to a proxy of PORTAL_TRUSTED_PROXIES."""
    return is_address(address) and any(
        ipaddress.ip_address(address) in network for network in settings.PORTAL_TRUSTED_PROXIES
    )


def printable(text: str) -> str:
    """Return `text` on one line of plain ASCII: nobody forges a log line, or colours a terminal, by a path."""
    return text[:500].encode("unicode_escape").decode("ascii")
