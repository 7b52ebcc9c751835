"""Test random sequences of operations with a state machine that checks the invariants in SQL after each step."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

import pytest
from django.db import connection, transaction
from django.db.models import QuerySet
from django.utils import timezone
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from allocations import sql
from allocations.errors import PortError
from allocations.importers import ParsedInput, Row
from allocations.models import Listener, PortAllocation, PortRange, Project
from allocations.ports import PortManager, allocations, audits, projects, ranges, reservations
from allocations.ports.imports import import_rows
from tests import make

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

FIRST = make.FIRST
PROJECTS = st.sampled_from(["alpha", "alpha", "beta", "gamma"])
SERVICES = st.sampled_from(["web", "api", "db"])
HOSTS = st.sampled_from(["localhost", "localhost", "web-1"])
PROTOCOLS = st.sampled_from(["tcp", "tcp", "udp"])
PORTS = st.integers(FIRST, FIRST + 11) | st.integers(FIRST, FIRST + 40)  # biased towards the initial ranges
CLOUDFLARE_HOSTNAMES = st.sampled_from([None, "a.example.com", "b.example.com"])
INDEXES = st.integers(0, 30)
USUALLY_TRUE = st.sampled_from([True, True, True, False])
ROWS = st.builds(
    Row,
    line=st.just(1),
    service=st.none() | SERVICES,
    project=st.none() | PROJECTS,
    port=st.none() | PORTS,
    hostname=HOSTS,
    protocol=PROTOCOLS,
    process=SERVICES,
    project_is_hint=st.booleans(),
)
T = TypeVar("T")
# A free port in plain SQL: nothing holds it on this host and protocol (an expired reservation does not count), and
# nothing listens on it.
IS_FREE = """
    NOT EXISTS (SELECT FROM port_allocations a
                 WHERE (a.hostname, a.protocol, a.port_number) = (%(host)s, %(protocol)s, p.n)
                   AND a.status <> 'released' AND coalesce(a.expires_at > statement_timestamp(), true))
    AND NOT EXISTS (SELECT FROM listeners l WHERE (l.hostname, l.protocol, l.port) = (%(host)s, %(protocol)s, p.n))"""
FREE_PORTS = f"""
    SELECT p.n
      FROM projects o JOIN port_ranges r ON r.project_id = o.id, generate_series(r.start_port, r.end_port) p (n)
     WHERE o.name = %(project)s AND r.is_active AND {IS_FREE}
     ORDER BY p.n"""
NOT_THE_LOWEST = f"""
    SELECT range_name, found, lowest
      FROM (SELECT * FROM port_ranges WHERE is_active) r, find_available_port(r.id, %(host)s, %(protocol)s) found,
           LATERAL (SELECT min(p.n) AS lowest FROM generate_series(r.start_port, r.end_port) p (n) WHERE {IS_FREE}) free
     WHERE found IS DISTINCT FROM lowest"""


def query_rows(query: str, **values: str) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(query, values)
        return cursor.fetchall()


def free_ports(project: str, host: str, protocol: str) -> list[int]:
    """Return the free ports of the project's active ranges, lowest first."""
    return [port for (port,) in query_rows(FREE_PORTS, project=project, host=host, protocol=protocol)]


def choose(rows: Sequence[T], index: int) -> T:
    return rows[index % len(rows)]


def all_allocations() -> list[PortAllocation]:
    return list(PortAllocation.objects.order_by("allocated_at", "pk"))


def expire(rows: QuerySet[PortAllocation]) -> None:
    """Set an expiry in the past.

    Set another actor first: the last one in this transaction may be an agent, which must not change an expiry.
    """
    sql.set_actor("time", "test")
    make.expire(rows)


