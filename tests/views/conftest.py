"""The cast: a project, a service, a listener, and a person for each role."""

import socket
from collections.abc import Iterator

import pytest
from django.test import Client

from allocations.models import PortAllocation
from allocations.ports import PortManager

from .reading import login


@pytest.fixture
def ports() -> PortManager:
    manager = PortManager(actor="test")
    manager.add_project("shop", size=20, start=20500)
    return manager


@pytest.fixture
def web(ports: PortManager) -> PortAllocation:
    return ports.allocate("shop", "web", service_type="http", description="The shop")


@pytest.fixture
def viewer() -> Client:
    return login("viewer")


@pytest.fixture
def operator() -> Client:
    return login("operator")


@pytest.fixture
def admin() -> Client:
    return login("admin")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A real socket on shop's second port."""
    with socket.create_server(("127.0.0.1", 20501)) as found:
        yield found
