"""Fixtures for the tests of the pages: a project, a service and a listener."""

import socket
from collections.abc import Iterator

import pytest

from allocations.models import PortAllocation
from allocations.ports import PortManager, projects


@pytest.fixture
def ports() -> PortManager:
    manager = PortManager(actor="test")
    projects.add(manager.context, "shop", size=20, start_port=20500)
    return manager


@pytest.fixture
def web(ports: PortManager) -> PortAllocation:
    return ports.allocate("shop", "web", service_type="http", description="The shop")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Listen on the second port of shop."""
    with socket.create_server(("127.0.0.1", 20501)) as server:
        yield server
