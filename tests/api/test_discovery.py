"""Service discovery for Prometheus and Traefik."""

from __future__ import annotations

import pytest

from allocations.models import PortAllocation
from tests.make import BANK, FIRST

from .conftest import ApiClient

pytestmark = pytest.mark.django_db


def test_targets_of_prometheus(viewer: ApiClient, web: PortAllocation, vault: PortAllocation) -> None:
    groups = viewer("GET", "/api/discovery/prometheus").json()
    assert [g["targets"] for g in groups] == [[f"localhost:{FIRST}"], [f"localhost:{BANK}"]]
    assert groups[0]["labels"]["__meta_portal_service"] == "web"


def test_configuration_of_traefik(viewer: ApiClient, web: PortAllocation, vault: PortAllocation) -> None:
    configuration = viewer("GET", "/api/discovery/traefik").json()["http"]
    (name,) = configuration["routers"]
    assert configuration["routers"][name] == {"rule": "Host(`vault.example.com`)", "service": name}
    servers = configuration["services"][name]["loadBalancer"]["servers"]
    assert servers == [{"url": f"http://localhost:{BANK}"}]
    assert viewer("GET", "/api/discovery/traefik?project=shop").json() == {}
