"""Who asks the API, and two projects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from allocations.models import PortAllocation
from allocations.ports import PortManager
from tests.make import FIRST

Ask = Callable[..., Any]


@pytest.fixture
def ports() -> PortManager:
    manager = PortManager(actor="test")
    manager.add_project("shop", size=20, start=FIRST)
    manager.add_project("bank", size=20, start=FIRST + 100)
    return manager


@pytest.fixture
def web(ports: PortManager) -> PortAllocation:
    return ports.allocate("shop", "web", service_type="http")


@pytest.fixture
def vault(ports: PortManager) -> PortAllocation:
    return ports.allocate("bank", "vault", cloudflare_hostname="vault.example.com")


def token(ports: PortManager, role: str, *projects: str) -> str:
    return ports.create_token(role, role=role, projects=list(projects) or None)[1]


class Asking:
    """A client with a token: JSON in, JSON out."""

    def __init__(self, text: str = "") -> None:
        self.client = Client()
        self.headers = {"Authorization": f"Bearer {text}"} if text else {}

    def __call__(self, method: str, address: str, body: Any = None, **headers: str) -> Any:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {} if body is None else {"data": body, "content_type": "application/json"}
        return self.client.generic(method, address, headers={**self.headers, **named}, **self._raw(sent))

    def _raw(self, sent: dict[str, Any]) -> dict[str, Any]:
        import json

        if "data" in sent and not isinstance(sent["data"], bytes | str):
            sent["data"] = json.dumps(sent["data"])
        return sent


@pytest.fixture
def viewer(ports: PortManager) -> Asking:
    return Asking(token(ports, "viewer"))


@pytest.fixture
def operator(ports: PortManager) -> Asking:
    return Asking(token(ports, "operator"))


@pytest.fixture
def admin(ports: PortManager) -> Asking:
    return Asking(token(ports, "admin"))


@pytest.fixture
def of_shop(ports: PortManager) -> Asking:
    """An operator of shop alone."""
    return Asking(token(ports, "operator", "shop"))