class Registry(RuleBasedStateMachine):
    """Run operations in random order. A PortError is a valid refusal; any other exception fails the test."""

    def __init__(self) -> None:
        super().__init__()
        self.savepoint = transaction.atomic()
        self.savepoint.__enter__()
        self.ports = PortManager(actor="machine")
        self.agent = PortManager(actor="agent", source="mcp")
        self.names = (f"range-{n}" for n in itertools.count())

    def teardown(self) -> None:
        transaction.set_rollback(True)
        self.savepoint.__exit__(None, None, None)

    def attempt(self, operation: Any, *args: Any, **kwargs: Any) -> Any:
        with contextlib.suppress(PortError):
            return operation(*args, **kwargs)
        return None

    @initialize()
    def add_two_projects(self) -> None:
        projects.add(self.ports.context, "alpha", start_port=FIRST, size=6)
        projects.add(self.ports.context, "beta", start_port=FIRST + 6, size=6, is_shared=True)

    @rule(name=PROJECTS, start=PORTS, size=st.integers(1, 8), shared=st.booleans())
    def add_project(self, name: str, start: int, size: int, shared: bool) -> None:
        self.attempt(projects.add, self.ports.context, name, start_port=start, size=size, is_shared=shared)

    @rule(name=PROJECTS, start=PORTS, size=st.integers(0, 8), shared=st.booleans())
    def add_range(self, name: str, start: int, size: int, shared: bool) -> None:
        self.attempt(ranges.add, self.ports.context, name, next(self.names), start, start + size, is_shared=shared)

    @rule(index=st.integers(0, 5), start=PORTS, size=st.integers(-1, 12), shared=st.booleans(), active=USUALLY_TRUE)
    def update_range(self, index: int, start: int, size: int, shared: bool, active: bool) -> None:
        rows = list(PortRange.objects.all())
        if rows:
            pk = choose(rows, index).pk
            self.attempt(
                ranges.update,
                self.ports.context,
                pk,
                start_port=start,
                end_port=start + size,
                is_shared=shared,
                is_active=active,
            )

    @rule(index=st.integers(0, 5), project=PROJECTS)
    def move_range_to_project(self, index: int, project: str) -> None:
        rows = list(PortRange.objects.all())
        if rows:
            self.attempt(ranges.update, self.ports.context, choose(rows, index).pk, project=project)

    @rule(index=st.integers(0, 5))
    def delete_range(self, index: int) -> None:
        rows = list(PortRange.objects.all())
        if rows:
            self.attempt(ranges.delete, self.ports.context, choose(rows, index).pk)

    @rule(name=PROJECTS)
    def delete_project(self, name: str) -> None:
        self.attempt(projects.delete, self.ports.context, name)

    @rule(
        name=PROJECTS,
        new_name=st.none() | PROJECTS,
        mode=st.sampled_from([None, "autonomous", "ask"]),
        quota=st.none() | st.integers(0, 2),
    )
    def update_project(self, name: str, new_name: str | None, mode: str | None, quota: int | None) -> None:
        self.attempt(projects.update, self.ports.context, name, name=new_name, mode=mode, agent_quota=quota)

    @rule(project=PROJECTS, service=SERVICES, host=HOSTS, protocol=PROTOCOLS, cloudflare_hostname=CLOUDFLARE_HOSTNAMES)
    def get_or_allocate(
        self, project: str, service: str, host: str, protocol: str, cloudflare_hostname: str | None
    ) -> None:
        where = {"hostname": host, "protocol": protocol}
        free = free_ports(project, host, protocol)
        allocation = self.attempt(
            allocations.get_or_allocate,
            self.ports.context,
            project,
            service,
            cloudflare_hostname=cloudflare_hostname,
            **where,
        )
        if allocation:
            assert not allocation.created or allocation.port_number == self.lowest(free, host, protocol)
            assert self.ports.get_or_allocate(project, service, **where).pk == allocation.pk

    @rule(project=PROJECTS, service=SERVICES, host=HOSTS, protocol=PROTOCOLS)
    def allocate(self, project: str, service: str, host: str, protocol: str) -> None:
        free = free_ports(project, host, protocol)
        allocation = self.attempt(
            allocations.allocate, self.ports.context, project, service, hostname=host, protocol=protocol
        )
        assert (allocation.port_number if allocation else None) == self.lowest(free, host, protocol)

    def lowest(self, free: list[int], host: str, protocol: str) -> int | None:
        """Return the lowest port that was free, leaving out ports on which a listener has been recorded since."""
        listening = Listener.objects.filter(hostname=host, protocol=protocol).values_list("port", flat=True)
        return min(set(free) - set(listening), default=None)

    @rule(project=PROJECTS, service=SERVICES, host=HOSTS, port=PORTS, adopt=st.booleans())
    def allocate_or_adopt_port(self, project: str, service: str, host: str, port: int, adopt: bool) -> None:
        operation = allocations.adopt if adopt else allocations.allocate
        allocation = self.attempt(operation, self.ports.context, project, service, hostname=host, port_number=port)
        assert allocation is None or allocation.port_number == port

    @rule(project=PROJECTS, service=SERVICES, host=HOSTS, mode=st.sampled_from(["autonomous", "ask"]))
    def allocate_as_agent(self, project: str, service: str, host: str, mode: str) -> None:
        self.attempt(projects.update, self.ports.context, project, mode=mode)
        allocation = self.attempt(allocations.get_or_allocate, self.agent.context, project, service, hostname=host)
        if allocation and allocation.created:
            assert allocation.status == ("pending" if mode == "ask" else "allocated")

    @precondition(lambda self: PortAllocation.objects.exists())
    @rule(index=INDEXES, approve=st.booleans())
    def decide_request(self, index: int, approve: bool) -> None:
        requests = list(PortAllocation.objects.filter(status="pending").order_by("pk")) or all_allocations()
        operation = allocations.approve_request if approve else allocations.refuse_request
        allocation = self.attempt(operation, self.ports.context, choose(requests, index).pk)
        assert allocation is None or allocation.status == ("allocated" if approve else "released")

    @rule(rows=st.lists(ROWS, max_size=4), fallback=st.none() | PROJECTS, dry_run=st.booleans())
    def import_rows(self, rows: list[Row], fallback: str | None, dry_run: bool) -> None:
        parsed, statuses = ParsedInput("test", rows), PortAllocation.objects.values_list("pk", "status")
        before = set(statuses)
        report = self.attempt(import_rows, self.ports.context, parsed, project=fallback, dry_run=dry_run)
        if report is None or dry_run:
            assert set(statuses.all()) == before
        else:
            again = import_rows(self.ports.context, parsed, project=fallback)
            assert (again.imported, again.moved) == ([], []), "a second import must change nothing"

    @rule(project=PROJECTS, service=SERVICES, range_name=st.sampled_from(["alpha", "beta"]))
    def allocate_in_a_named_range(self, project: str, service: str, range_name: str) -> None:
        self.attempt(allocations.allocate, self.ports.context, project, service, range_name=range_name)

    @rule(project=PROJECTS, count=st.integers(1, 8))
    def allocate_many(self, project: str, count: int) -> None:
        before = PortAllocation.objects.count()
        batch = self.attempt(allocations.allocate_many, self.ports.context, project, ["web"] * count)
        assert PortAllocation.objects.filter(status="allocated").count() >= (count if batch else 0)
        assert batch is None or len({a.port_number for a in batch}) == count
        if batch is None:
            assert PortAllocation.objects.count() == before

    @rule(project=PROJECTS, port=st.none() | PORTS, extra=st.integers(0, 3), hours=st.sampled_from([None, -1, 1]))
    def reserve(self, project: str, port: int | None, extra: int, hours: int | None) -> None:
        """Reserve that port or the next free one: without an expiry, for an hour, or with an expiry in the past."""
        first = port or next(iter(free_ports(project, "localhost", "tcp")), FIRST)
        until = timezone.now() + timedelta(hours=abs(hours)) if hours else None
        reservations_made = self.attempt(
            reservations.reserve_block, self.ports.context, project, first, first + extra, expires_at=until
        )
        if reservations_made and hours == -1:
            expire(PortAllocation.objects.filter(pk__in=[a.pk for a in reservations_made]))

    @precondition(lambda self: PortAllocation.objects.held().filter(expires_at__isnull=False).exists())
    @rule()
    def expire_reservations_and_requests(self) -> None:
        """Let all requests expire, and all reservations that have an expiry."""
        expire(PortAllocation.objects.filter(status__in=("reserved", "pending"), expires_at__isnull=False))

    @precondition(lambda self: PortAllocation.objects.filter(status="reserved").exists())
    @rule(index=INDEXES, before=st.integers(0, 2), extra=st.integers(0, 3))
    def release_reservation(self, index: int, before: int, extra: int) -> None:
        reserved = PortAllocation.objects.filter(status="reserved").order_by("port_number", "pk")
        reservation = choose(list(reserved.select_related("project")), index)
        first, last = reservation.port_number - before, reservation.port_number - before + extra
        expected = set(
            reserved.filter(project=reservation.project, port_number__range=(first, last)).values_list("pk", flat=True)
        )
        others = set(reserved.values_list("pk", flat=True)) - expected
        released = self.attempt(reservations.release, self.ports.context, reservation.project.name, first, last)
        assert {a.pk for a in released or ()} == expected
        assert set(reserved.values_list("pk", flat=True)) == others

    @precondition(lambda self: PortAllocation.objects.exists())
    @rule(index=INDEXES)
    def release_allocation(self, index: int) -> None:
        pk: UUID = choose(all_allocations(), index).pk
        self.attempt(allocations.release_by_id, self.ports.context, pk)
        assert PortAllocation.objects.get(pk=pk).released_at is not None

    @rule(project=st.none() | PROJECTS)
    def audit(self, project: str | None) -> None:
        """Audit this host only: probing the other one would take seconds."""
        report = self.attempt(audits.run, self.ports.context, project, hostname="localhost")
        if report is not None:
            audited = PortAllocation.objects.filter(status="allocated", hostname="localhost")
            audited = audited.filter(project__name=project) if project else audited
            assert report.summary.allocated == audited.count() == audited.exclude(health=None).count()

    @rule(project=PROJECTS, service=SERVICES, every=st.booleans())
    def release(self, project: str, service: str, every: bool) -> None:
        self.attempt(allocations.release, self.ports.context, project, service, every=every)

    @precondition(lambda self: PortAllocation.objects.exists())
    @rule(index=INDEXES, name=SERVICES, cloudflare_hostname=CLOUDFLARE_HOSTNAMES)
    def update(self, index: int, name: str, cloudflare_hostname: str | None) -> None:
        pk = choose(all_allocations(), index).pk
        self.attempt(
            allocations.update_by_id, self.ports.context, pk, service_name=name, cloudflare_hostname=cloudflare_hostname
        )

    @invariant()
    def no_invariant_is_broken(self) -> None:
        assert make.broken_invariants() == []

    @invariant()
    def next_port_is_the_lowest_free_port(self) -> None:
        assert query_rows(NOT_THE_LOWEST, host="localhost", protocol="tcp") == []

    @invariant()
    def summaries_add_up(self) -> None:
        for project in Project.objects.all():
            summary = self.ports.summary(project.name)
            assert summary.available_ports + summary.allocated_ports + summary.reserved_ports >= summary.total_ports
            assert 0 <= summary.utilization_percent <= 100
            assert sum(r.total_ports for r in summary.ranges) == summary.total_ports


def test_no_sequence_of_operations_breaks_an_invariant() -> None:
    run_state_machine_as_test(
        Registry,
        settings=settings(
            max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
