"""/metrics, as Prometheus reads it."""

from __future__ import annotations

import socket

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from prometheus_client.parser import text_string_to_metric_families

from allocations.models import PortAllocation
from allocations.ports import PortManager, allocations, projects, tokens
from tests.make import FIRST
from tests.users import client_with_role

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("bank")]


def scrape(ports: PortManager, role: str = "scraper", *projects: str, query: str = "") -> dict[tuple[str, ...], float]:
    """Return the value of each sample, by its name and the values of its labels in the order of the label names."""
    secret = tokens.create(ports.context, role, role=role, projects=list(projects) or None)[1]
    response = Client(headers={"Authorization": f"Bearer {secret}"}).get(f"/metrics{query}")
    assert response.status_code == 200, response.content
    families = text_string_to_metric_families(response.content.decode())
    return {(s.name, *(value for _, value in sorted(s.labels.items()))): s.value for f in families for s in f.samples}


def test_values(ports: PortManager) -> None:
    ports.allocate("shop", "web")
    ports.allocate("shop", "api")
    ports.reserve("shop", FIRST + 5)
    with socket.create_server(("127.0.0.1", FIRST)), socket.create_server(("127.0.0.1", FIRST + 9)):
        ports.audit()
    samples = scrape(ports)
    usage = {n: samples[f"portal_range_{n}", "shop", "shop"] for n in ("ports", "held_ports", "available_ports")}
    assert usage == {"ports": 20, "held_ports": 3, "available_ports": 16}, "something listens on one of them"
    assert samples["portal_range_allocated_ports", "shop", "shop"] == 2
    assert samples["portal_range_reserved_ports", "shop", "shop"] == 1
    assert samples["portal_range_utilization_ratio", "shop", "shop"] == 0.15
    assert ("portal_service_up", "localhost", "0", str(FIRST), "shop", "tcp", "web") not in samples, "it is up"
    assert samples["portal_service_up", "localhost", "0", str(FIRST + 1), "shop", "tcp", "api"] == 0
    assert samples["portal_allocations", "shop", "up"] == 1
    assert samples["portal_allocations", "shop", "reserved"] == 1
    assert samples["portal_last_audit_allocations", "in_use"] == 1
    assert samples["portal_last_audit_allocations", "not_running"] == 1
    assert samples["portal_unallocated_listeners",] == 1
    assert 0 <= samples["portal_last_audit_age_seconds",] < 60
    detail = scrape(ports, query="?detail=1")
    assert detail["portal_service_up", "localhost", "0", str(FIRST), "shop", "tcp", "web"] == 1
    assert detail["portal_service_up", "localhost", "0", str(FIRST + 1), "shop", "tcp", "api"] == 0


def test_values_equal_the_summary(ports: PortManager) -> None:
    allocations.allocate_copies(ports.context, "shop", "web", 7)
    summary = ports.summary("shop")
    samples = scrape(ports)
    assert samples["portal_range_available_ports", "shop", "shop"] == summary.available_ports
    assert samples["portal_range_held_ports", "shop", "shop"] == summary.allocated_ports


def test_response_time_of_anapproved_host(ports: PortManager, approved_host: str) -> None:
    with socket.create_server(("127.0.0.2", FIRST)):
        ports.allocate("shop", "far", hostname=approved_host)
        ports.audit()
    times = {k: v for k, v in scrape(ports, query="?detail=1").items() if k[0] == "portal_service_response_seconds"}
    measured = PortAllocation.objects.with_response_time().get().response_time_ms
    assert list(times.values()) == ([] if measured is None else [measured / 1000])


def test_labels_are_escaped(ports: PortManager) -> None:
    # No valid name contains quotes, but if a label did, it would still be escaped.
    PortAllocation.objects.filter(pk=ports.allocate("shop", "web").pk).update(service_type='"}\n# HELP')
    assert ("portal_range_ports", "shop", "shop") in scrape(ports)


def test_limited_scraper_sees_only_its_projects(ports: PortManager) -> None:
    ports.allocate("bank", "vault")
    ports.audit()
    samples = scrape(ports, "scraper", "shop")
    assert not [sample for sample in samples if "bank" in sample or "vault" in sample]
    assert not [sample for sample in samples if sample[0] == "portal_last_audit_allocations"]


@pytest.mark.parametrize(("role", "status"), [("viewer", 403), ("operator", 403), ("scraper", 200), ("admin", 200)])
def test_who_may_scrape(ports: PortManager, role: str, status: int) -> None:
    secret = tokens.create(ports.context, role, role=role)[1]
    assert Client(headers={"Authorization": f"Bearer {secret}"}).get("/metrics").status_code == status


def test_other_callers_are_refused(ports: PortManager) -> None:
    assert Client().get("/metrics").status_code == 401
    assert Client(headers={"Authorization": "Bearer x"}).get("/metrics").status_code == 401
    assert client_with_role("viewer").get("/metrics").status_code == 403


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"], ids=["text", "openmetrics"])
def test_metrics_are_built_once_for_each_change(ports: PortManager, accept: str) -> None:
    secret = tokens.create(ports.context, "s", role="scraper")[1]
    client = Client(headers={"Authorization": f"Bearer {secret}", "Accept": accept})

    def scraped() -> tuple[bytes, int]:
        with CaptureQueriesContext(connection) as queries:
            text = client.get("/metrics").content
        assert text.count(b"# EOF") == text.endswith(b"# EOF\n") == bool(accept)
        return text, sum("JSON_OBJECT" in query["sql"] for query in queries)

    held = b'portal_range_held_ports{project="shop",range="shop"} %d'
    assert (held % 0 in scraped()[0], scraped()[1]) == (True, 0)
    ports.allocate("shop", "web")
    assert held % 1 in scraped()[0]
    with socket.create_server(("127.0.0.1", FIRST)):
        ports.audit()
        assert b'portal_allocations{project="shop",state="up"} 1' in scraped()[0]
    assert scraped()[1] == 0
    PortAllocation.objects.update(status="released")
    assert held % 0 in scraped()[0]


def test_number_of_queries_does_not_grow(ports: PortManager, django_assert_max_num_queries: object) -> None:
    secret = tokens.create(ports.context, "s", role="scraper")[1]
    client = Client(headers={"Authorization": f"Bearer {secret}"})
    counts = []
    for n in range(2):
        for m in range(10):
            projects.add(ports.context, f"p{n}-{m}", size=2)
            ports.allocate(f"p{n}-{m}", "web")
        client.get("/metrics")
        with CaptureQueriesContext(
            connection,
        ) as queries:
            client.get("/metrics")
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 10
