"""A state machine over all operations; after each step the invariants are asked of the database, as SQL."""

from __future__ import annotations

import contextlib
import itertools
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
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

from allocations.errors import PortError
from allocations.models import PortAllocation, PortRange, Project
from allocations.ports import PortManager
from tests import make

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

FIRST = make.FIRST
PROJECTS = st.sampled_from(["alpha", "beta", "gamma"])
SERVICES = st.sampled_from(["web", "api", "db"])
HOSTS = st.sampled_from(["localhost", "web-1"])
PROTOCOLS = st.sampled_from(["tcp", "udp"])
PORTS = st.integers(FIRST, FIRST + 40)
TUNNELS = st.sampled_from([None, "a.example.com", "b.example.com"])


class Registry(RuleBasedStateMachine):
    """What may be refused is refused as a PortError; whatever else is raised fails the run."""

    def __init__(self) -> None:
        super().__init__()
        self.savepoint = transaction.atomic()
        self.savepoint.__enter__()
        self.ports = PortManager(actor="machine")
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

    @rule(which=st.integers(0, 5), start=PORTS, size=st.integers(-1, 12), shared=st.booleans(), active=st.booleans())
    def update_range(self, which: int, start: int, size: int, shared: bool, active: bool) -> None:
        ranges = list(PortRange.objects.all())
        if ranges:
            chosen = ranges[which % len(ranges)]
            self.attempt(
                self.ports.update_range, chosen.pk, start=start, end=start + size, shared=shared, active=active
            )

    @rule(which=st.integers(0, 5), owner=PROJECTS)
    def give_range_away(self, which: int, owner: str) -> None:
        ranges = list(PortRange.objects.all())
        if ranges:
            self.attempt(self.ports.update_range, ranges[which % len(ranges)].pk, project=owner)

    @rule(which=st.integers(0, 5))
    def delete_range(self, which: int) -> None:
        ranges = list(PortRange.objects.all())
        if ranges:
            self.attempt(self.ports.delete_range, ranges[which % len(ranges)].pk)

    @rule(name=PROJECTS)
    def delete_project(self, name: str) -> None:
        self.attempt(self.ports.delete_project, name)

    @rule(project=PROJECTS, service=SERVICES, host=HOSTS, protocol=PROTOCOLS, tunnel=TUNNELS)
    def get_or_allocate(self, project: str, service: str, host: str, protocol: str, tunnel: str | None) -> None:
        where = {"hostname": host, "protocol": protocol}
        given = self.attempt(self.ports.get_or_allocate, project, service, cloudflare_hostname=tunnel, **where)
        if given:
            assert self.ports.get_or_allocate(project, service, **where).pk == given.pk

    @rule(project=PROJECTS, service=SERVICES, host=HOSTS, port=st.none() | PORTS)
    def allocate(self, project: str, service: str, host: str, port: int | None) -> None:
        before = set(
            PortAllocation.objects.exclude(status="released").values_list("port_number", "hostname", "protocol")
        )
        given = self.attempt(self.ports.allocate, project, service, hostname=host, port=port)
        if given and port is None:
            free_below = [
                p
                for r in PortRange.objects.active().filter(project__name=project)
                for p in range(r.start_port, r.end_port + 1)
                if p < given.port_number and (p, host, "tcp") not in before
            ]
            expired = set(free_below) - {p for p, *_ in before}
            assert not expired, f"{given.port_number} is not the lowest free port: {sorted(expired)}"

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

    @rule(project=PROJECTS, first=PORTS, more=st.integers(0, 3), expires=st.booleans())
    def reserve(self, project: str, first: int, more: int, expires: bool) -> None:
        until = timezone.now() + timedelta(hours=1) if expires else None
        self.attempt(self.ports.reserve_block, project, first, first + more, expires_at=until)

    @rule()
    def time_passes(self) -> None:
        """Every reservation that expires has expired."""
        PortAllocation.objects.filter(status="reserved", expires_at__isnull=False).update(
            expires_at=timezone.now() - timedelta(seconds=1)
        )

    @rule(project=PROJECTS, service=SERVICES, every=st.booleans())
    def release(self, project: str, service: str, every: bool) -> None:
        self.attempt(self.ports.release, project, service, every=every)

    @precondition(lambda self: PortAllocation.objects.exists())
    @rule(which=st.integers(0, 30), name=SERVICES, tunnel=TUNNELS)
    def update(self, which: int, name: str, tunnel: str | None) -> None:
        rows = list(PortAllocation.objects.order_by("allocated_at", "pk"))
        chosen = rows[which % len(rows)]
        self.attempt(self.ports.update_allocation, chosen.pk, new_name=name, cloudflare_hostname=tunnel)

    @invariant()
    def nothing_is_broken(self) -> None:
        assert make.broken_invariants() == []

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
            max_examples=50, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
