"""Reject WebSockets, which Django cannot handle."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any


class NoWebSocketsMiddleware:
    """ASGI middleware that rejects WebSockets. The server then answers 403."""

    def __init__(self, application: Callable[..., Awaitable[None]]) -> None:
        self.application = application

    async def __call__(self, scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Any) -> None:
        if scope["type"] != "websocket":
            await self.application(scope, receive, send)
            return
        await receive()
        await send({"type": "websocket.close"})
