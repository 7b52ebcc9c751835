"""Examples for the documentation of the API, derived from its schemas.

A schema gives the type of a value; the schema's own example, or the name of the field, gives a sensible value. Requests
and answers have different values: an expiry in a request is in the future, and most answers have no expiry.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

ID = "1aeb09fe-80a1-42ab-91c8-560f05ce984f"
MOMENT = "2026-11-20T10:00:00Z"
TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
    "null": type(None),
}
# With these methods, the name of a project comes from a shell variable: a call pasted by mistake changes nothing.
CHANGING = ("patch", "delete")


@dataclass(frozen=True, slots=True)
class Sample:
    """An existing range, from which examples take their names and ports, so that they work when pasted."""

    project: str = "consilio"
    range_name: str = "consilio"
    first_port: int = 3100
    last_port: int = 3199

    @property
    def port(self) -> int:
        """Return a port near the end of the range, which the allocator uses last."""
        return max(self.first_port, self.last_port - 9)

    def sent(self) -> dict[str, Any]:
        """Return values for the fields of requests, by name."""
        return {
            "project": self.project,
            "name": "checkout",
            "service": "api-server",
            "serviceType": "api",
            "description": "Main API server",
            "owner": "team-payments",
            "cloudflareHostname": "api.example.com",
            "hostname": "localhost",
            "host": "localhost",
            "port": self.port,
            "lastPort": self.last_port,
            "range": self.range_name,
            "metadata": {"team": "payments"},
            "note": "phase 2",
            "expiresAt": f"{datetime.now(UTC) + timedelta(days=30):%Y-%m-%dT%H:%M:%SZ}",
            "agentQuota": 10,
            "start": 40000,
            "end": 40099,
            "q": "api",
            "cursor": "WzMxMDBd:1xWOJP:ReMjgTb37z",
            "Idempotency-Key": "build-4711",
            "If-Match": '"e684df60a7b4b9d4e27d"',
        }

    def answered(self) -> dict[str, Any]:
        """Return values for the fields of answers, by name."""
        size, service = self.last_port - self.first_port + 1, f"{self.project}/api-server"
        usage = {"totalPorts": size, "allocatedPorts": 1, "reservedPorts": 0, "availablePorts": size - 1}
        audit = {"allocated": 13, "inUse": 10, "notRunning": 2, "healthPercentage": 83}
        audit |= {"unknown": 1, "drift": 0, "unallocated": 1}
        listener = {"process": "node", "pid": 4711, "address": "127.0.0.1"}
        event = {"actor": "deploy", "source": "api", "verb": "updated", "subject": "allocation"}
        problem = {"type": "urn:portal:problem:unknown_project", "title": "Unknown project", "code": "unknown_project"}
        misspelt = f"{self.project}s"
        sentence = f"There is no project {misspelt}. Did you mean {self.project}?"
        return {
            **self.sent(),
            **{"name": self.project, "range": self.range_name, "rangeName": self.range_name},
            **{"start": self.first_port, "end": self.last_port},
            **{"rangeStart": self.first_port, "rangeEnd": self.last_port},
            **{**usage, "utilizationPercent": (200 + size) // (2 * size)},
            **{**audit, "expected": f"{self.project}/worker", "actual": "not running"},
            **{**listener, "answers": None, "yours": True},
            **{"explanation": f"{self.port}/tcp on localhost is held by {service}.", "nextStep": "Use it as it is."},
            **{"expiresAt": None, "releasedAt": None, "cloudflareHostname": None, "agentQuota": None, "next": None},
            **{**event, "label": f"api-server {self.port}/tcp", "changes": {"description": ["", "Main API server"]}},
            **{"checkType": "kernel", "responseTimeMs": None, "evidence": {"reason": "listening", **listener}},
            **{"checks": 288, "up": 287, "percentage": 99.7, "instance": 0},
            "targets": [f"localhost:{self.port}"],
            "labels": {
                "__meta_portal_project": self.project,
                "__meta_portal_service": "api-server",
                "__meta_portal_instance": "0",
                "__meta_portal_type": "api",
                "__meta_portal_hostname": "localhost",
                "__meta_portal_cloudflare_hostname": "api.example.com",
                "__meta_portal_health": "up",
            },
            "http": {
                "routers": {"api-server": {"rule": "Host(`api.example.com`)", "service": "api-server"}},
                "services": {
                    "api-server": {"loadBalancer": {"servers": [{"url": f"http://localhost:{self.port}"}]}},
                },
            },
            **{**problem, "status": 404, "detail": sentence, "errors": [{"field": "project", "message": sentence}]},
            "details": {"project": misspelt, "nearest": [self.project]},
        }


class Examples:
    """Make examples for the schemas of one OpenAPI description.

    Args:
        schemas: the schemas that others refer to, by name.
        sample: where names and ports come from.
        address: where this Portal is reached, such as `http://localhost:3000`.
    """

    def __init__(self, schemas: Mapping[str, Any], sample: Sample, address: str) -> None:
        self.schemas = schemas
        self.address = address.rstrip("/")
        self.sent, self.answered = sample.sent(), sample.answered()

    def resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the schema that a reference leads to, or the schema itself."""
        if "$ref" not in schema:
            return schema
        target: Mapping[str, Any] = self.schemas[schema["$ref"].rsplit("/", 1)[1]]
        return target

    def of_parameter(self, parameter: Mapping[str, Any]) -> Any:
        """Return an example for a parameter of an operation."""
        return self._value(parameter["schema"], parameter["name"], self.sent)

    def of_body(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        """Return the smallest body that works: the required fields or, if there are none, a description."""
        body: dict[str, Any] = self._object(self.resolved(schema), self.sent, is_sent=True)
        return body

    def of_field(self, schema: Mapping[str, Any], name: str) -> Any:
        """Return an example for one field of a body; for a switch, the opposite of its default."""
        field = self.resolved(schema)["properties"][name]
        if isinstance(field.get("default"), bool):
            return not field["default"]
        return self._value(field, name, self._named(schema))

    def of_answer(self, schema: Mapping[str, Any]) -> Any:
        """Return an answer with every field that is always present."""
        return self._value(schema, "", self.answered)

    def curl(self, method: str, path: str, operation: Mapping[str, Any]) -> str:
        """Return a shell command that makes the call, with the token in `$PORTAL_TOKEN`.

        It takes an id from `$ID`. So that nothing is changed by mistake, a call that changes or deletes a project takes
        its name from `$NAME`.
        """
        where = re.sub(r"\{(\w+)\}", lambda m: self._in_path(m[1], method), path)
        required = [p for p in operation["parameters"] if p["in"] == "query" and p["required"]]
        query = "&".join(f"{p['name']}={self._in_query(p)}" for p in required)
        words = ["curl -s"]
        if method in CHANGING:
            words.append(f"-X {method.upper()}")
        words.append(f'"{self.address}{where}{"?" + query if query else ""}"')
        words.append('-H "Authorization: Bearer $PORTAL_TOKEN"')
        if "requestBody" in operation:
            body = self.of_body(operation["requestBody"]["content"]["application/json"]["schema"])
            words.append(f"--json {shlex.quote(json.dumps(body, ensure_ascii=False))}")
        return " ".join(words)

    def _in_path(self, name: str, method: str) -> str:
        return f"${name.upper()}" if name == "id" or method in CHANGING else str(self.answered[name])

    def _in_query(self, parameter: Mapping[str, Any]) -> str:
        is_id = parameter["schema"].get("format") == "uuid"
        return "$ID" if is_id else quote(str(self.of_parameter(parameter)), safe="")

    def _named(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values for a request. A range gets another name than the project that another call adds."""
        if {"project", "name"} <= set(self.resolved(schema).get("properties", ())):
            return {**self.sent, "name": f"{self.sent['project']}-test"[:255]}
        return self.sent

    def _object(self, schema: Mapping[str, Any], values: Mapping[str, Any], *, is_sent: bool) -> dict[str, Any]:
        fields: Mapping[str, Any] = schema["properties"]
        required = schema.get("required", ())
        if is_sent:
            values = self._named(schema)
            kept = [name for name in fields if name in required] or ["description"]
        else:
            kept = [name for name in fields if name in required or name in ("errors", "details")]
        return {name: self._value(fields[name], name, values) for name in kept}

    def _value(self, schema: Mapping[str, Any], name: str, values: Mapping[str, Any]) -> Any:
        schema = self.resolved(schema)
        if name in values and self._fits(values[name], schema):
            return values[name]
        if "examples" in schema:
            return schema["examples"][0]
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return schema["enum"][0]
        if "default" in schema:
            return schema["default"]
        if "anyOf" in schema:
            return self._value(schema["anyOf"][0], name, values)
        if "properties" in schema:
            return self._object(schema, values, is_sent=values is not self.answered)
        if schema.get("type") == "array":
            return [self._value(schema["items"], name, values)]
        if schema.get("type") == "object":  # with any member names: the configuration for Traefik
            return {"http": values["http"]} if "http" in values else {}
        return self._plain(schema, values)

    def _plain(self, schema: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
        if schema.get("format") == "uuid":
            return ID
        if schema.get("format") == "date-time":
            return MOMENT
        if re.fullmatch(schema.get("pattern", r"(?!)"), str(values["port"])):
            return str(values["port"])
        return {"integer": schema.get("minimum", 1), "number": 1.0, "boolean": True}.get(schema["type"], "text")

    def _fits(self, value: Any, schema: Mapping[str, Any]) -> bool:
        """Return whether a value has the type of a schema. Two schemas may use the same name for different things."""
        schema = self.resolved(schema)
        if "anyOf" in schema:
            return any(self._fits(value, choice) for choice in schema["anyOf"])
        if "enum" in schema:
            return value in schema["enum"]
        if schema.get("format") == "uuid" or "const" in schema:
            return False
        kind = TYPES.get(schema.get("type", ""), object)
        return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
