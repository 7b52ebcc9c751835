"""Discard request bodies that are too large while they arrive.

Django would write the whole body of any request to a temporary file before it calls the first middleware.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from django.conf import settings

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]

# Most clients read the response only after they have sent the whole body, so let them finish, up to this size.
MAX_DISCARDED = 64 * 1024 * 1024  # bytes


class BodyLimitMiddleware:
    """ASGI middleware that discards request bodies larger than DATA_UPLOAD_MAX_MEMORY_SIZE bytes.

    The application then gets an empty body, but the real size in Content-Length. Django refuses the request because of
    that size, so that pages, the API and MCP each report the error in their own format.
    """

    def __init__(self, application: Callable[..., Awaitable[None]]) -> None:
        self.application = application

    async def __call__(self, scope: Message, receive: Receive, send: Callable[..., Awaitable[None]]) -> None:
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE or 0
        size = _content_length(scope)
        chunks: list[bytes] = []
        read, is_more = 0, size <= MAX_DISCARDED
        while is_more and read <= MAX_DISCARDED:
            message = await receive()
            if message["type"] != "http.request":  # the client has disconnected
                return
            chunk, is_more = message.get("body", b""), message.get("more_body", False)
            read += len(chunk)
            size = max(size, read)
            chunks.append(chunk)
            if size > limit:
                chunks.clear()
        if size > limit:
            scope = {**scope, "headers": _with_content_length(scope, size)}
        await self.application(scope, _replay(b"".join(chunks), receive), send)


def _content_length(scope: Message) -> int:
    value = dict(scope["headers"]).get(b"content-length", b"")
    return int(value) if value.isdigit() else 0


def _with_content_length(scope: Message, size: int) -> list[tuple[bytes, bytes]]:
    others = [(name, value) for name, value in scope["headers"] if name != b"content-length"]
    return [*others, (b"content-length", str(size).encode())]


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` function that provides the body in one message, and then waits for the disconnection."""
    bodies = [body]

    async def replay() -> Message:
        if bodies:
            return {"type": "http.request", "body": bodies.pop(), "more_body": False}
        while (message := await receive())["type"] == "http.request":
            pass
        return message

    return replay
