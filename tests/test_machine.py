"""A state machine over all operations; after each step the invariants are asked of the database, as SQL."""

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
from allocations.importers import Reading, Row
from allocations.models import Listener, PortAllocation, PortRange, Project
from allocations.ports import PortManager
from tests import make

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

FIRST = make.FIRST
PROJECTS = st.sampled_from(["alpha", "alpha", "beta", "gamma"])
SERVICES = st.sampled_from(["web", "api", "db"])
HOSTS = st.sampled_from(["localhost", "localhost", "web-1"])
PROTOCOLS = st.sampled_from(["tcp", "tcp", "udp"])
PORTS = st.integers(FIRST, FIRST + 11) | st.integers(FIRST, FIRST + 40)  # more often where there is a range at first
TUNNELS = st.sampled_from([None, "a.example.com", "b.example.com"])
WHICH = st.integers(0, 30)
MOSTLY = st.sampled_from([True, True, True, False])
ROWS = st.builds(
    Row,
    line=st.just(1),
    service=st.none() | SERVICES,
    project=st.none() | PROJECTS,
    port=st.none() | PORTS,
    hostname=HOSTS,
    protocol=PROTOCOLS,
    process=SERVICES,
    is_hint=st.booleans(),
)
T = TypeVar("T")
# Invariant 5 in plain SQL: another host or protocol holds nothing here, nor does a reservation that has expired.
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


def asked(question: str, **values: str) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(question, values)
        return cursor.fetchall()


def free_ports(project: str, host: str, protocol: str) -> list[int]:
    """The free ports of the project's active ranges, lowest first."""
    return [port for (port,) in asked(FREE_PORTS, project=project, host=host, protocol=protocol)]


def chosen(rows: Sequence[T], which: int) -> T:
    return rows[which % len(rows)]


def allocations() -> list[PortAllocation]:
    return list(PortAllocation.objects.order_by("allocated_at", "pk"))


def expire(rows: QuerySet[PortAllocation]) -> None:
    """Let their time be over. No agent does it, who may be named last in this transaction, and may not."""
    sql.name_actor("time", "test")
    rows.update(expires_at=timezone.now() - timedelta(seconds=1))


