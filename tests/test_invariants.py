"""The ten invariants of the registry against raw SQL and bulk ORM calls: the database itself keeps them."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from django.db import DatabaseError, connection, transaction

from allocations import words
from allocations.models import Event, PortAllocation, PortRange, Project
from allocations.ports import PortManager
from allocations.ports.refusals import constraint_of, refusal_of
from tests import make

pytestmark = [pytest.mark.django_db, pytest.mark.both_servers]
FIRST = make.FIRST


def sql(text: str, *values: Any) -> Any:
    """Run one statement; its first row, if it has any."""
    with connection.cursor() as cursor:
        cursor.execute(text, values)
        return cursor.fetchone() if cursor.description else cursor.rowcount


class refused:  # noqa: N801 reads like pytest.raises
    """The statement inside is refused by the constraint of that name, and a person can read why."""

    def __init__(self, constraint: str) -> None:
        self.constraint = constraint

    def __enter__(self) -> None:
        self.savepoint = transaction.atomic()
        self.savepoint.__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> bool:
        self.savepoint.__exit__(kind, error, trace)
        assert isinstance(error, DatabaseError), f"nothing refused it: expected {self.constraint}"
        assert constraint_of(error) == self.constraint, error
        said = refusal_of(error)
        assert said is not None
        assert said.sentence.endswith(".")
        return True


@pytest.fixture
def shop() -> PortRange:
    return make.port_range("shop", FIRST, 20)


@pytest.fixture
def api(shop: PortRange) -> PortAllocation:
    return make.manager().allocate("shop", "api")


def insert(shop: PortRange, **columns: Any) -> Any:
    """A raw INSERT of an allocation of shop."""
    values = {
        "project_id": shop.project_id,
        "port_range_id": shop.pk,
        "port_number": FIRST + 5,
        "service_name": "raw",
    } | columns
    names = ", ".join(values)
    marks = ", ".join(["%s"] * len(values))
    return sql(f"INSERT INTO port_allocations ({names}) VALUES ({marks}) RETURNING id", *values.values())[0]


class TestRangesNeverOverlap:
    @pytest.mark.parametrize(("start", "end"), [(0, 0), (-5, 0), (19, 30), (5, 6), (-5, 30), (0, 19)])
    def test_insert(self, shop: PortRange, start: int, end: int) -> None:
        with refused("port_ranges_no_overlap"):
            sql(
                "INSERT INTO port_ranges (project_id, range_name, start_port, end_port) VALUES (%s, 'x', %s, %s)",
                *(shop.project_id, FIRST + start, FIRST + end),
            )

    def test_bulk_create(self, shop: PortRange) -> None:
        with refused("port_ranges_no_overlap"):
            PortRange.objects.bulk_create(
                [PortRange(project=shop.project, range_name="x", start_port=FIRST + 19, end_port=FIRST + 40)]
            )

    def test_update(self, shop: PortRange) -> None:
        other = make.port_range("other", FIRST + 20, 20)
        with refused("port_ranges_no_overlap"):
            PortRange.objects.filter(pk=other.pk).update(start_port=FIRST + 10)

    def test_ignoring_conflicts_inserts_nothing(self, shop: PortRange) -> None:
        row = PortRange(project=shop.project, range_name="x", start_port=FIRST, end_port=FIRST)
        PortRange.objects.bulk_create([row], ignore_conflicts=True)
        assert PortRange.objects.count() == 1

    def test_an_inactive_range_keeps_its_ports(self, shop: PortRange) -> None:
        PortRange.objects.update(is_active=False)
        with refused("port_ranges_no_overlap"):
            PortRange.objects.create(project=shop.project, range_name="x", start_port=FIRST, end_port=FIRST)

    def test_neighbours_may_touch(self, shop: PortRange) -> None:
        make.port_range("other", FIRST + 20, 1)
        assert PortRange.objects.count() == 2

    @pytest.mark.parametrize(("start", "end"), [(0, 10), (10, 5), (65000, 65536), (-1, 5)])
    def test_bounds(self, start: int, end: int) -> None:
        project = Project.objects.create(name="shop")
        with refused("port_ranges_bounds"), connection.cursor() as cursor:
            # Out of the generated column's way, which would refuse an upside-down span with words of its own.
            cursor.execute(
                "INSERT INTO port_ranges (project_id, range_name, start_port, end_port) VALUES (%s, 'x', %s, %s)",
                [project.pk, start, end],
            )


class TestOneHolder:
    def test_insert(self, shop: PortRange, api: PortAllocation) -> None:
        with refused("port_allocations_one_holder"):
            insert(shop, port_number=FIRST)

    def test_a_reservation_holds_too(self, shop: PortRange) -> None:
        make.manager().reserve("shop", FIRST + 5)
        with refused("port_allocations_one_holder"):
            insert(shop)

    def test_bulk_create(self, shop: PortRange) -> None:
        with refused("port_allocations_one_holder"):
            PortAllocation.objects.bulk_create(
                PortAllocation(project=shop.project, port_range=shop, port_number=FIRST, service_name=name)
                for name in ("a", "b")
            )

    def test_ignoring_conflicts_inserts_nothing(self, shop: PortRange, api: PortAllocation) -> None:
        row = PortAllocation(project=shop.project, port_range=shop, port_number=FIRST, service_name="b")
        PortAllocation.objects.bulk_create([row], ignore_conflicts=True)
        assert PortAllocation.objects.count() == 1

    def test_other_hosts_and_protocols_are_other_ports(self, shop: PortRange, api: PortAllocation) -> None:
        insert(shop, port_number=FIRST, hostname="web-1")
        insert(shop, port_number=FIRST, protocol="udp")

    def test_a_released_port_is_free(self, shop: PortRange, api: PortAllocation) -> None:
        make.manager().release("shop", "api")
        insert(shop, port_number=FIRST)

    def test_hosts_are_lower_case_so_that_one_host_has_one_name(self, shop: PortRange) -> None:
        with refused("port_allocations_canonical_host"):
            insert(shop, hostname="Web-1")

    @pytest.mark.parametrize(
        "name",
        [
            *("127.0.0.1", "127.1.2.3", "0.0.0.0", "::1", "::", "0:0:0:0:0:0:0:1", "::ffff:127.0.0.1"),
            *("localhost.localdomain", "ip6-localhost", "api.localhost"),  # this machine
            *("2001:db8:0:0::1", "2001:DB8::1", "::ffff:10.1.2.3"),  # an address with a shorter form
            *("127.1", "0x7f000001", "a..b", "-a", "fe80::1%eth0", "1:2", ""),  # no host
        ],
    )
    def test_by_no_other_name_is_a_host_in_the_registry(self, shop: PortRange, name: str) -> None:
        with refused("port_allocations_canonical_host"):
            insert(shop, hostname=name)

    @pytest.mark.parametrize("name", ["localhost", "web-1", "10.1.2.3", "2001:db8::1", "fe80::1", "web.example.com"])
    def test_both_sides_call_it_alike(self, shop: PortRange, name: str) -> None:
        assert words.host(name) == name
        insert(shop, hostname=name)


class TestInsideItsRange:
    @pytest.mark.parametrize("offset", [-1, 20, 1 - FIRST], ids=["before", "behind", "far"])
    def test_insert(self, shop: PortRange, offset: int) -> None:
        with refused("port_allocations_inside_range"):
            insert(shop, port_number=FIRST + offset)

    def test_a_forged_span_is_no_use(self, shop: PortRange) -> None:
        """What the row says of its range is overwritten from the range."""
        with refused("port_allocations_inside_range"):
            insert(shop, port_number=FIRST + 50, span="[1,65535]")

    def test_a_span_forged_later_neither(self, api: PortAllocation) -> None:
        with refused("port_allocations_range_copy_fk"):
            sql("UPDATE port_allocations SET span = '[1,65536)' WHERE id = %s", api.pk)

    def test_shrink(self, api: PortAllocation) -> None:
        with refused("port_allocations_inside_range"):
            PortRange.objects.update(start_port=FIRST + 1)

    def test_move(self, api: PortAllocation) -> None:
        with refused("port_allocations_inside_range"):
            sql("UPDATE port_ranges SET start_port = start_port + 100, end_port = end_port + 100")

    def test_delete(self, shop: PortRange, api: PortAllocation) -> None:
        with refused("port_allocations_range_fk"):
            sql("DELETE FROM port_ranges WHERE id = %s", shop.pk)

    def test_delete_of_the_project(self, shop: PortRange, api: PortAllocation) -> None:
        with refused("port_ranges_project_fk"):
            sql("DELETE FROM projects WHERE id = %s", shop.project_id)

    def test_a_range_that_does_not_exist(self, shop: PortRange) -> None:
        with refused("port_allocations_copies"):
            insert(shop, port_range_id=uuid4())

    def test_a_shrink_that_keeps_every_port_inside_is_fine(self, shop: PortRange, api: PortAllocation) -> None:
        PortRange.objects.update(end_port=FIRST)
        assert make.broken_invariants() == []
        assert Event.objects.of(api).count() == 1  # the copy followed: no change of the allocation

    def test_a_released_port_holds_no_range_back(self, shop: PortRange, api: PortAllocation) -> None:
        make.manager().release("shop", "api")
        PortRange.objects.update(start_port=FIRST + 10)


class TestOneInstance:
    def test_insert(self, shop: PortRange, api: PortAllocation) -> None:
        with refused("port_allocations_one_instance"):
            insert(shop, service_name="api", instance=0)

    def test_rename(self, shop: PortRange, api: PortAllocation) -> None:
        make.manager().allocate("shop", "web")
        with refused("port_allocations_one_instance"):
            PortAllocation.objects.update(service_name="api")

    def test_reservations_have_no_service_and_so_no_instance(self, shop: PortRange) -> None:
        make.manager().reserve_block("shop", FIRST, FIRST + 5)
        assert PortAllocation.objects.filter(service_name=None).count() == 6

    def test_a_service_has_a_name(self, shop: PortRange) -> None:
        with refused("port_allocations_service"):
            insert(shop, service_name=None)


class TestReleasedForGood:
    def test_released_at_is_set(self, api: PortAllocation) -> None:
        PortAllocation.objects.update(status="released")
        api.refresh_from_db()
        assert api.released_at is not None

    def test_released_at_alone(self, api: PortAllocation) -> None:
        with refused("port_allocations_released_at"):
            sql("UPDATE port_allocations SET released_at = now()")

    @pytest.mark.parametrize(
        "change", [{"status": "allocated"}, {"description": "x"}, {"released_at": None}, {"service_name": "x"}]
    )
    def test_a_released_row_never_changes(self, api: PortAllocation, change: dict[str, Any]) -> None:
        make.manager().release("shop", "api")
        with refused("port_allocations_released_for_good"):
            PortAllocation.objects.update(**change)

    def test_bulk_update(self, api: PortAllocation) -> None:
        released = make.manager().release("shop", "api")
        with refused("port_allocations_released_for_good"):
            PortAllocation.objects.bulk_update(released, ["description"])

    def test_nothing_is_born_released(self, shop: PortRange) -> None:
        with refused("port_allocations_born_held"):
            insert(shop, status="released", released_at="2026-01-01")

    def test_an_allocation_never_becomes_a_reservation(self, api: PortAllocation) -> None:
        with refused("port_allocations_status_order"):
            PortAllocation.objects.update(status="reserved")

    @pytest.mark.parametrize("column", ["port_number", "instance"])
    def test_what_an_allocation_is_never_changes(self, api: PortAllocation, column: str) -> None:
        with refused("port_allocations_identity"):
            sql(f"UPDATE port_allocations SET {column} = {column} + 1")

    @pytest.mark.parametrize(("column", "value"), [("hostname", "web-1"), ("protocol", "udp")])
    def test_nor_where_it_is(self, api: PortAllocation, column: str, value: str) -> None:
        with refused("port_allocations_identity"):
            PortAllocation.objects.update(**{column: value})

    def test_delete(self, api: PortAllocation) -> None:
        with refused("port_allocations_kept"):
            sql("DELETE FROM port_allocations")

    def test_orm_delete(self, api: PortAllocation) -> None:
        with refused("port_allocations_kept"):
            PortAllocation.objects.all().delete()

    @pytest.mark.parametrize("table", ["port_allocations", "port_ranges", "projects", "events"])
    def test_truncate(self, api: PortAllocation, table: str) -> None:
        sql("SET CONSTRAINTS ALL IMMEDIATE")  # else what this transaction still has to check stands in the way
        with refused(f"{table}_kept"):
            sql(f"TRUNCATE {table} CASCADE" if table == "events" else f"TRUNCATE {table}, port_health_checks CASCADE")

    def test_also_for_a_session_that_plays_a_replica(self, api: PortAllocation) -> None:
        sql("SET LOCAL session_replication_role = replica")
        with refused("port_allocations_kept"):
            sql("DELETE FROM port_allocations")


class TestCloudflareHostname:
    def test_insert(self, shop: PortRange) -> None:
        insert(shop, cloudflare_hostname="a.example.com")
        with refused("port_allocations_one_cloudflare"):
            insert(shop, port_number=FIRST + 6, service_name="b", cloudflare_hostname="a.example.com")

    def test_update(self, shop: PortRange) -> None:
        make.manager().allocate_many("shop", ["a", "b"])
        with refused("port_allocations_one_cloudflare"):
            PortAllocation.objects.update(cloudflare_hostname="a.example.com")

    def test_upper_case_is_no_other_name(self, shop: PortRange) -> None:
        with refused("port_allocations_cloudflare"):
            insert(shop, cloudflare_hostname="A.example.com")

    def test_it_is_free_after_release(self, shop: PortRange) -> None:
        make.manager().allocate("shop", "a", cloudflare_hostname="a.example.com")
        make.manager().release("shop", "a")
        insert(shop, cloudflare_hostname="a.example.com")


class TestOwnOrShared:
    def test_a_range_of_others(self, shop: PortRange) -> None:
        other = Project.objects.create(name="other")
        with refused("port_allocations_own_or_shared"):
            insert(shop, project_id=other.pk)

    def test_a_shared_one(self, shop: PortRange) -> None:
        other = Project.objects.create(name="other")
        PortRange.objects.update(is_shared=True)
        insert(shop, project_id=other.pk)
        with refused("port_allocations_own_or_shared"):
            PortRange.objects.update(is_shared=False)

    def test_a_range_does_not_change_hands_under_a_held_port(self, shop: PortRange, api: PortAllocation) -> None:
        other = Project.objects.create(name="other")
        with refused("port_allocations_own_or_shared"):
            PortRange.objects.update(project=other)

    def test_a_forged_owner_is_no_use(self, shop: PortRange) -> None:
        other = Project.objects.create(name="other")
        with refused("port_allocations_own_or_shared"):
            insert(shop, project_id=other.pk, range_project_id=other.pk, range_is_shared=True)


class TestValues:
    @pytest.mark.parametrize(
        ("columns", "constraint"),
        [
            ({"port_number": 0}, "port_allocations_inside_range"),
            ({"service_name": "Not A Name"}, "port_allocations_service"),
            ({"service_name": "trailing\n"}, "port_allocations_service"),
            ({"service_name": "<script>"}, "port_allocations_service"),
            ({"service_name": "ａ"}, "port_allocations_service"),
            ({"status": "lent"}, "port_allocations_status"),
            ({"protocol": "sctp"}, "port_allocations_protocol"),
            ({"instance": -1}, "port_allocations_instance"),
            ({"hostname": "a\nb"}, "port_allocations_canonical_host"),
            ({"hostname": ""}, "port_allocations_canonical_host"),
            ({"health": "well"}, "port_allocations_health"),
            ({"expires_at": "2030-01-01"}, "port_allocations_expiry"),
        ],
    )
    def test_an_allocation(self, shop: PortRange, columns: dict[str, Any], constraint: str) -> None:
        with refused(constraint):
            insert(shop, **columns)

    @pytest.mark.parametrize("name", ["", "A", "a b", "-a", "a\n", "<b>"])
    def test_a_project(self, name: str) -> None:
        with refused("projects_name"):
            Project.objects.bulk_create([Project(name=name)])

    def test_a_range(self, shop: PortRange) -> None:
        with refused("port_ranges_name"):
            PortRange.objects.update(range_name="A B")


class TestEvents:
    @pytest.mark.django_db(transaction=True)  # the actor of a test's one transaction would stay
    def test_psql_leaves_its_role(self, shop: PortRange) -> None:
        key = insert(shop)
        event = Event.objects.get(subject_id=key)
        assert (event.verb, event.actor, event.source) == ("allocated", "db:portal", "database")
        assert event.label == f"raw {FIRST + 5}/tcp"

    def test_bulk_updates_leave_one_each(self, shop: PortRange) -> None:
        make.manager().allocate_many("shop", ["a", "b", "c"])
        before = Event.objects.count()
        PortAllocation.objects.update(description="changed")
        assert Event.objects.count() == before + 3
        assert Event.objects.first().changes == {"description": ["", "changed"]}  # type: ignore[union-attr]

    def test_a_change_of_nothing_leaves_none(self, api: PortAllocation) -> None:
        before = Event.objects.count()
        PortAllocation.objects.update(description="", health="up", last_used_at="2026-01-01T00:00Z")
        assert Event.objects.count() == before

    def test_projects_and_ranges(self) -> None:
        project = Project.objects.create(name="shop")
        made = PortRange.objects.create(project=project, range_name="r", start_port=FIRST, end_port=FIRST + 1)
        PortRange.objects.update(description="x")
        made.delete()
        project.delete()
        told = [(e.subject, e.verb, e.label) for e in Event.objects.order_by("id")]
        assert told == [
            ("project", "created", "shop"),
            ("range", "created", f"r {FIRST}-{FIRST + 1}"),
            ("range", "updated", f"r {FIRST}-{FIRST + 1}"),
            ("range", "deleted", f"r {FIRST}-{FIRST + 1}"),
            ("project", "deleted", "shop"),
        ]

    def test_the_actor_and_the_door(self, shop: PortRange) -> None:
        held = PortManager(actor="rob", source="web").allocate("shop", "a")
        event = Event.objects.of(held).get()
        assert (event.actor, event.source) == ("rob", "web")

    @pytest.mark.parametrize("change", ["UPDATE events SET actor = 'me'", "DELETE FROM events"])
    def test_the_history_is_not_rewritten(self, api: PortAllocation, change: str) -> None:
        with refused("events_kept"):
            sql(change)


@pytest.mark.django_db(transaction=True)
def test_the_actor_does_not_leak_into_the_next_transaction() -> None:
    shop = make.port_range("shop", FIRST, 20)
    PortManager(actor="rob").allocate("shop", "a")
    key = insert(shop, service_name="b")
    assert Event.objects.get(subject_id=key).actor == "db:portal"


def test_these_questions_see_a_breach(shop: PortRange) -> None:
    """What the other tests rely on finds what is wrong, once the guards are off."""
    sql("ALTER TABLE port_allocations DISABLE TRIGGER USER")
    sql("DROP INDEX port_allocations_one_holder")
    sql("ALTER TABLE port_allocations DROP CONSTRAINT port_allocations_copies")
    sql("SET LOCAL session_replication_role = replica")
    for name in ("a", "b"):
        insert(
            shop,
            service_name=name,
            span=f"[{FIRST},{FIRST + 20})",
            range_project_id=shop.project_id,
            range_is_shared=False,
        )
    assert {line.split(":")[0] for line in make.broken_invariants()} == {"2 two holders", "10 without an event"}
