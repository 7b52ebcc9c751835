"""API clients with tokens, and two projects. The clients compare every response with the OpenAPI description."""

from __future__ import annotations

import functools
import json
import re
from typing import Any

import pytest
from django.test import Client
from django.urls import Resolver404, resolve

from allocations.api.docs import description
from allocations.models import PortAllocation, PortRange
from allocations.ports import PortManager, tokens
from tests.output_schemas import deviations, strict


@pytest.fixture
def ports(ports: PortManager, bank: PortRange) -> PortManager:
    """Return the shared manager, after adding the project bank."""
    return ports


@pytest.fixture
def vault(ports: PortManager) -> PortAllocation:
    return ports.allocate("bank", "vault", cloudflare_hostname="vault.example.com")


def make_token(ports: PortManager, role: str, *projects: str) -> str:
    return tokens.create(ports.context, role, role=role, projects=list(projects) or None)[1]


@functools.cache
def strict_description() -> Any:
    return strict(description())


def described_operation(method: str, address: str) -> dict[str, Any] | None:
    """Return the operation of the OpenAPI description at that address, if there is one."""
    try:
        route = resolve(address.partition("?")[0]).route
    except Resolver404:
        return None
    path = "/" + re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", route)
    operation: dict[str, Any] | None = strict_description()["paths"].get(path, {}).get(method.lower())
    return operation


def check_description(method: str, address: str, response: Any) -> None:
    """Assert that a response conforms to the OpenAPI description."""
    operation = described_operation(method, address)
    # Crashes, and requests that never reach the operation, are not described.
    if operation is None or not response.content or response.status_code == 500:
        return
    content = operation["responses"][response.status_code]["content"]
    schema = content[response["Content-Type"]]["schema"]
    differences = deviations(response.json(), {**schema, "components": strict_description()["components"]})
    assert differences == [], f"{method} {address} {response.status_code}"


class ApiClient:
    """A client that sends JSON, with a token."""

    def __init__(self, token: str = "") -> None:
        self.client = Client()
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def __call__(self, method: str, address: str, body: Any = None, **headers: str) -> Any:
        """Send a request. Underscores in the names of headers become hyphens."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is None:
            return self.send(method, address, **named)
        return self.send(method, address, json.dumps(body), **{"Content-Type": "application/json", **named})

    def send(self, method: str, address: str, body: str | bytes = "", **headers: str) -> Any:
        """Send a request with a body that is already encoded."""
        content_type = headers.pop("Content-Type", "application/octet-stream")
        response = self.client.generic(
            method, address, body, content_type=content_type, headers={**self.headers, **headers}
        )
        check_description(method, address, response)
        return response


@pytest.fixture
def anybody() -> ApiClient:
    """Return a client without a token."""
    return ApiClient()


@pytest.fixture
def viewer(ports: PortManager) -> ApiClient:
    return ApiClient(make_token(ports, "viewer"))


@pytest.fixture
def operator(ports: PortManager) -> ApiClient:
    return ApiClient(make_token(ports, "operator"))


@pytest.fixture
def admin(ports: PortManager) -> ApiClient:
    return ApiClient(make_token(ports, "admin"))


@pytest.fixture
def shop_operator(ports: PortManager) -> ApiClient:
    """Return the client of an operator who is limited to shop."""
    return ApiClient(make_token(ports, "operator", "shop"))
