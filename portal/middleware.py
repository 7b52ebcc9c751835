"""The middleware for all requests: client addresses, request IDs, logging, static files and default headers."""

import io
import ipaddress
import logging
import re
import time
import uuid
from collections.abc import Callable
from contextvars import ContextVar

from django.conf import settings
from django.core.exceptions import BadRequest
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.middleware.gzip import GZipMiddleware
from whitenoise.middleware import WhiteNoiseMiddleware
from whitenoise.responders import StaticFile

from portal import peers
from portal.charsets import is_utf_8
from portal.postgresql.base import release_session

logger = logging.getLogger("portal.requests")
request_id: ContextVar[str] = ContextVar("request_id", default="-")

# What proxies, tunnels and content delivery networks add to a request.
FORWARDING_HEADERS = re.compile(
    r"HTTP_(FORWARDED(_\w+)?|VIA|X_FORWARDED(_\w+)?|X_ORIGINAL_\w+|X_PROXY\w*|PROXY_\w+|CDN_LOOP|MAX_FORWARDS"
    r"|\w*(CLIENT|REAL|REMOTE|CONNECTING|CLUSTER)_?(IP|ADDR)|\w*CLIENT_?IP"
    r"|(CF|FLY|FASTLY|TAILSCALE|AKAMAI|INCAP|X_AZURE|X_ARR|X_AMZ|X_AMZN|X_APPENGINE|X_ENVOY|X_VERCEL|X_NF)_\w+)"
)
ENDS = (("REMOTE_ADDR", "REMOTE_PORT"), ("SERVER_NAME", "SERVER_PORT"))
COMPRESSED = {"text/html", "application/json", "application/problem+json", "text/plain", "text/csv"}
DEFAULT_HEADERS = {
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class RequestFilter(logging.Filter):
    """Add the ID of the current request to every log record."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id.get()
        return True


class UnavailableFilter(logging.Filter):
    """Leave out that a response had the status 503: an outage is logged once, with its reason."""

    def filter(self, record: logging.LogRecord) -> bool:
        return getattr(record, "status_code", None) != 503


class Middleware:
    """The base class of the middleware in this module, which is synchronous."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response


class RequestMiddleware(Middleware):
    """Determine the client address, assign a request ID, and log the request.

    The log contains the path, but not the query string, which may contain a search or a token.
    """

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        started = time.monotonic()
        trusted = resolve_client(request)
        proxy_id = request.headers.get("X-Request-ID", "")
        is_valid = trusted and re.fullmatch(r"[\w-]{8,64}", proxy_id, re.ASCII)
        request_id.set(proxy_id if is_valid else uuid.uuid4().hex[:16])
        response = self.get_response(request)
        response.headers["X-Request-ID"] = request_id.get()
        for name, value in DEFAULT_HEADERS.items():
            response.headers.setdefault(name, value)
        logger.info(
            "%s %s %s %d %.0f ms",
            request.META.get("REMOTE_ADDR") or "-",
            escape(request.method or ""),
            escape(request.path),
            response.status_code,
            (time.monotonic() - started) * 1000,
        )
        return response


class ReleaseSessionMiddleware(Middleware):
    """Let other requests use the session of PostgreSQL while the response is sent, which a slow client may delay."""

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        try:
            return self.get_response(request)
        finally:
            release_session()


class StaticFilesMiddleware(WhiteNoiseMiddleware):  # type: ignore[misc]  # WhiteNoise is untyped
    """Serve static files as complete responses.

    WhiteNoise streams files, for which an ASGI server would need a thread for each chunk.
    """

    @staticmethod
    def serve(static_file: StaticFile, request: HttpRequest) -> HttpResponse:
        static_response = static_file.get_response(request.method, request.META)
        with static_response.file or io.BytesIO() as file:
            response = HttpResponse(file.read(), status=int(static_response.status))
        del response.headers["Content-Type"]
        for name, value in static_response.headers:
            response.headers[name] = value
        return response


class ReadableRequestMiddleware(Middleware):
    """Refuse requests that are not in UTF-8, and ignore cookies that contain a NUL. Django would fail on both."""

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if not is_utf_8((request.content_params or {}).get("charset", "")):
            raise BadRequest("Send the request in UTF-8.")
        request.COOKIES = {name: value for name, value in request.COOKIES.items() if "\0" not in value}
        return self.get_response(request)


class PrivatePagesMiddleware(Middleware):
    """Prevent the caching of responses that don't set Cache-Control themselves.

    This must be the last middleware. Because it is synchronous, Django runs the whole chain above it synchronously in
    one thread, instead of switching threads twice for each synchronous middleware.
    """

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        response.headers.setdefault("Cache-Control", "private, no-store")
        return response


def resolve_client(request: HttpRequest) -> bool:
    """Set REMOTE_ADDR to the address of the client, and return True if the request came through a trusted proxy.

    If it didn't, the forwarding headers can't be trusted and are removed.
    """
    # A request through a proxy isn't from this machine, even if the proxy is.
    is_forwarded = any(FORWARDING_HEADERS.fullmatch(name) for name in request.META)
    # The addresses are those of the connection, before a trusted proxy's headers replace them below.
    ends = [(request.META.get(address, ""), str(request.META.get(port))) for address, port in ENDS]
    request.is_local = lambda: not is_forwarded and peers.may_read(*ends)  # type: ignore[attr-defined]
    hops = [hop.strip() for hop in request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")]
    address = request.META.get("REMOTE_ADDR", "")
    if not is_trusted(address):
        for name in ("HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_HOST"):
            request.META.pop(name, None)
        return False
    while hops and is_trusted(address) and is_address(hops[-1]):  # the nearest hop comes last
        address = hops.pop()
    request.META["REMOTE_ADDR"] = address
    return True


def is_address(text: str) -> bool:
    """Return True if the text is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_trusted(address: str) -> bool:
    """Return True if the address is in one of the networks of PORTAL_TRUSTED_PROXIES."""
    return is_address(address) and any(
        ipaddress.ip_address(address) in network for network in settings.PORTAL_TRUSTED_PROXIES
    )


def escape(text: str) -> str:
    """Return the text on one line of ASCII, so that a request can't forge log lines or send terminal escapes."""
    return text[:500].encode("unicode_escape").decode("ascii")


class CompressionMiddleware(GZipMiddleware):
    """Compress pages and JSON.

    Django's middleware adds a random number of bytes, against BREACH. Streams are left alone, because each event has to
    arrive at once, and so are responses with an ETag, which compression would have to weaken: If-Match needs it as it
    is. Static files have been compressed beforehand.
    """

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        kind = response.get("Content-Type", "").partition(";")[0]
        if response.streaming or response.has_header("ETag") or kind not in COMPRESSED:
            return response
        return super().process_response(request, response)
