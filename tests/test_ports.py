"""PortManager, operation by operation: it works, and what it refuses. Then: what if the database falters."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection, connections, transaction
from django.utils import timezone

from allocations import errors, hosts, sql, words
from allocations.access import Caller, Role
from allocations.models import Event, Listener, PortAllocation, PortRange, Project
from allocations.ports import PortManager, wish
from allocations.ports.refusals import refusal_of
from allocations.ports.seeding import SEED
from tests import make

pytestmark = pytest.mark.django_db
FIRST = make.FIRST


@pytest.fixture
def ports() -> PortManager:
    make.port_range("shop", FIRST, 10)
    return make.manager()


class TestGetOrAllocate:
    def test_it_works(self, ports: PortManager) -> None:
        first = ports.get_or_allocate("shop", "api", service_type="api", description="Main")
        again = ports.get_or_allocate("shop", "api", description="Other")
        assert (first.port_number, first.created) == (FIRST, True)
        assert (again.pk, again.created, again.description) == (first.pk, False, "Main")

    def test_another_host_is_another_port(self, ports: PortManager) -> None:
        ports.get_or_allocate("shop", "api")
        assert ports.get_or_allocate("shop", "api", hostname="web-1").created

    def test_after_release_it_is_new(self, ports: PortManager) -> None:
        first = ports.get_or_allocate("shop", "api")
        ports.release("shop", "api")
        again = ports.get_or_allocate("shop", "api")
        assert again.created
        assert again.pk != first.pk

    def test_another_port_than_it_has(self, ports: PortManager) -> None:
        ports.get_or_allocate("shop", "api")
        with pytest.raises(errors.AlreadyAllocated, match=f"shop/api holds {FIRST}/tcp already"):
            ports.get_or_allocate("shop", "api", port=FIRST + 5)

    def test_the_known_one_costs_one_query(self, ports: PortManager, django_assert_num_queries: Any) -> None:
        ports.get_or_allocate("shop", "api")
        with django_assert_num_queries(1):
            ports.get_or_allocate("shop", "api")

    def test_a_new_one_costs_a_few(self, ports: PortManager, django_assert_num_queries: Any) -> None:
        # look; savepoint, actor, hold, savepoint
        with django_assert_num_queries(5):
            ports.get_or_allocate("shop", "api")


class TestAllocate:
    def test_always_a_new_instance(self, ports: PortManager) -> None:
        given = [ports.allocate("shop", "api") for _ in range(3)]
        assert [(a.port_number, a.instance) for a in given] == [(FIRST + n, n) for n in range(3)]

    def test_ranges_are_used_up_in_order(self, ports: PortManager) -> None:
        ports.add_range("shop", "more", FIRST - 5, FIRST - 4)
        given = ports.allocate_copies("shop", "api", 4)
        assert [a.port_number for a in given] == [FIRST - 5, FIRST - 4, FIRST, FIRST + 1]

    def test_a_named_range(self, ports: PortManager) -> None:
        ports.add_range("shop", "more", FIRST + 50, FIRST + 59)
        assert ports.allocate("shop", "api", range_name="more").port_number == FIRST + 50

    def test_a_shared_range_serves_those_who_name_it(self, ports: PortManager) -> None:
        make.port_range("common", FIRST + 50, 5, shared=True)
        assert ports.allocate("shop", "api", range_name="common").port_number == FIRST + 50

    def test_an_inactive_range_gives_nothing(self, ports: PortManager) -> None:
        PortRange.objects.update(is_active=False)
        with pytest.raises(errors.UnknownRange, match="has no active range"):
            ports.allocate("shop", "api")

    def test_its_own_reservation_is_taken_when_it_is_named(self, ports: PortManager) -> None:
        ports.reserve("shop", FIRST + 3)
        assert ports.allocate("shop", "api", port=FIRST + 3).port_number == FIRST + 3

    def test_the_reservation_of_another_is_not(self, ports: PortManager) -> None:
        make.port_range("common", FIRST + 50, 5, shared=True)
        ports.reserve("common", FIRST + 50)
        with pytest.raises(errors.PortTaken, match="held by a reservation of common"):
            ports.allocate("shop", "api", port=FIRST + 50)

    def test_an_unregistered_listener_is_remembered_and_passed_by(self, ports: PortManager) -> None:
        with socket.create_server(("127.0.0.2", FIRST)):
            assert ports.allocate("shop", "api").port_number == FIRST + 1
        assert Listener.objects.get().port == FIRST

    def test_this_host_by_another_name_is_this_host(self, ports: PortManager) -> None:
        """Under two names one port would be handed out twice, and the walk past a listener would never end."""
        with socket.create_server(("127.0.0.1", FIRST)):
            first = ports.allocate("shop", "api", hostname=socket.gethostname())
        second = ports.allocate("shop", "web", hostname="127.0.0.1")
        assert [first.hostname, second.hostname] == ["localhost", "localhost"]
        assert [first.port_number, second.port_number] == [FIRST + 1, FIRST + 2]

    def test_a_listener_that_comes_and_goes_holds_up_nobody(self, ports: PortManager) -> None:
        class Forgetful(PortManager):
            def _remember(self, *_: Any) -> None:
                pass  # as if an audit had just seen that nothing listens there any more

        with socket.create_server(("127.0.0.1", FIRST)), pytest.raises(errors.Unavailable, match="all the time"):
            Forgetful(actor="test").allocate("shop", "api")
        assert not PortAllocation.objects.exists()

    def test_a_taken_port_names_the_nearest_free_ones(self, ports: PortManager) -> None:
        ports.allocate("shop", "api", port=FIRST + 5)
        ports.reserve("shop", FIRST + 6)
        with socket.create_server(("127.0.0.1", FIRST + 4)):
            near = f"{FIRST + 2}, {FIRST + 3} and {FIRST + 7} are free near it"
            with pytest.raises(errors.PortTaken, match="adopt it in the dashboard or the shell"):
                ports.allocate("shop", "web", port=FIRST + 4)
            with pytest.raises(errors.PortTaken, match=near) as refused:
                ports.allocate("shop", "web", port=FIRST + 5)
        assert refused.value.details["free"] == FIRST + 2

    def test_on_another_host_this_ones_listeners_do_not_matter(self, ports: PortManager) -> None:
        with socket.create_server(("127.0.0.1", FIRST)):
            assert ports.allocate("shop", "api", hostname="web-1").port_number == FIRST

    def test_release_forgets_a_listener_that_is_gone(self, ports: PortManager) -> None:
        with socket.create_server(("127.0.0.1", FIRST)):
            ports.adopt("shop", "api", port=FIRST)
            ports.audit()
        ports.release("shop", "api")
        assert ports.allocate("shop", "web").port_number == FIRST

    def test_and_remembers_one_that_stays(self, ports: PortManager) -> None:
        with socket.create_server(("127.0.0.1", FIRST)):
            ports.adopt("shop", "api", port=FIRST)
            ports.release("shop", "api")
            assert ports.allocate("shop", "web").port_number == FIRST + 1


class TestMany:
    def test_in_the_order_given(self, ports: PortManager) -> None:
        given = ports.allocate_many("shop", ["web", "api", "ws"])
        assert [(a.service_name, a.port_number) for a in given] == [
            ("web", FIRST),
            ("api", FIRST + 1),
            ("ws", FIRST + 2),
        ]

    @pytest.mark.parametrize("services", [["a", "b", "Not A Name"], ["a"] * 11])
    def test_all_or_none(self, ports: PortManager, services: list[str]) -> None:
        with pytest.raises(errors.PortError):
            ports.allocate_many("shop", services)
        assert not PortAllocation.objects.exists()

    def test_too_many(self, ports: PortManager) -> None:
        with pytest.raises(errors.InvalidValue, match="at most 500"):
            ports.allocate_many("shop", ["a"] * 501)

    def test_wishes_and_repetition(self, ports: PortManager) -> None:
        asked = [wish("a", port=FIRST + 4), wish("b", protocol="udp")]
        first = ports.allocate_many("shop", asked, new=False)
        assert [a.pk for a in ports.allocate_many("shop", asked, new=False)] == [a.pk for a in first]


class TestUpdate:
    def test_it_works(self, ports: PortManager) -> None:
        ports.allocate("shop", "api", description="old")
        changed = ports.update("shop", "api", description="new", new_name="web", metadata={"a": 1})
        assert (changed.description, changed.service_name, changed.metadata) == ("new", "web", {"a": 1})

    def test_what_is_not_named_stays(self, ports: PortManager) -> None:
        ports.allocate("shop", "api", description="old", cloudflare_hostname="a.example.com")
        assert ports.update("shop", "api", service_type="x").cloudflare_hostname == "a.example.com"
        assert ports.update("shop", "api", cloudflare_hostname=None).cloudflare_hostname is None

    def test_what_cannot_be_changed(self, ports: PortManager) -> None:
        ports.allocate("shop", "api")
        with pytest.raises(errors.InvalidValue, match="port_number cannot be changed"):
            ports.update("shop", "api", port_number=1)

    def test_a_name_that_is_taken(self, ports: PortManager) -> None:
        ports.allocate_many("shop", ["api", "web"])
        with pytest.raises(errors.NameTaken):
            ports.update("shop", "web", new_name="api")

    def test_a_reservation_may_last_longer(self, ports: PortManager) -> None:
        held = ports.reserve("shop", FIRST, expires_at=timezone.now() + timedelta(hours=1))
        assert ports.update_allocation(held.pk, expires_at=None).expires_at is None


def raised(kind: type[errors.PortError], said: str) -> Callable[[Callable[[PortManager], Any]], Any]:
    return lambda operation: pytest.param(kind, said, operation, id=f"{kind.__name__}: {said}")


REFUSALS = [
    raised(errors.UnknownProject, "Did you mean shop")(lambda p: p.allocate("shp", "api")),
    raised(errors.UnknownService, "Did you mean first")(lambda p: p.release("shop", "frist")),
    raised(errors.UnknownService, "nothing that fits; it holds #0")(lambda p: p.release("shop", "first", instance=7)),
    raised(errors.UnknownRange, "There is no range nope")(lambda p: p.allocate("shop", "api", range_name="nope")),
    raised(errors.UnknownRange, "no such range")(lambda p: p.update_range(uuid4())),
    raised(errors.UnknownAllocation, "no such allocation")(lambda p: p.release_allocation(uuid4())),
    raised(errors.UnknownAllocation, "no reservation")(lambda p: p.release_reservation("shop", FIRST + 5)),
    raised(errors.RangeExhausted, "all 1 of full")(lambda p: p.allocate("shop", "x", range_name="full")),
    raised(errors.RangeExhausted, "no free block of 65000")(lambda p: p.add_project("new", size=65000)),
    raised(errors.PortTaken, "held by shop/first. [0-9]+, [0-9]+ and [0-9]+ are free near it")(
        lambda p: p.allocate("shop", "x", port=FIRST)
    ),
    raised(errors.PortTaken, "held by shop/first")(lambda p: p.reserve("shop", FIRST)),
    raised(errors.PortOutOfRange, "outside the ranges of shop")(lambda p: p.allocate("shop", "x", port=1)),
    raised(errors.PortOutOfRange, "lies outside full")(
        lambda p: p.allocate("shop", "x", port=FIRST, range_name="full")
    ),
    raised(errors.PortOutOfRange, "ports are 1 to 65535")(lambda p: p.reserve("shop", 0)),
    raised(errors.InvalidName, "is not a name")(lambda p: p.add_project("A B")),
    raised(errors.InvalidValue, "upside down")(lambda p: p.add_range("shop", "r", 5, 4)),
    raised(errors.InvalidValue, "is unknown: use")(lambda p: p.list(status="gone")),
    raised(errors.InvalidValue, "longer than nothing")(lambda p: p.prune(checks=timedelta(0))),
    raised(errors.HostnameTaken, "points at shop/first")(
        lambda p: p.allocate("shop", "x", cloudflare_hostname="a.example.com")
    ),
    raised(errors.NameTaken, "A project named shop exists")(lambda p: p.add_project("shop")),
    raised(errors.NameTaken, "A range named full exists")(lambda p: p.add_range("shop", "full", 1, 2)),
    raised(errors.RangeOverlap, "overlaps shop")(lambda p: p.add_range("shop", "r", FIRST + 9, FIRST + 12)),
    raised(errors.RangeInUse, "would lie outside")(lambda p: p.update_range(_range("shop"), start=FIRST + 1)),
    raised(errors.RangeInUse, "cannot be deleted")(lambda p: p.delete_range(_range("shop"))),
    raised(errors.ProjectInUse, "cannot be deleted: 2 ports are held")(lambda p: p.delete_project("shop")),
    raised(errors.Ambiguous, "say which instance")(lambda p: (p.allocate("shop", "first"), p.release("shop", "first"))),
    raised(errors.NotPermitted, "belongs to other and is not shared")(
        lambda p: (make.port_range("other", FIRST + 60, 5), p.allocate("shop", "x", range_name="other"))
    ),
    raised(errors.AlreadyReleased, "never changes")(lambda p: p.release_allocation(p.release("shop", "first")[0].pk)),
]


def _range(name: str) -> Any:
    return PortRange.objects.get(range_name=name).pk


@pytest.mark.parametrize(("kind", "said", "operation"), REFUSALS)
def test_refusals(
    ports: PortManager, kind: type[errors.PortError], said: str, operation: Callable[[PortManager], Any]
) -> None:
    ports.allocate("shop", "first", cloudflare_hostname="a.example.com")
    ports.add_range("shop", "full", FIRST + 40, FIRST + 40)
    ports.allocate("shop", "last", range_name="full")
    with pytest.raises(kind, match=said) as refused:
        operation(ports)
    assert type(refused.value) is kind
    assert str(refused.value).endswith((".", "?"))


def test_a_history_keeps_its_range_and_project(ports: PortManager) -> None:
    ports.allocate("shop", "api")
    ports.release("shop", "api")
    with pytest.raises(errors.RangeInUse, match="deactivate the range"):
        ports.delete_range(_range("shop"))
    with pytest.raises(errors.PortError, match="history"):
        ports.delete_project("shop")


OPERATIONS: dict[str, tuple[Role, Callable[[PortManager], Any]]] = {
    "get_or_allocate": (Role.OPERATOR, lambda p: p.get_or_allocate("shop", "api")),
    "allocate": (Role.OPERATOR, lambda p: p.allocate("shop", "api")),
    "allocate_many": (Role.OPERATOR, lambda p: p.allocate_many("shop", ["api"])),
    "adopt": (Role.OPERATOR, lambda p: p.adopt("shop", "api", port=FIRST)),
    "reserve": (Role.OPERATOR, lambda p: p.reserve("shop", FIRST)),
    "release": (Role.OPERATOR, lambda p: p.release("shop", "first")),
    "update": (Role.OPERATOR, lambda p: p.update("shop", "first", description="x")),
    "add_project": (Role.ADMIN, lambda p: p.add_project("new")),
    "update_project": (Role.ADMIN, lambda p: p.update_project("shop", description="x")),
    "delete_project": (Role.ADMIN, lambda p: p.delete_project("empty")),
    "add_range": (Role.ADMIN, lambda p: p.add_range("shop", "more", FIRST + 20, FIRST + 29)),
    "update_range": (Role.ADMIN, lambda p: p.update_range(_range("shop"), description="x")),
    "delete_range": (Role.ADMIN, lambda p: p.delete_range(_range("empty"))),
    "prune": (Role.ADMIN, lambda p: p.prune(checks=timedelta(days=1))),
    "list": (Role.VIEWER, lambda p: p.list("shop")),
    "summary": (Role.VIEWER, lambda p: p.summary("shop")),
    "explain": (Role.VIEWER, lambda p: p.explain(FIRST)),
    "audit": (Role.VIEWER, lambda p: p.audit()),
}


@pytest.mark.parametrize("name", sorted(OPERATIONS))
@pytest.mark.parametrize("role", list(Role))
def test_rights(ports: PortManager, name: str, role: Role) -> None:
    ports.allocate("shop", "first", port=FIRST + 5)
    make.port_range("empty", FIRST + 80, 2)
    needed, operation = OPERATIONS[name]
    manager = PortManager(actor="ann", caller=Caller("ann", role))
    if role >= needed:
        operation(manager)
    else:
        with pytest.raises(errors.NotPermitted, match=f"role {needed.label}"):
            operation(manager)


def test_what_one_may_not_see_does_not_exist(ports: PortManager) -> None:
    other = make.port_range("secret", FIRST + 30, 5)
    held = make.manager().allocate("secret", "api")
    shop = Project.objects.get(name="shop")
    limited = PortManager(actor="ann", caller=Caller("ann", Role.ADMIN, frozenset({shop.pk})))
    with pytest.raises(errors.UnknownProject):
        limited.allocate("secret", "x")
    with pytest.raises(errors.UnknownAllocation):
        limited.release_allocation(held.pk)
    with pytest.raises(errors.UnknownRange):
        limited.update_range(other.pk, description="x")
    with pytest.raises(errors.RangeOverlap, match="overlaps another range"):
        limited.add_range("shop", "r", FIRST + 30, FIRST + 31)
    assert not limited.list().exists()
    assert limited.explain(FIRST + 30).allocation is None
    assert "secret/api" not in limited.explain(FIRST + 30).sentence


def test_a_project_in_use_tells_no_names_of_others(ports: PortManager) -> None:
    """Others may hold ports in a shared range of it."""
    make.port_range("common", FIRST + 30, 5, shared=True)
    ports.allocate("shop", "secret-api", range_name="common")
    common = Project.objects.get(name="common")
    limited = PortManager(actor="ann", caller=Caller("ann", Role.ADMIN, frozenset({common.pk})))
    with pytest.raises(errors.ProjectInUse, match="1 port is held in it") as refused:
        limited.delete_project("common")
    assert "secret-api" not in str(refused.value)


def test_two_protocols_of_one_instance_are_told_apart(ports: PortManager) -> None:
    for protocol in ("tcp", "udp"):
        ports.get_or_allocate("shop", "dns", protocol=protocol)
    with pytest.raises(errors.Ambiguous, match="say which protocol or host") as refused:
        ports.release("shop", "dns")
    assert refused.value.field == "protocol"


class TestSeeding:
    def test_a_new_installation(self) -> None:
        assert set(make.manager().seed()) == set(SEED)
        own = PortAllocation.objects.get()
        assert (own.label, own.port_number) == ("meta-supervisor/dashboard", 3000)
        assert PortRange.objects.get(range_name="shared-services").is_shared
        assert {r.range_name: (r.start_port, r.end_port) for r in PortRange.objects.all()} == SEED

    def test_twice_changes_nothing(self) -> None:
        make.manager().seed()
        before = Event.objects.count()
        assert make.manager().seed() == []
        assert Event.objects.count() == before

    def test_it_undoes_no_edit(self) -> None:
        ports = make.manager()
        ports.seed()
        ports.update_project("consilio", new_name="renamed")
        ports.delete_project("odin")
        ports.release("meta-supervisor", "dashboard")
        ports.update_range(_range("health-agent"), end=3410)
        assert ports.seed() == []
        assert set(Project.objects.values_list("name", flat=True)) == set(SEED) - {"consilio", "odin"} | {"renamed"}
        assert not PortAllocation.objects.held().exists()

    def test_a_span_that_is_taken_is_left_to_who_has_it(self) -> None:
        make.port_range("mine", 3250, 10)
        assert "openhorizon" not in make.manager().seed()

    def test_its_own_port_where_it_serves(self) -> None:
        make.manager().seed(port=3055)
        assert make.manager().own_port() == 3055


class TestTheDatabaseFalters:
    @pytest.mark.django_db(transaction=True)
    def test_a_deadlock_is_retried_inside(self) -> None:
        """Two operations lock two rows in opposite order; PostgreSQL ends one of them, and its retry succeeds."""
        make.port_range("shop", FIRST, 10)
        first, second = make.manager().allocate_many("shop", ["a", "b"])
        barrier, failures = threading.Barrier(2, timeout=20), []

        def work(own: PortAllocation, other: PortAllocation) -> None:
            manager, tried = _Crossing("worker"), []
            try:
                manager.cross(own, other, barrier, tried)
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
    def test_a_connection_that_died_is_opened_again(self) -> None:
        make.port_range("shop", FIRST, 10)
        connection.ensure_connection()
        _kill(connection.connection.info.backend_pid)
        assert make.manager().allocate("shop", "api").port_number == FIRST

    @pytest.mark.django_db(transaction=True)
    def test_a_statement_that_takes_too_long_is_unavailable_and_nothing_is_done(self) -> None:
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

    def test_a_bug_is_not_dressed_up(self) -> None:
        from django.db import ProgrammingError

        with pytest.raises(ProgrammingError) as fault, transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELEC 1")
        assert refusal_of(fault.value) is None


class _Crossing(PortManager):
    """An operation that meets another half-way, to provoke a deadlock for real."""

    def cross(self, own: PortAllocation, other: PortAllocation, barrier: threading.Barrier, tried: list[int]) -> None:
        from allocations.ports.base import operation

        @operation(Role.OPERATOR, "cross")
        def run(manager: PortManager) -> None:
            tried.append(1)
            PortAllocation.objects.filter(pk=own.pk).update(description=f"{len(tried)}")
            if len(tried) == 1:
                barrier.wait()
            PortAllocation.objects.filter(pk=other.pk).update(description=f"{len(tried)}")

        run(self)


def _kill(pid: int) -> None:
    killer = connection.copy()
    with killer.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    killer.close()


def test_take_turns_is_only_for_many(ports: PortManager) -> None:
    sql.take_turns({_range("shop")})
    assert ports.allocate("shop", "api").port_number == FIRST


def test_everything_that_is_refused_has_a_code_of_its_own() -> None:
    def kinds(kind: type[errors.PortError]) -> list[type[errors.PortError]]:
        return [kind, *(k for sub in kind.__subclasses__() for k in kinds(sub))]

    codes = [kind.code for kind in kinds(errors.PortError)]
    assert len(set(codes)) == len(codes)
    drawn = errors.__doc__ or ""
    for kind in kinds(errors.PortError):
        assert f"{kind.status}  {kind.code}" in drawn


class TestWhatHasExpired:
    """It is free at that moment, for everybody, whether or not a job has run."""

    @pytest.fixture
    def expired(self, ports: PortManager) -> PortAllocation:
        held = ports.reserve("shop", FIRST + 9)
        PortAllocation.objects.filter(pk=held.pk).update(
            expires_at="2020-01-01T00:00:00Z", cloudflare_hostname="shop.example.com"
        )
        return held

    def test_a_range_may_shrink_past_it(self, ports: PortManager, expired: PortAllocation) -> None:
        assert ports.update_range(expired.port_range_id, end=FIRST + 8).end_port == FIRST + 8

    def test_its_cloudflare_hostname_is_free(self, ports: PortManager, expired: PortAllocation) -> None:
        given = ports.allocate("shop", "web", cloudflare_hostname="shop.example.com")
        assert given.cloudflare_hostname == "shop.example.com"


def test_a_name_with_a_nul_is_refused_in_a_sentence(ports: PortManager) -> None:
    for operation in (ports.allocate, ports.get_or_allocate):
        with pytest.raises(errors.InvalidName, match="is not a name"):
            operation("shop\0", "web")
    with pytest.raises(errors.InvalidValue):
        PortManager(actor="a\0b").allocate("shop", "web")


def test_an_address_of_this_machine_is_this_machine(ports: PortManager) -> None:
    (own, *_) = [a for a in hosts._own_addresses() if a.count(".") == 3 and not a.startswith("127.")] or ["127.0.0.1"]
    assert words.host(own) == "localhost"
    ports.allocate("shop", "web")
    assert ports.get_or_allocate("shop", "web", hostname=own).created is False


def test_a_port_that_cannot_be_reserved_is_called_so(ports: PortManager) -> None:
    with pytest.raises(errors.PortOutOfRange, match=r"^port 70000 is not a port"):
        ports.reserve("shop", 70000)
