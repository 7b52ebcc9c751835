"""What holds for all pages: the policy, faults, and how many queries."""

import re
from typing import Any
from uuid import uuid4

import pytest
from django.db import OperationalError, connection
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries

from allocations import pages
from allocations.models import Listener, PortAllocation, PortRange, Project
from allocations.ports import PortManager

from .reading import HTMX, addresses, is_page, text

pytestmark = pytest.mark.django_db


def test_no_page_needs_what_the_policy_forbids(admin: Client, ports: PortManager, web: PortAllocation) -> None:
    ports.audit()
    for address in [*addresses(web), "/login", "/projects/none"]:
        response = admin.get(address)
        if response.status_code in (302, 405):
            continue
        assert "unsafe" not in response["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in response["Content-Security-Policy"]
        shown = response.content.decode().replace("http://testserver", "")  # what /connect has one paste
        assert not re.search(r"\sstyle=|<style|\son\w+=|javascript:|https?://(?!www\.w3\.org)", shown), address
        assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", shown)), address


def test_a_lost_database_is_a_503(viewer: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    viewer.raise_request_exception = False

    def gone(*_: object) -> None:
        fault = OperationalError("server closed the connection unexpectedly")
        raise fault

    with connection.execute_wrapper(gone):
        response = viewer.get("/")
    assert response.status_code == 503
    assert response["Retry-After"] == "2"
    assert "The database does not answer" in text(response)


def test_a_refusal_reaches_htmx_as_a_message(viewer: Client, web: PortAllocation) -> None:
    response = viewer.post(reverse("release", args=[web.pk]), headers=HTMX)
    assert response.status_code == 403
    assert response["HX-Retarget"] == "#messages"
    assert not is_page(response)


def test_the_page_of_an_error_needs_nothing(rf: Any) -> None:
    def raised() -> HttpResponse:
        try:
            raise ValueError("nobody foresaw it")
        except ValueError:
            return pages.broken(rf.get("/"))

    response = raised()
    assert response.status_code == 500
    assert "Something broke on our side" in text(response)
    assert "foresaw" not in text(response)


def many(projects: int, services: int) -> None:
    """That many projects with a range of 20 each and that many ports."""
    made = Project.objects.bulk_create(Project(id=uuid4(), name=f"p{n:04}") for n in range(projects))
    ranges = PortRange.objects.bulk_create(
        PortRange(id=uuid4(), project=p, range_name=p.name, start_port=21000 + 20 * n, end_port=21019 + 20 * n)
        for n, p in enumerate(made)
    )
    PortAllocation.objects.bulk_create(
        PortAllocation(project=r.project, port_range=r, port_number=r.start_port + n, service_name=f"s{n}")
        for r in ranges
        for n in range(services)
    )
    Listener.objects.bulk_create(
        Listener(hostname="localhost", protocol="tcp", address="::", port=r.end_port) for r in ranges[:50]
    )


@pytest.mark.parametrize("address", ["/", "/projects/p0000", "/ranges", "/listeners", "/events", "/search?q=p0"])
@pytest.mark.parametrize("projects", [10, 1000])
def test_queries_do_not_grow(
    viewer: Client, projects: int, address: str, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    many(projects, services=10)
    expected = {"/": 10, "/projects/p0000": 12, "/ranges": 5, "/listeners": 7, "/events": 5, "/search?q=p0": 6}
    with django_assert_num_queries(expected[address]):
        assert viewer.get(address).status_code == 200
