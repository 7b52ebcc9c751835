"""Bodies of requests that are too large: thrown away as they come.

Django reads a whole body, of any length and from anybody, into a temporary file before its first middleware is asked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from django.conf import settings

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]

# A client that is still sending does not read its answer: up to here it may finish first.
MOST_THROWN_AWAY = 64 * 1024 * 1024  # bytes


class LimitedBodies:
    """An ASGI application whose requests have bodies of DATA_UPLOAD_MAX_MEMORY_SIZE bytes at most.

    Of a larger one the application gets nothing but its length, in Content-Length: by that Django refuses it, and each
    door says so in its own words.
    """

    def __init__(self, application: Callable[..., Awaitable[None]]) -> None:
        self.application = application

    async def __call__(self, scope: Message, receive: Receive, send: Callable[..., Awaitable[None]]) -> None:
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE or 0
        size = _declared(scope)
        kept: list[bytes] = []
        read, is_more = 0, size <= MOST_THROWN_AWAY
        while is_more and read <= MOST_THROWN_AWAY:
            message = await receive()
            if message["type"] != "http.request":  # the client has gone
                return
            part, is_more = message.get("body", b""), message.get("more_body", False)
            read += len(part)
            size = max(size, read)
            kept.append(part)
            if size > limit:
                kept.clear()
        if size > limit:
            scope = {**scope, "headers": _with_length(scope, size)}
        await self.application(scope, _replayed(b"".join(kept), receive), send)


def _declared(scope: Message) -> int:
    found = dict(scope["headers"]).get(b"content-length", b"")
    return int(found) if found.isdigit() else 0


def _with_length(scope: Message, size: int) -> list[tuple[bytes, bytes]]:
    kept = [(name, value) for name, value in scope["headers"] if name != b"content-length"]
    return [*kept, (b"content-length", str(size).encode())]


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The body in one message, and after it only that the client has gone."""
    bodies = [body]

    async def replay() -> Message:
        if bodies:
            return {"type": "http.request", "body": bodies.pop(), "more_body": False}
        while (message := await receive())["type"] == "http.request":
            pass
        return message

    return replay
