"""Rules for all pages: the content security policy, errors, and the number of queries."""

import re
from typing import Any
from uuid import uuid4

import pytest
from django.db import OperationalError, connection
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from allocations import pages
from allocations.models import Listener, PortAllocation, PortRange, Project
from allocations.ports import PortManager

from .helpers import HTMX, addresses, is_page, text

pytestmark = pytest.mark.django_db


def test_every_page_obeys_the_content_security_policy(admin: Client, ports: PortManager, web: PortAllocation) -> None:
    ports.audit()
    for address in [*addresses(web), "/login", "/projects/none"]:
        response = admin.get(address)
        if response.status_code in (302, 405):
            continue
        assert "unsafe" not in response["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in response["Content-Security-Policy"]
        content = response.content.decode().replace("http://testserver", "")  # part of the snippets of /connect
        assert not re.search(r"\sstyle=|<style|\son\w+=|javascript:|https?://(?!www\.w3\.org)", content), address
        assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", content)), address


def test_a_lost_connection_is_a_503(viewer: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    viewer.raise_request_exception = False

    def disconnect(*_: object) -> None:
        raise OperationalError("server closed the connection unexpectedly")

    with connection.execute_wrapper(disconnect):
        response = viewer.get("/")
    assert response.status_code == 503
    assert response["Retry-After"] == "2"
    assert "The database is not available" in text(response)


@pytest.mark.parametrize("headers", [{}, HTMX], ids=["page", "htmx"])
def test_a_database_that_fails_during_a_view_is_a_503(viewer: Client, headers: dict[str, str]) -> None:
    def disconnect(execute: Any, sql: str, *args: Any) -> Any:
        if "port_ranges" in sql:
            raise OperationalError("server closed the connection unexpectedly")
        return execute(sql, *args)

    with connection.execute_wrapper(disconnect):
        response = viewer.get("/ranges", headers=headers)
    assert response.status_code == 503
    assert response["Retry-After"] == "2"
    assert "The database cannot answer now" in text(response)
    assert is_page(response) != bool(headers)


def test_htmx_gets_a_refusal_as_a_message(viewer: Client, web: PortAllocation) -> None:
    response = viewer.post(reverse("release", args=[web.pk]), headers=HTMX)
    assert response.status_code == 403
    assert response["HX-Retarget"] == "#messages"
    assert not is_page(response)


def test_the_error_page_needs_no_context(rf: Any) -> None:
    def respond() -> HttpResponse:
        try:
            raise ValueError("unforeseen")
        except ValueError:
            return pages.server_error(rf.get("/"))

    response = respond()
    assert response.status_code == 500
    assert "Something went wrong" in text(response)
    assert "unforeseen" not in text(response)


def create_projects(projects: int, services: int) -> None:
    """Create that many projects, each with a range of 20 ports and that many services."""
    created = Project.objects.bulk_create(Project(id=uuid4(), name=f"p{n:04}") for n in range(projects))
    ranges = PortRange.objects.bulk_create(
        PortRange(id=uuid4(), project=p, range_name=p.name, start_port=21000 + 20 * n, end_port=21019 + 20 * n)
        for n, p in enumerate(created)
    )
    PortAllocation.objects.bulk_create(
        PortAllocation(project=r.project, port_range=r, port_number=r.start_port + n, service_name=f"s{n}")
        for r in ranges
        for n in range(services)
    )
    Listener.objects.bulk_create(
        Listener(hostname="localhost", protocol="tcp", address="::", port=r.end_port) for r in ranges[:50]
    )
    with connection.cursor() as cursor:  # as autovacuum does in time: without it the plans are a matter of luck
        cursor.execute("ANALYZE projects, port_ranges, port_allocations, listeners, events")


QUERIES = {"/": 10, "/projects/p0000": 12, "/ranges": 5, "/listeners": 7, "/events": 4, "/search?q=p0": 6}


@pytest.mark.parametrize("projects", [10, 1000])
def test_the_number_of_queries_does_not_grow(viewer: Client, projects: int) -> None:
    create_projects(projects, services=10)
    counted = {}
    for address in QUERIES:
        with CaptureQueriesContext(connection) as queries:
            assert viewer.get(address).status_code == 200
        counted[address] = len(queries)
    assert counted == QUERIES
