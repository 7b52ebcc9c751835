"""/mcp: the server over streamable HTTP, stateless, so that any worker can answer any call."""

from __future__ import annotations

import asyncio
from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import RequestDataTooBig
from django.db import Error as DatabaseFault
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from mcp.server.transport_security import TransportSecuritySettings

from allocations.credentials import token_behind
from allocations.errors import PortError
from allocations.ports import PortManager
from allocations.ports.refusals import refusal_of

from . import context  # noqa: F401 the resources and the prompt
from .server import asking, in_database
from .tools import server


@csrf_exempt
@login_not_required
async def mcp(request: HttpRequest) -> HttpResponse:
    """One message of a client, and its answer."""
    if request.method != "POST":  # no stream of the server's own, and no session to end
        return _problem(405, "Send messages by POST.", Allow="POST")
    try:
        caller = await in_database(token_behind)(request)
        body = request.body
    except PortError as refusal:
        return _problem(refusal.status, refusal.sentence)
    except DatabaseFault as fault:
        known = refusal_of(fault)
        if known is None:
            raise
        return _problem(known.status, known.sentence, **{"Retry-After": str(known.details.get("retry_after", 2))})
    except RequestDataTooBig:
        return _problem(413, "The message is too large.")
    if caller is None:
        return _problem(401, "Send a token: Authorization: Bearer ptl_…", **{"WWW-Authenticate": "Bearer"})
    ports = PortManager(actor=caller.name, source="mcp", caller=caller)
    asking.set(lambda: ports)
    return await _passed_on(request, body)


async def _passed_on(request: HttpRequest, body: bytes) -> HttpResponse:
    """The SDK's answer: its own little ASGI application behind Django's middleware."""
    host = request.get_host()  # checked against ALLOWED_HOSTS
    app = server.streamable_http_app(
        stateless_http=True,
        json_response=True,
        streamable_http_path="/",
        transport_security=TransportSecuritySettings(
            allowed_hosts=[host], allowed_origins=[f"{request.scheme}://{host}"]
        ),
    )
    given = {**request.headers, "Host": host}
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in given.items()]
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": "/",
        "query_string": b"",
        "headers": headers,
    }
    sent: list[dict[str, Any]] = [{"type": "http.request", "body": body}]
    answer: dict[str, Any] = {"status": 500, "headers": [], "body": b""}

    async def receive() -> dict[str, Any]:
        if sent:
            return sent.pop()
        await asyncio.Event().wait()  # nothing more comes
        raise AssertionError("unreachable")

    async def send(message: Any) -> None:
        answer["body"] += message.get("body", b"")
        answer.update({name: message[name] for name in ("status", "headers") if name in message})

    async with app.router.lifespan_context(app):
        await app(scope, receive, send)
    headers_out = {name.decode(): value.decode() for name, value in answer["headers"]}
    headers_out.pop("content-length", None)
    return HttpResponse(answer["body"], status=answer["status"], headers=headers_out)


def _problem(status: int, sentence: str, **headers: str) -> JsonResponse:
    return JsonResponse({"error": sentence}, status=status, headers=headers)