class Registry(RuleBasedStateMachine):
    """What may be refused is refused as a PortError; whatever else is raised fails the run."""

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
    def two_projects(self) -> None:
        self.ports.add_project("alpha", start=FIRST, size=6)
        self.ports.add_project("beta", start=FIRST + 6, size=6, shared=True)

    @rule(name=PROJECTS, start=PORTS, size=st.integers(1, 8), shared=st.booleans())
    def add_project(self, name: str, start: int, size: int, shared: bool) -> None:
        self.attempt(self.ports.add_project, name, start=start, size=size, shared=shared)

    @rule(name=PROJECTS, start=PORTS, size=st.integers(0, 8), shared=st.booleans())
    def add_range(self, name: str, start: int, size: int, shared: bool) -> None:
        self.attempt(self.ports.add_range, name, next(self.names), start, start + size, shared=shared)

    @rule(which=st.integers(0, 5), start=PORTS, size=st.integers(-1, 12), shared=st.booleans(), active=MOSTLY)
    def update_range(self, which: int, start: int, size: int, shared: bool, active: bool) -> None:
        ranges = list(PortRange.objects.all())
        if ranges:
            pk = chosen(ranges, which).pk
            self.attempt(self.ports.update_range, pk, start=start, end=start + size, shared=shared, active=active)

    @rule(which=st.integers(0, 5), owner=PROJECTS)
    def give_range_away(self, which: int, owner: str) -> None:
        ranges = list(PortRange.objects.all())
        if ranges:
            self.attempt(self.ports.update_range, chosen(ranges, which).pk, project=owner)

    @rule(which=st.integers(0, 5))
    def delete_range(self, which: int) -> None:
        ranges = list(PortRange.objects.all())
        if ranges:
            self.attempt(self.ports.delete_range, chosen(ranges, which).pk)

    @rule(name=PROJECTS)
    def delete_project(self, name: str) -> None:
        self.attempt(self.ports.delete_project, name)

    @rule(
        name=PROJECTS,
        new_name=st.none() | PROJECTS,
        mode=st.sampled_from([None, "autonomous", "ask"]),
        quota=st.none() | st.integers(0, 2),
    )
    def update_project(self, name: str, new_name: str | None, mode: str | None, quota: int | None) -> None:
        self.attempt(self.ports.update_project, name, new_name=new_name, mode=mode, agent_quota=quota)

    @rule(project=PROJECTS, service=SERVICES, host=HOSTS, protocol=PROTOCOLS, tunnel=TUNNELS)
    def get_or_allocate(self, project: str, service: str, host: str, protocol: str, tunnel: str | None) -> None:
        where = {"hostname": host, "protocol": protocol}
        free = free_ports(project, host, protocol)
        given = self.attempt(self.ports.get_or_allocate, project, service, cloudflare_hostname=tunnel, **where)
        if given:
            assert not given.created or given.port_number == self.lowest(free, host, protocol)
            assert self.ports.get_or_allocate(project, service, **where).pk == given.pk

    @rule(project=PROJECTS, service=SERVICES, host=HOSTS, protocol=PROTOCOLS)
    def allocate(self, project: str, service: str, host: str, protocol: str) -> None:
        free = free_ports(project, host, protocol)
        given = self.attempt(self.ports.allocate, project, service, hostname=host, protocol=protocol)
        assert (given.port_number if given else None) == self.lowest(free, host, protocol)

    def lowest(self, free: list[int], host: str, protocol: str) -> int | None:
        """The lowest of the ports that were free, past those on which something was just found to listen."""
        seen = Listener.objects.filter(hostname=host, protocol=protocol).values_list("port", flat=True)
        return min(set(free) - set(seen), default=None)

    @rule(project=PROJECTS, service=SERVICES, host=HOSTS, port=PORTS, adopting=st.booleans())
    def take_that_port(self, project: str, service: str, host: str, port: int, adopting: bool) -> None:
        operation = self.ports.adopt if adopting else self.ports.allocate
        given = self.attempt(operation, project, service, hostname=host, port=port)
        assert given is None or given.port_number == port

    @rule(project=PROJECTS, service=SERVICES, host=HOSTS, mode=st.sampled_from(["autonomous", "ask"]))
    def an_agent_asks(self, project: str, service: str, host: str, mode: str) -> None:
        self.attempt(self.ports.update_project, project, mode=mode)
        given = self.attempt(self.agent.get_or_allocate, project, service, hostname=host)
        if given and given.created:
            assert given.status == ("pending" if mode == "ask" else "allocated")

    @precondition(lambda self: PortAllocation.objects.exists())
    @rule(which=WHICH, approving=st.booleans())
    def a_person_decides(self, which: int, approving: bool) -> None:
        requests = list(PortAllocation.objects.filter(status="pending").order_by("pk")) or allocations()
        operation = self.ports.approve_request if approving else self.ports.refuse_request
        decided = self.attempt(operation, chosen(requests, which).pk)
        assert decided is None or decided.status == ("allocated" if approving else "released")

    @rule(rows=st.lists(ROWS, max_size=4), fallback=st.none() | PROJECTS, dry_run=st.booleans())
    def import_rows(self, rows: list[Row], fallback: str | None, dry_run: bool) -> None:
        reading, before = Reading("test", rows), PortAllocation.objects.values_list("pk", "status")
        known = set(before)
        report = self.attempt(self.ports.import_rows, reading, project=fallback, dry_run=dry_run)
        if report is None or dry_run:
            assert set(before.all()) == known
        else:
            again = self.ports.import_rows(reading, project=fallback)
            assert (again.imported, again.moved) == ([], []), "a second run changes nothing"

    @rule(project=PROJECTS, service=SERVICES, borrowed=st.sampled_from(["alpha", "beta"]))
    def allocate_in_a_named_range(self, project: str, service: str, borrowed: str) -> None:
        self.attempt(self.ports.allocate, project, service, range_name=borrowed)

    @rule(project=PROJECTS, count=st.integers(1, 8))
    def allocate_many(self, project: str, count: int) -> None:
        before = PortAllocation.objects.count()
        given = self.attempt(self.ports.allocate_many, project, ["web"] * count)
        assert PortAllocation.objects.filter(status="allocated").count() >= (count if given else 0)
        assert given is None or len({a.port_number for a in given}) == count
        if given is None:
            assert PortAllocation.objects.count() == before

    @rule(project=PROJECTS, port=st.none() | PORTS, more=st.integers(0, 3), hours=st.sampled_from([None, -1, 1]))
    def reserve(self, project: str, port: int | None, more: int, hours: int | None) -> None:
        """For ever, for an hour, or for one that is over; from that port, or from the one that is next."""
        first = port or next(iter(free_ports(project, "localhost", "tcp")), FIRST)
        until = timezone.now() + timedelta(hours=abs(hours)) if hours else None
        held = self.attempt(self.ports.reserve_block, project, first, first + more, expires_at=until)
        if held and hours == -1:
            expire(PortAllocation.objects.filter(pk__in=[a.pk for a in held]))

    @precondition(lambda self: PortAllocation.objects.held().filter(expires_at__isnull=False).exists())
    @rule()
    def time_passes(self) -> None:
        """Every reservation that expires has expired, and every request."""
        expire(PortAllocation.objects.filter(status__in=("reserved", "pending"), expires_at__isnull=False))

    @precondition(lambda self: PortAllocation.objects.filter(status="reserved").exists())
    @rule(which=WHICH, before=st.integers(0, 2), more=st.integers(0, 3))
    def release_reservation(self, which: int, before: int, more: int) -> None:
        reserved = PortAllocation.objects.filter(status="reserved").order_by("port_number", "pk")
        one = chosen(list(reserved.select_related("project")), which)
        first, last = one.port_number - before, one.port_number - before + more
        meant = set(reserved.filter(project=one.project, port_number__range=(first, last)).values_list("pk", flat=True))
        others = set(reserved.values_list("pk", flat=True)) - meant
        released = self.attempt(self.ports.release_reservation, one.project.name, first, last)
        assert {a.pk for a in released or ()} == meant
        assert set(reserved.values_list("pk", flat=True)) == others

    @precondition(lambda self: PortAllocation.objects.exists())
    @rule(which=WHICH)
    def release_allocation(self, which: int) -> None:
        pk: UUID = chosen(allocations(), which).pk
        self.attempt(self.ports.release_allocation, pk)
        assert PortAllocation.objects.get(pk=pk).released_at is not None

    @rule(project=st.none() | PROJECTS)
    def audit(self, project: str | None) -> None:
        """Of this host: the other one is not asked, which would take seconds."""
        report = self.attempt(self.ports.audit, project, hostname="localhost")
        if report is not None:
            audited = PortAllocation.objects.filter(status="allocated", hostname="localhost")
            audited = audited.filter(project__name=project) if project else audited
            assert report.summary.allocated == audited.count() == audited.exclude(health=None).count()

    @rule(project=PROJECTS, service=SERVICES, every=st.booleans())
    def release(self, project: str, service: str, every: bool) -> None:
        self.attempt(self.ports.release, project, service, every=every)

    @precondition(lambda self: PortAllocation.objects.exists())
    @rule(which=WHICH, name=SERVICES, tunnel=TUNNELS)
    def update(self, which: int, name: str, tunnel: str | None) -> None:
        pk = chosen(allocations(), which).pk
        self.attempt(self.ports.update_allocation, pk, new_name=name, cloudflare_hostname=tunnel)

    @invariant()
    def nothing_is_broken(self) -> None:
        assert make.broken_invariants() == []

    @invariant()
    def the_next_port_is_the_lowest_free_one(self) -> None:
        assert asked(NOT_THE_LOWEST, host="localhost", protocol="tcp") == []

    @invariant()
    def the_summaries_add_up(self) -> None:
        for project in Project.objects.all():
            summary = self.ports.summary(project.name)
            assert summary.available_ports + summary.allocated_ports + summary.reserved_ports >= summary.total_ports
            assert 0 <= summary.utilization_percent <= 100
            assert sum(r.total_ports for r in summary.ranges) == summary.total_ports


def test_no_sequence_of_operations_breaks_an_invariant() -> None:
    run_state_machine_as_test(
        Registry,
        settings=settings(
            max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
