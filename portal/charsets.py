"""Accept requests in UTF-8 only.

Django decodes a request with any codec of Python that the Content-Type names, even those that are no text encodings,
such as `hex`. It does so before it calls the first middleware, so this one is ASGI middleware.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Awaitable, Callable
from typing import Any

CHARSET = re.compile(rb"""charset\s*=\s*("[^"]*"|[^;\s]*)""", re.IGNORECASE)
UNKNOWN = b"charset=not-utf-8"  # Django ignores the names of unknown codecs


def is_utf_8(charset: str) -> bool:
    """Return whether a charset is UTF-8 or a part of it. An empty one means UTF-8."""
    try:
        return not charset or codecs.lookup(charset.strip("\"'")).name in ("utf-8", "ascii")
    except (LookupError, ValueError):
        return False


class CharsetMiddleware:
    """ASGI middleware that makes Django ignore other charsets, so that ReadableRequestMiddleware can refuse them."""

    def __init__(self, application: Callable[..., Awaitable[None]]) -> None:
        self.application = application

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope = {**scope, "headers": [(name, _readable(name, value)) for name, value in scope["headers"]]}
        await self.application(scope, receive, send)


def _readable(name: bytes, value: bytes) -> bytes:
    if name.lower() != b"content-type":
        return value
    match = CHARSET.search(value)
    charset = match[1].decode("latin-1") if match else ""
    return value if is_utf_8(charset) else CHARSET.sub(UNKNOWN, value)
