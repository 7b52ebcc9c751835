"""The documentation of the API: /api/openapi.json for programs and /api/docs for people, from the same description."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from allocations.auth.authentication import authenticate
from allocations.auth.roles import Caller
from allocations.errors import PortError
from allocations.models import PortRange
from allocations.pages import error_page, page

from . import api, problems
from .examples import Examples, Sample


@functools.cache  # it depends on the code alone
def description() -> dict[str, Any]:
    """Return the OpenAPI description."""
    return dict(api.get_openapi_schema(path_prefix="api/"))


@csrf_exempt  # so that another method gets a 405, not a missing CSRF token
@login_not_required
@require_safe
def openapi(request: HttpRequest) -> HttpResponse:
    """Serve the OpenAPI file."""
    try:
        caller = authenticate(request)
    except PortError as refusal:
        return problems.problem_for_error(refusal)
    if caller is None:
        return problems.problem_for_status(401, {"WWW-Authenticate": "Bearer"})
    return JsonResponse(description())


@csrf_exempt
@login_not_required
@require_safe
def docs(request: HttpRequest) -> HttpResponse:
    """Serve the documentation for people, with examples that work on this Portal."""
    try:
        caller = authenticate(request)
    except PortError as refusal:
        return error_page(request, refusal)
    if caller is None:
        return redirect_to_login(request.get_full_path())
    examples = Examples(description()["components"]["schemas"], sample_for(caller), request.build_absolute_uri("/"))
    context = {
        "caller": caller,
        "about": description()["info"]["description"],
        "groups": groups(examples),
        "problem": _json(examples.of_answer(description()["components"]["schemas"]["Problem"])),
    }
    return page(request, "allocations/api.html", context=context)


def sample_for(caller: Caller) -> Sample:
    """Return a range that the caller may see, preferably not the one that contains Portal's own port."""
    ranges = PortRange.objects.active().visible_to(caller).exclude(is_shared=True).select_related("project")
    own = {"start_port__lte": settings.PORTAL_PORT, "end_port__gte": settings.PORTAL_PORT}
    port_range = ranges.exclude(**own).order_by("start_port").first() or ranges.first()
    if port_range is None:
        return Sample()
    return Sample(port_range.project.name, port_range.range_name, port_range.start_port, port_range.end_port)


def groups(examples: Examples) -> list[dict[str, Any]]:
    """Return the operations for the page, grouped by their tag."""
    by_tag: dict[str, list[dict[str, Any]]] = {}
    for path, methods in description()["paths"].items():
        for method, operation in methods.items():
            by_tag.setdefault(operation["tags"][0], []).append(_operation(method, path, operation, examples))
    return [{"name": name, "operations": operations} for name, operations in by_tag.items()]


def _operation(method: str, path: str, operation: dict[str, Any], examples: Examples) -> dict[str, Any]:
    content = operation.get("requestBody", {}).get("content", {})
    body = content["application/json"]["schema"] if content else None
    return {
        "id": operation["operationId"],
        "method": method.upper(),
        "address": path,
        "text": operation.get("description", operation["summary"]),
        "curl": examples.curl(method, path, operation),
        "parameters": [
            _field(p["name"], _without_null(p["schema"]), p["required"], examples.of_parameter(p)) | {"where": p["in"]}
            for p in operation["parameters"]
        ],
        "fields": list(_fields(body, examples)) if body else [],
        "body": _json(examples.of_body(body)) if body else "",
        "answers": _answers(operation["responses"], examples),
        "refusals": [
            {"status": status, "text": answer["description"]}
            for status, answer in sorted(operation["responses"].items())
            if status >= 400
        ],
    }


def _fields(schema: Mapping[str, Any], examples: Examples, before: str = "") -> Iterator[dict[str, Any]]:
    """Yield the fields of a body. Those of the objects in a list follow the list, such as `services[].service`."""
    body = examples.resolved(schema)
    for name, details in body.get("properties", {}).items():
        items = examples.resolved(details.get("items", {}))
        is_list = "properties" in items
        example = None if is_list else examples.of_field(body, name)
        yield _field(before + name, details, name in body.get("required", ()), example)
        if is_list:
            yield from _fields(items, examples, f"{before}{name}[].")


def _field(name: str, schema: Mapping[str, Any], is_required: bool, example: Any) -> dict[str, Any]:
    return {
        "name": name,
        "type": _type(schema),
        "required": is_required,
        "text": next((s["description"] for s in (schema, *_choices(schema)) if "description" in s), ""),
        "rule": _rule(schema),
        "example": "" if example is None else example if isinstance(example, str) else json.dumps(example),
    }


def _answers(responses: Mapping[int, Any], examples: Examples) -> list[dict[str, Any]]:
    """Return the successful answers of an operation. Statuses with the same example are one answer."""
    by_example: dict[str, dict[str, Any]] = {}
    for status, answer in sorted(responses.items()):
        if status >= 400:
            continue
        content = answer.get("content", {})
        example = _json(examples.of_answer(next(iter(content.values()))["schema"])) if content else ""
        entry = by_example.setdefault(example, {"statuses": [], "example": example})
        entry["statuses"].append({"status": status, "text": answer["description"]})
    return list(by_example.values())


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _choices(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the schemas that a value may have, except null."""
    return [choice for choice in schema.get("anyOf", [schema]) if choice.get("type") != "null"]


def _without_null(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema of a parameter without null, because a parameter is left out instead."""
    if "anyOf" not in schema:
        return schema
    return {name: value for name, value in schema.items() if name != "anyOf"} | {"anyOf": _choices(schema)}


def _rule(schema: Mapping[str, Any]) -> str:
    """Return the limits and the default of a value: `1 to 65535`, `up to 255 characters`, `default: tcp`."""
    rules = []
    for choice in _choices(schema):
        if "minimum" in choice:
            rules.append(f"{choice['minimum']} to {choice['maximum']}")
        if "maxLength" in choice:
            rules.append(f"up to {choice['maxLength']} characters")
        if "maxItems" in choice:
            rules.append(f"up to {choice['maxItems']}")
    if schema.get("default") not in (None, ""):
        default = schema["default"]
        rules.append(f"default: {default if isinstance(default, str) else json.dumps(default)}")
    return ", ".join(rules)


def _type(schema: Mapping[str, Any]) -> str:
    """Return the type of a value in words: `integer`, `string or null`, `list of Allocation`, `tcp | udp`."""
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
