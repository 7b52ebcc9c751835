"""What the API can do, for programs and for people, from the same description."""

from __future__ import annotations

import functools
from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from allocations.credentials import caller_behind
from allocations.errors import PortError
from allocations.pages import page, refused

from . import api, problems


@functools.cache  # it depends on the code alone
def description() -> dict[str, Any]:
    """The OpenAPI description."""
    return dict(api.get_openapi_schema(path_prefix="api/"))


@csrf_exempt  # another method is told that it is none, not that a token is missing
@login_not_required
@require_safe
def openapi(request: HttpRequest) -> HttpResponse:
    """The OpenAPI file."""
    try:
        caller = caller_behind(request)
    except PortError as refusal:
        return problems.refused(refusal)
    if caller is None:
        return problems.plain(401, {"WWW-Authenticate": "Bearer"})
    return JsonResponse(description())


@csrf_exempt
@login_not_required
@require_safe
def docs(request: HttpRequest) -> HttpResponse:
    """The same for people."""
    try:
        caller = caller_behind(request)
    except PortError as refusal:
        return refused(request, refusal)
    if caller is None:
        return redirect_to_login(request.get_full_path())
    context = {"caller": caller, "groups": groups(), "about": description()["info"]["description"]}
    return page(request, "allocations/api.html", context=context)


@functools.cache
def groups() -> list[dict[str, Any]]:
    """The operations, group by group."""
    found: dict[str, list[dict[str, Any]]] = {}
    for address, methods in description()["paths"].items():
        for method, operation in methods.items():
            found.setdefault(operation["tags"][0], []).append(_operation(method, address, operation))
    return [{"name": name, "operations": operations} for name, operations in found.items()]


def _operation(method: str, address: str, operation: dict[str, Any]) -> dict[str, Any]:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    return {
        "id": operation["operationId"],
        "method": method.upper(),
        "address": address,
        "text": operation.get("description", operation["summary"]),
        "parameters": [
            {
                "name": p["name"],
                "where": p["in"],
                "required": p["required"],
                "type": _type(p["schema"]),
                "text": p["schema"].get("description", ""),
            }
            for p in operation["parameters"]
        ],
        "fields": _fields(body) if body else [],
        "answers": [
            {"status": status, "text": answer["description"], "fields": _fields(_shape(answer)) if status < 400 else []}
            for status, answer in sorted(operation["responses"].items())
        ],
    }


def _shape(answer: dict[str, Any]) -> dict[str, Any]:
    content = answer.get("content", {})
    return next(iter(content.values()))["schema"] if content else {}


def _resolved(schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in schema:
        return schema
    known: dict[str, Any] = description()["components"]["schemas"]
    found: dict[str, Any] = known[schema["$ref"].rsplit("/", 1)[1]]
    return found


def _fields(schema: dict[str, Any]) -> list[dict[str, Any]]:
    known = _resolved(schema)
    return [
        {
            "name": name,
            "type": _type(details),
            "required": name in known.get("required", ()),
            "text": details.get("description", ""),
        }
        for name, details in known.get("properties", {}).items()
    ]


def _type(schema: dict[str, Any]) -> str:
    """A type in a few words: `integer`, `string or null`, `list of Allocation`, `tcp | udp`."""
    if "$ref" in schema:
        return str(schema["$ref"].rsplit("/", 1)[1])
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(one) for one in schema["anyOf"]))
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if "const" in schema:
        return str(schema["const"]).lower()
    return str(schema.get("format") or schema.get("type") or "anything")
