"""/mcp: the server over streamable HTTP. It is stateless, so that any worker can answer any call."""

from __future__ import annotations

import asyncio
from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from mcp.server.transport_security import TransportSecuritySettings

from allocations.auth.authentication import authenticate_token
from allocations.errors import PortError
from allocations.ports import Context

from . import resources  # noqa: F401 it registers the resources and the prompt
from .server import current_context, in_database
from .tools import server


@csrf_exempt
@login_not_required
async def mcp(request: HttpRequest) -> HttpResponse:
    """Answer one message from a client."""
    if request.method != "POST":  # there is no stream from the server, and no session to end
        return _error(405, "Send messages by POST.", {"Allow": "POST"})
    try:
        caller = await in_database(authenticate_token)(request)
        body = request.body
    except PortError as error:
        return _error(error.status, error.sentence, error.headers)
    except RequestDataTooBig:
        return _error(413, "The message is too large.")
    if caller is None:
        return _error(401, "Send a token: Authorization: Bearer ptl_…", {"WWW-Authenticate": "Bearer"})
    context = Context.of(caller, "mcp")
    current_context.set(lambda: context)
    return await _pass_to_sdk(request, body)


def _error(status: int, sentence: str, headers: dict[str, str] | None = None) -> HttpResponse:
    return JsonResponse({"error": sentence}, status=status, headers=headers)


async def _pass_to_sdk(request: HttpRequest, body: bytes) -> HttpResponse:
    """Return the answer of the SDK, which runs as a small ASGI application behind Django's middleware."""
    host = request.get_host()  # checked against ALLOWED_HOSTS
    app = server.streamable_http_app(
        stateless_http=True,
        json_response=True,
        streamable_http_path="/",
        transport_security=TransportSecuritySettings(
            allowed_hosts=[host], allowed_origins=[f"{request.scheme}://{host}"]
        ),
    )
    headers = {**request.headers, "Host": host}
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": "/",
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()],
    }
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": body}]
    response = HttpResponse(status=500)
    del response["Content-Type"]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await asyncio.Event().wait()  # nothing more comes
        raise AssertionError("unreachable")

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            response.status_code = message["status"]
            for name, value in message["headers"]:
                if name.lower() != b"content-length":
                    response[name.decode()] = value.decode()
        else:
            response.write(message.get("body", b""))

    async with app.router.lifespan_context(app):
        await app(scope, receive, send)
    return response
