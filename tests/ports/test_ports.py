"""Test every operation of PortManager: results, refusals, roles and database failures."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection, connections, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from allocations import errors, hosts, sql, validators
from allocations.auth.roles import Caller, Role
from allocations.models import Event, Listener, PortAllocation, PortRange, Project
from allocations.ports import (
    PortManager,
    allocation_spec,
    allocations,
    allocator,
    audits,
    projects,
    ranges,
    reservations,
)
from allocations.ports.db_errors import port_error_for
from allocations.ports.explain import explain
from allocations.ports.operations import Context, operation
from allocations.ports.seed import SEED, own_port, seed
from tests import make

pytestmark = pytest.mark.django_db
FIRST = make.FIRST


class TestGetOrAllocate:
    def test_second_call_returns_the_same_allocation(self, ports: PortManager) -> None:
        first = ports.get_or_allocate("shop", "api", service_type="api", description="Main")
        again = ports.get_or_allocate("shop", "api", description="Other")
        assert (first.port_number, first.created) == (FIRST, True)
        assert (again.pk, again.created, again.description) == (first.pk, False, "Main")

    def test_each_host_gets_its_own_allocation(self, ports: PortManager) -> None:
        ports.get_or_allocate("shop", "api")
        assert ports.get_or_allocate("shop", "api", hostname="web-1").created

    def test_released_service_gets_a_new_allocation(self, ports: PortManager) -> None:
        first = ports.get_or_allocate("shop", "api")
        ports.release("shop", "api")
        again = ports.get_or_allocate("shop", "api")
        assert again.created
        assert again.pk != first.pk

    def test_different_port_is_refused(self, ports: PortManager) -> None:
        ports.get_or_allocate("shop", "api")
        with pytest.raises(errors.AlreadyAllocated, match=f"shop/api already holds {FIRST}/tcp"):
            ports.get_or_allocate("shop", "api", port_number=FIRST + 5)

    def test_existing_allocation_takes_one_query(self, ports: PortManager, django_assert_num_queries: Any) -> None:
        ports.get_or_allocate("shop", "api")
        with django_assert_num_queries(1):
            ports.get_or_allocate("shop", "api")

    def test_new_allocation_takes_five_queries(self, ports: PortManager, django_assert_num_queries: Any) -> None:
        # Lookup, savepoint, actor, hold_port(), release of the savepoint.
        with django_assert_num_queries(5):
            ports.get_or_allocate("shop", "api")


class TestAllocate:
    def test_each_call_adds_an_instance(self, ports: PortManager) -> None:
        instances = [ports.allocate("shop", "api") for _ in range(3)]
        assert [(a.port_number, a.instance) for a in instances] == [(FIRST + n, n) for n in range(3)]

    def test_ranges_are_used_in_order_of_their_ports(self, ports: PortManager) -> None:
        ranges.add(ports.context, "shop", "more", FIRST - 5, FIRST - 4)
        copies = allocations.allocate_copies(ports.context, "shop", "api", 4)
        assert [a.port_number for a in copies] == [FIRST - 5, FIRST - 4, FIRST, FIRST + 1]

    def test_named_range_is_used(self, ports: PortManager) -> None:
        ranges.add(ports.context, "shop", "more", FIRST + 50, FIRST + 59)
        assert ports.allocate("shop", "api", range_name="more").port_number == FIRST + 50

    def test_other_projects_can_name_a_shared_range(self, ports: PortManager) -> None:
        make.port_range("common", FIRST + 50, 5, shared=True)
        assert ports.allocate("shop", "api", range_name="common").port_number == FIRST + 50

    def test_inactive_range_gives_out_no_ports(self, ports: PortManager) -> None:
        PortRange.objects.update(is_active=False)
        with pytest.raises(errors.UnknownRange, match="has no active range"):
            ports.allocate("shop", "api")

    def test_own_reservation_can_be_allocated_by_port_number(self, ports: PortManager) -> None:
        ports.reserve("shop", FIRST + 3)
        assert ports.allocate("shop", "api", port_number=FIRST + 3).port_number == FIRST + 3

    def test_reservation_of_another_project_is_refused(self, ports: PortManager) -> None:
        make.port_range("common", FIRST + 50, 5, shared=True)
        ports.reserve("common", FIRST + 50)
        with pytest.raises(errors.PortTaken, match="held by a reservation of common"):
            ports.allocate("shop", "api", port_number=FIRST + 50)

    def test_unallocated_listener_is_recorded_and_skipped(self, ports: PortManager) -> None:
        with socket.create_server(("127.0.0.2", FIRST)):
            assert ports.allocate("shop", "api").port_number == FIRST + 1
        assert Listener.objects.get().port == FIRST

    def test_other_names_of_this_host_become_localhost(self, ports: PortManager) -> None:
        """Otherwise a port could be allocated twice, and skipping a listener would never end."""
        with socket.create_server(("127.0.0.1", FIRST)):
            first = ports.allocate("shop", "api", hostname=socket.gethostname())
        second = ports.allocate("shop", "web", hostname="127.0.0.1")
        assert [first.hostname, second.hostname] == ["localhost", "localhost"]
        assert [first.port_number, second.port_number] == [FIRST + 1, FIRST + 2]

    def test_listener_that_keeps_restarting_makes_the_port_unavailable(
        self, ports: PortManager, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Simulate an audit that removes the record of the listener each time.
        monkeypatch.setattr(allocator, "_record_listener", lambda error: None)
        with socket.create_server(("127.0.0.1", FIRST)), pytest.raises(errors.Unavailable, match="keeps starting"):
            ports.allocate("shop", "api")
        assert not PortAllocation.objects.exists()

    def test_taken_port_names_the_nearest_free_ports(self, ports: PortManager) -> None:
        ports.allocate("shop", "api", port_number=FIRST + 5)
        ports.reserve("shop", FIRST + 6)
        with socket.create_server(("127.0.0.1", FIRST + 4)):
            near = f"{FIRST + 2}, {FIRST + 3} and {FIRST + 7} are free nearby"
            with pytest.raises(errors.PortTaken, match="adopt it on the dashboard or in the shell"):
                ports.allocate("shop", "web", port_number=FIRST + 4)
            with pytest.raises(errors.PortTaken, match=near) as refused:
                ports.allocate("shop", "web", port_number=FIRST + 5)
        assert refused.value.details["free"] == FIRST + 2

    def test_local_listeners_do_not_affect_other_hosts(self, ports: PortManager) -> None:
        with socket.create_server(("127.0.0.1", FIRST)):
            assert ports.allocate("shop", "api", hostname="web-1").port_number == FIRST

    def test_released_port_is_free_once_its_listener_has_stopped(self, ports: PortManager) -> None:
        with socket.create_server(("127.0.0.1", FIRST)):
            allocations.adopt(ports.context, "shop", "api", port_number=FIRST)
            ports.audit()
        ports.release("shop", "api")
        assert ports.allocate("shop", "web").port_number == FIRST

    def test_released_port_is_skipped_while_its_listener_runs(self, ports: PortManager) -> None:
        with socket.create_server(("127.0.0.1", FIRST)):
            allocations.adopt(ports.context, "shop", "api", port_number=FIRST)
            ports.release("shop", "api")
            assert ports.allocate("shop", "web").port_number == FIRST + 1


def test_a_limited_admin_cannot_find_out_names_by_renaming(ports: PortManager) -> None:
    make.port_range("secret", FIRST + 30, 5)
    shop = Project.objects.get(name="shop")
    limited = PortManager(actor="ann", caller=Caller("ann", Role.ADMIN, frozenset({shop.pk})))
    sentences = set()
    for name in ("secret", "unused"):
        with pytest.raises(errors.NotPermitted, match="cannot rename") as refused:
            projects.update(limited.context, "shop", name=name)
        sentences.add(refused.value.sentence)
    assert len(sentences) == 1
    assert projects.update(limited.context, "shop", name="shop", description="x").description == "x"


class TestAllocateMany:
    def test_ports_follow_the_order_of_the_services(self, ports: PortManager) -> None:
        batch = ports.allocate_many("shop", ["web", "api", "ws"])
        assert [(a.service_name, a.port_number) for a in batch] == [
            ("web", FIRST),
            ("api", FIRST + 1),
            ("ws", FIRST + 2),
        ]

    @pytest.mark.parametrize("services", [["a", "b", "Not A Name"], ["a"] * 21])
    def test_one_refusal_allocates_nothing(self, ports: PortManager, services: list[str]) -> None:
        with pytest.raises(errors.PortError):
            ports.allocate_many("shop", services)
        assert not PortAllocation.objects.exists()

    def test_more_than_500_services_are_refused(self, ports: PortManager) -> None:
        with pytest.raises(errors.InvalidValue, match="at most 500"):
            ports.allocate_many("shop", ["a"] * 501)

    def test_same_specs_return_the_same_allocations(self, ports: PortManager) -> None:
        specs = [allocation_spec("a", port_number=FIRST + 4), allocation_spec("b", protocol="udp")]
        first = ports.allocate_many("shop", specs, new=False)
        assert [a.pk for a in ports.allocate_many("shop", specs, new=False)] == [a.pk for a in first]


class TestUpdate:
    def test_named_fields_change(self, ports: PortManager) -> None:
        ports.allocate("shop", "api", description="old")
        changed = ports.update("shop", "api", description="new", service_name="web", metadata={"a": 1})
        assert (changed.description, changed.service_name, changed.metadata) == ("new", "web", {"a": 1})

    def test_omitted_fields_are_kept(self, ports: PortManager) -> None:
        ports.allocate("shop", "api", description="old", cloudflare_hostname="a.example.com")
        assert ports.update("shop", "api", service_type="x").cloudflare_hostname == "a.example.com"
        assert ports.update("shop", "api", cloudflare_hostname=None).cloudflare_hostname is None

    def test_port_number_cannot_be_changed(self, ports: PortManager) -> None:
        ports.allocate("shop", "api")
        with pytest.raises(errors.InvalidValue, match="port_number cannot be set"):
            ports.update("shop", "api", port_number=1)

    def test_taken_service_name_is_refused(self, ports: PortManager) -> None:
        ports.allocate_many("shop", ["api", "web"])
        with pytest.raises(errors.NameTaken):
            ports.update("shop", "web", service_name="api")

    def test_expiry_of_a_reservation_can_be_removed(self, ports: PortManager) -> None:
        reservation = ports.reserve("shop", FIRST, expires_at=timezone.now() + timedelta(hours=1))
        assert allocations.update_by_id(ports.context, reservation.pk, expires_at=None).expires_at is None


def raised(kind: type[errors.PortError], message: str) -> Callable[[Callable[[PortManager], Any]], Any]:
    return lambda operation: pytest.param(kind, message, operation, id=f"{kind.__name__}: {message}")


REFUSALS = [
    raised(errors.UnknownProject, "Did you mean shop")(lambda p: p.allocate("shp", "api")),
    raised(errors.UnknownService, "Did you mean first")(lambda p: p.release("shop", "frist")),
    raised(errors.UnknownService, "that matches. It holds #0")(lambda p: p.release("shop", "first", instance=7)),
    raised(errors.UnknownRange, "There is no range nope")(lambda p: p.allocate("shop", "api", range_name="nope")),
    raised(errors.UnknownRange, "no such range")(lambda p: ranges.update(p.context, uuid4())),
    raised(errors.UnknownAllocation, "no such allocation")(lambda p: allocations.release_by_id(p.context, uuid4())),
    raised(errors.UnknownAllocation, "no reservation")(lambda p: reservations.release(p.context, "shop", FIRST + 5)),
    raised(errors.RangeExhausted, "all 1 of full")(lambda p: p.allocate("shop", "x", range_name="full")),
    raised(errors.RangeExhausted, "no free block of 65000")(lambda p: projects.add(p.context, "new", size=65000)),
    raised(errors.PortTaken, "held by shop/first. [0-9]+, [0-9]+ and [0-9]+ are free nearby")(
        lambda p: p.allocate("shop", "x", port_number=FIRST)
    ),
    raised(errors.PortTaken, "held by shop/first")(lambda p: p.reserve("shop", FIRST)),
    raised(errors.PortOutOfRange, "outside the ranges of shop")(lambda p: p.allocate("shop", "x", port_number=1)),
    raised(errors.PortOutOfRange, "lies outside full")(
        lambda p: p.allocate("shop", "x", port_number=FIRST, range_name="full")
    ),
    raised(errors.PortOutOfRange, "ports are 1 to 65535")(lambda p: p.reserve("shop", 0)),
    raised(errors.InvalidName, "is not valid")(lambda p: projects.add(p.context, "A B")),
    raised(errors.InvalidValue, "the start port comes first")(lambda p: ranges.add(p.context, "shop", "r", 5, 4)),
    raised(errors.InvalidValue, "is unknown: use")(lambda p: p.list(status="gone")),
    raised(errors.InvalidValue, "longer than zero")(lambda p: audits.prune(p.context, checks=timedelta(0))),
    raised(errors.HostnameTaken, "points at shop/first")(
        lambda p: p.allocate("shop", "x", cloudflare_hostname="a.example.com")
    ),
    raised(errors.NameTaken, "A project named shop already exists")(lambda p: projects.add(p.context, "shop")),
    raised(errors.NameTaken, "named full already exists")(lambda p: ranges.add(p.context, "shop", "full", 1, 2)),
    raised(errors.RangeOverlap, "overlaps shop")(lambda p: ranges.add(p.context, "shop", "r", FIRST + 9, FIRST + 12)),
    raised(errors.RangeInUse, "would lie outside")(
        lambda p: ranges.update(p.context, _range("shop"), start_port=FIRST + 1)
    ),
    raised(errors.RangeInUse, "cannot be deleted")(lambda p: ranges.delete(p.context, _range("shop"))),
    raised(errors.ProjectInUse, "cannot be deleted: 2 ports are held")(lambda p: projects.delete(p.context, "shop")),
    raised(errors.Ambiguous, "name the instance")(lambda p: (p.allocate("shop", "first"), p.release("shop", "first"))),
    raised(errors.NotPermitted, "belongs to other and is not shared")(
        lambda p: (make.port_range("other", FIRST + 60, 5), p.allocate("shop", "x", range_name="other"))
    ),
    raised(errors.AlreadyReleased, "never changes")(
        lambda p: allocations.release_by_id(p.context, p.release("shop", "first")[0].pk)
    ),
]


def _range(name: str) -> Any:
    return PortRange.objects.get(range_name=name).pk


@pytest.mark.parametrize(("kind", "message", "operation"), REFUSALS)
def test_refusal_has_the_expected_type_and_message(
    ports: PortManager, kind: type[errors.PortError], message: str, operation: Callable[[PortManager], Any]
) -> None:
    ports.allocate("shop", "first", cloudflare_hostname="a.example.com")
    ranges.add(ports.context, "shop", "full", FIRST + 40, FIRST + 40)
    ports.allocate("shop", "last", range_name="full")
    with pytest.raises(kind, match=message) as refused:
        operation(ports)
    assert type(refused.value) is kind
    assert str(refused.value).endswith((".", "?"))


def test_range_and_project_with_a_history_cannot_be_deleted(ports: PortManager) -> None:
    ports.allocate("shop", "api")
    ports.release("shop", "api")
    with pytest.raises(errors.RangeInUse, match="deactivate the range"):
        ranges.delete(ports.context, _range("shop"))
    with pytest.raises(errors.PortError, match="history"):
        projects.delete(ports.context, "shop")


OPERATIONS: dict[str, tuple[Role, Callable[[PortManager], Any]]] = {
    "get_or_allocate": (Role.OPERATOR, lambda p: p.get_or_allocate("shop", "api")),
    "allocate": (Role.OPERATOR, lambda p: p.allocate("shop", "api")),
    "allocate_many": (Role.OPERATOR, lambda p: p.allocate_many("shop", ["api"])),
    "adopt": (Role.OPERATOR, lambda p: allocations.adopt(p.context, "shop", "api", port_number=FIRST)),
    "reserve": (Role.OPERATOR, lambda p: p.reserve("shop", FIRST)),
    "release": (Role.OPERATOR, lambda p: p.release("shop", "first")),
    "update": (Role.OPERATOR, lambda p: p.update("shop", "first", description="x")),
    "add_project": (Role.ADMIN, lambda p: projects.add(p.context, "new")),
    "update_project": (Role.ADMIN, lambda p: projects.update(p.context, "shop", description="x")),
    "delete_project": (Role.ADMIN, lambda p: projects.delete(p.context, "empty")),
    "add_range": (Role.ADMIN, lambda p: ranges.add(p.context, "shop", "more", FIRST + 20, FIRST + 29)),
    "update_range": (Role.ADMIN, lambda p: ranges.update(p.context, _range("shop"), description="x")),
    "delete_range": (Role.ADMIN, lambda p: ranges.delete(p.context, _range("empty"))),
    "prune": (Role.ADMIN, lambda p: audits.prune(p.context, checks=timedelta(days=1))),
    "list": (Role.VIEWER, lambda p: p.list("shop")),
    "summary": (Role.VIEWER, lambda p: p.summary("shop")),
    "explain": (Role.VIEWER, lambda p: explain(p.context, FIRST)),
    "audit": (Role.VIEWER, lambda p: p.audit()),
}


@pytest.mark.parametrize("name", sorted(OPERATIONS))
@pytest.mark.parametrize("role", list(Role))
def test_operation_requires_its_role(ports: PortManager, name: str, role: Role) -> None:
    ports.allocate("shop", "first", port_number=FIRST + 5)
    make.port_range("empty", FIRST + 80, 2)
    required_role, operation = OPERATIONS[name]
    manager = PortManager(actor="ann", caller=Caller("ann", role))
    if role >= required_role:
        operation(manager)
    else:
        with pytest.raises(errors.NotPermitted, match=f"role {required_role.label}"):
            operation(manager)


def test_limited_caller_cannot_reach_other_projects(ports: PortManager) -> None:
    other = make.port_range("secret", FIRST + 30, 5)
    held = make.manager().allocate("secret", "api")
    shop = Project.objects.get(name="shop")
    limited = PortManager(actor="ann", caller=Caller("ann", Role.ADMIN, frozenset({shop.pk})))
    with pytest.raises(errors.UnknownProject):
        limited.allocate("secret", "x")
    with pytest.raises(errors.UnknownAllocation):
        allocations.release_by_id(limited.context, held.pk)
    with pytest.raises(errors.UnknownRange):
        ranges.update(limited.context, other.pk, description="x")
    with pytest.raises(errors.RangeOverlap, match="overlaps another range"):
        ranges.add(limited.context, "shop", "r", FIRST + 30, FIRST + 31)
    assert not limited.list().exists()
    assert explain(limited.context, FIRST + 30).allocation is None
    assert "secret/api" not in explain(limited.context, FIRST + 30).sentence


def test_project_in_use_does_not_name_hidden_services(ports: PortManager) -> None:
    """A shared range may hold ports of projects that the caller cannot see."""
    make.port_range("common", FIRST + 30, 5, shared=True)
    ports.allocate("shop", "secret-api", range_name="common")
    common = Project.objects.get(name="common")
    limited = PortManager(actor="ann", caller=Caller("ann", Role.ADMIN, frozenset({common.pk})))
    with pytest.raises(errors.ProjectInUse, match="1 port is held in it") as refused:
        projects.delete(limited.context, "common")
    assert "secret-api" not in str(refused.value)


def test_release_is_ambiguous_between_two_protocols(ports: PortManager) -> None:
    for protocol in ("tcp", "udp"):
        ports.get_or_allocate("shop", "dns", protocol=protocol)
    with pytest.raises(errors.Ambiguous, match="name the protocol or the host") as refused:
        ports.release("shop", "dns")
    assert refused.value.field == "protocol"


class TestSeed:
    def test_new_installation_gets_projects_and_its_own_port(self) -> None:
        assert set(seed(make.manager().context)) == set(SEED)
        own = PortAllocation.objects.get()
        assert (own.label, own.port_number) == ("meta-supervisor/dashboard", 3000)
        assert PortRange.objects.get(range_name="shared-services").is_shared
        assert {r.range_name: (r.start_port, r.end_port) for r in PortRange.objects.all()} == SEED

    def test_seeding_twice_changes_nothing(self) -> None:
        seed(make.manager().context)
        before = Event.objects.count()
        assert seed(make.manager().context) == []
        assert Event.objects.count() == before

    def test_edits_are_kept(self) -> None:
        ports = make.manager()
        seed(ports.context)
        projects.update(ports.context, "consilio", name="renamed")
        projects.delete(ports.context, "odin")
        ports.release("meta-supervisor", "dashboard")
        ranges.update(ports.context, _range("health-agent"), end_port=3410)
        assert seed(ports.context) == []
        assert set(Project.objects.values_list("name", flat=True)) == set(SEED) - {"consilio", "odin"} | {"renamed"}
        assert not PortAllocation.objects.held().exists()

    def test_occupied_span_is_skipped(self) -> None:
        make.port_range("mine", 3250, 10)
        assert "openhorizon" not in seed(make.manager().context)

    def test_own_port_is_the_one_portal_serves_on(self) -> None:
        seed(make.manager().context, port_number=3055)
        assert own_port() == 3055


class TestDatabaseFailures:
    @pytest.mark.django_db(transaction=True)
    def test_deadlock_is_retried(self) -> None:
        """Two operations lock two rows in opposite order; PostgreSQL aborts one of them, and its retry succeeds."""
        make.port_range("shop", FIRST, 10)
        first, second = make.manager().allocate_many("shop", ["a", "b"])
        barrier, failures = threading.Barrier(2, timeout=20), []

        def work(own: PortAllocation, other: PortAllocation) -> None:
            tried: list[int] = []
            try:
                _cross(own, other, barrier, tried)
            except errors.PortError as error:
                failures.append(error)
            finally:
                connections.close_all()
                attempts.append(len(tried))

        attempts: list[int] = []
        threads = [threading.Thread(target=work, args=pair) for pair in ((first, second), (second, first))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert failures == []
        assert sorted(attempts) == [1, 2]

    @pytest.mark.django_db(transaction=True)
    def test_lost_connection_is_reopened(self) -> None:
        make.port_range("shop", FIRST, 10)
        connection.ensure_connection()
        _kill(connection.connection.info.backend_pid)
        assert make.manager().allocate("shop", "api").port_number == FIRST

    @pytest.mark.django_db(transaction=True)
    def test_connection_that_is_lost_during_commit_leaves_the_outcome_unknown(self) -> None:
        make.port_range("shop", FIRST, 10)
        with connection.cursor() as cursor:
            cursor.execute(
                "CREATE FUNCTION end_session() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$"
            )
            cursor.execute(
                "CREATE CONSTRAINT TRIGGER end_session AFTER INSERT ON port_allocations DEFERRABLE INITIALLY DEFERRED "
                "FOR EACH ROW EXECUTE FUNCTION end_session()"
            )
        try:
            with pytest.raises(errors.Unavailable) as refused:
                make.manager().allocate("shop", "api")
        finally:
            connection.close()
            with connection.cursor() as cursor:
                cursor.execute("DROP FUNCTION end_session() CASCADE")
        assert "nobody knows whether it did" in refused.value.sentence
        assert "Nothing was changed" not in refused.value.sentence

    @pytest.mark.django_db(transaction=True)
    def test_statement_timeout_is_reported_and_changes_nothing(self) -> None:
        make.port_range("shop", FIRST, 10)
        with connection.cursor() as cursor:
            cursor.execute("SET statement_timeout = '200ms'")
        other = connection.copy()
        other.set_autocommit(False)
        try:
            with other.cursor() as cursor:
                cursor.execute("LOCK TABLE port_allocations IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(errors.Unavailable, match="took too long") as refused:
                make.manager().allocate("shop", "api")
            assert refused.value.status == 503
            assert refused.value.details["retry_after"] > 0
        finally:
            other.rollback()
            other.close()
            with connection.cursor() as cursor:
                cursor.execute("RESET statement_timeout")
        assert not PortAllocation.objects.exists()

    def test_programming_error_is_raised_unchanged(self) -> None:
        from django.db import ProgrammingError

        with pytest.raises(ProgrammingError) as fault, transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELEC 1")
        with pytest.raises(ProgrammingError):
            port_error_for(fault.value)


def _cross(own: PortAllocation, other: PortAllocation, barrier: threading.Barrier, attempts: list[int]) -> None:
    """Update both rows in one operation, and wait between them for the other thread, to provoke a real deadlock."""

    @operation(Role.OPERATOR, "cross")
    def cross(context: Context) -> None:
        attempts.append(1)
        PortAllocation.objects.filter(pk=own.pk).update(description=f"{len(attempts)}")
        if len(attempts) == 1:
            barrier.wait()
        PortAllocation.objects.filter(pk=other.pk).update(description=f"{len(attempts)}")

    cross(Context.trusted("worker"))


def _kill(pid: int) -> None:
    killer = connection.copy()
    with killer.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    killer.close()


def test_allocate_works_in_a_transaction_that_locked_the_range(ports: PortManager) -> None:
    sql.lock_ranges({_range("shop")})
    assert ports.allocate("shop", "api").port_number == FIRST


def test_every_error_has_a_unique_documented_code() -> None:
    def kinds(kind: type[errors.PortError]) -> list[type[errors.PortError]]:
        return [kind, *(k for sub in kind.__subclasses__() for k in kinds(sub))]

    codes = [kind.code for kind in kinds(errors.PortError)]
    assert len(set(codes)) == len(codes)
    documentation = errors.__doc__ or ""
    for kind in kinds(errors.PortError):
        assert f"{kind.status}  {kind.code}" in documentation


class TestExpiredReservation:
    """A reservation holds nothing from the moment it expires, even before a job releases it."""

    @pytest.fixture
    def expired(self, ports: PortManager) -> PortAllocation:
        held = ports.reserve("shop", FIRST + 9)
        PortAllocation.objects.filter(pk=held.pk).update(cloudflare_hostname="shop.example.com")
        make.expire(PortAllocation.objects.filter(pk=held.pk))
        return held

    def test_range_can_shrink_past_it(self, ports: PortManager, expired: PortAllocation) -> None:
        assert ranges.update(ports.context, expired.port_range_id, end_port=FIRST + 8).end_port == FIRST + 8

    def test_its_cloudflare_hostname_is_free(self, ports: PortManager, expired: PortAllocation) -> None:
        allocation = ports.allocate("shop", "web", cloudflare_hostname="shop.example.com")
        assert allocation.cloudflare_hostname == "shop.example.com"


def test_names_with_a_nul_character_are_refused(ports: PortManager) -> None:
    for method in (ports.allocate, ports.get_or_allocate):
        with pytest.raises(errors.InvalidName, match="is not valid"):
            method("shop\0", "web")
    with pytest.raises(errors.InvalidValue):
        PortManager(actor="a\0b").allocate("shop", "web")


def test_addresses_of_this_machine_become_localhost(ports: PortManager) -> None:
    addresses = [a for a in hosts._interface_addresses() if a.count(".") == 3 and not a.startswith("127.")]
    own = (addresses or ["127.0.0.1"])[0]
    assert validators.hostname(own) == "localhost"
    ports.allocate("shop", "web")
    assert ports.get_or_allocate("shop", "web", hostname=own).created is False


def test_reserving_an_invalid_port_says_it_is_out_of_range(ports: PortManager) -> None:
    with pytest.raises(errors.PortOutOfRange, match=r"^Port number 70000 is out of range"):
        ports.reserve("shop", 70000)


def test_near_names_among_many_are_found_without_reading_all(ports: PortManager) -> None:
    Project.objects.bulk_create([Project(name=f"a{n:05}") for n in range(3000)])
    Project.objects.bulk_create([Project(name=f"z{n:05}") for n in range(3000)])
    with CaptureQueriesContext(connection) as queries, pytest.raises(errors.UnknownProject) as refused:
        ports.allocate("shopp", "api")
    assert refused.value.details["nearest"] == ["shop"]
    assert "Did you mean shop?" in refused.value.sentence
    reading = [query["sql"] for query in queries if "DISTINCT" in query["sql"]]
    assert len(reading) == 3
    assert all("LIMIT" in query for query in reading)
