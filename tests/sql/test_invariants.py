"""Test that the database enforces the invariants of the registry against raw SQL and bulk ORM calls."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from django.db import DatabaseError, connection, transaction

from allocations import validators
from allocations.models import Event, PortAllocation, PortRange, Project
from allocations.ports import PortManager, reservations
from allocations.ports.db_errors import constraint_of, port_error_for
from tests import make

pytestmark = [pytest.mark.django_db, pytest.mark.both_servers]
FIRST = make.FIRST


def sql(text: str, *values: Any) -> Any:
    """Run one statement and return its first row, or the number of affected rows if it returns none."""
    with connection.cursor() as cursor:
        cursor.execute(text, values)
        return cursor.fetchone() if cursor.description else cursor.rowcount


class refused:  # noqa: N801 reads like pytest.raises
    """Assert that the statement inside violates this constraint, and that the violation has a readable message."""

    def __init__(self, constraint: str) -> None:
        self.constraint = constraint

    def __enter__(self) -> None:
        self.savepoint = transaction.atomic()
        self.savepoint.__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> bool:
        self.savepoint.__exit__(kind, error, trace)
        assert isinstance(error, DatabaseError), f"the statement was accepted: expected {self.constraint} to refuse it"
        assert constraint_of(error) == self.constraint, error
        refusal = port_error_for(error)
        assert refusal is not None
        assert refusal.sentence.endswith(".")
        return True


@pytest.fixture
def shop() -> PortRange:
    return make.port_range("shop", FIRST, 20)


@pytest.fixture
def api(shop: PortRange) -> PortAllocation:
    return make.manager().allocate("shop", "api")


def insert(shop: PortRange, **columns: Any) -> Any:
    """Insert an allocation of shop with raw SQL and return its id."""
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
    def test_overlapping_insert_is_refused(self, shop: PortRange, start: int, end: int) -> None:
        with refused("port_ranges_no_overlap"):
            sql(
                "INSERT INTO port_ranges (project_id, range_name, start_port, end_port) VALUES (%s, 'x', %s, %s)",
                *(shop.project_id, FIRST + start, FIRST + end),
            )

    def test_overlapping_bulk_create_is_refused(self, shop: PortRange) -> None:
        with refused("port_ranges_no_overlap"):
            PortRange.objects.bulk_create(
                [PortRange(project=shop.project, range_name="x", start_port=FIRST + 19, end_port=FIRST + 40)]
            )

    def test_update_into_another_range_is_refused(self, shop: PortRange) -> None:
        other = make.port_range("other", FIRST + 20, 20)
        with refused("port_ranges_no_overlap"):
            PortRange.objects.filter(pk=other.pk).update(start_port=FIRST + 10)

    def test_bulk_create_that_ignores_conflicts_inserts_nothing(self, shop: PortRange) -> None:
        row = PortRange(project=shop.project, range_name="x", start_port=FIRST, end_port=FIRST)
        PortRange.objects.bulk_create([row], ignore_conflicts=True)
        assert PortRange.objects.count() == 1

    def test_inactive_range_still_occupies_its_span(self, shop: PortRange) -> None:
        PortRange.objects.update(is_active=False)
        with refused("port_ranges_no_overlap"):
            PortRange.objects.create(project=shop.project, range_name="x", start_port=FIRST, end_port=FIRST)

    def test_adjacent_ranges_are_accepted(self, shop: PortRange) -> None:
        make.port_range("other", FIRST + 20, 1)
        assert PortRange.objects.count() == 2

    @pytest.mark.parametrize(("start", "end"), [(0, 10), (10, 5), (65000, 65536), (-1, 5)])
    def test_invalid_bounds_are_refused(self, start: int, end: int) -> None:
        project = Project.objects.create(name="shop")
        with refused("port_ranges_bounds"), connection.cursor() as cursor:
            # The generated column accepts a reversed span, so the check constraint has to refuse it.
            cursor.execute(
                "INSERT INTO port_ranges (project_id, range_name, start_port, end_port) VALUES (%s, 'x', %s, %s)",
                [project.pk, start, end],
            )


class TestOneHolder:
    def test_second_holder_is_refused(self, shop: PortRange, api: PortAllocation) -> None:
        with refused("port_allocations_one_holder"):
            insert(shop, port_number=FIRST)

    def test_reserved_port_is_held(self, shop: PortRange) -> None:
        make.manager().reserve("shop", FIRST + 5)
        with refused("port_allocations_one_holder"):
            insert(shop)

    def test_bulk_create_with_two_holders_is_refused(self, shop: PortRange) -> None:
        with refused("port_allocations_one_holder"):
            PortAllocation.objects.bulk_create(
                PortAllocation(project=shop.project, port_range=shop, port_number=FIRST, service_name=name)
                for name in ("a", "b")
            )

    def test_bulk_create_that_ignores_conflicts_inserts_nothing(self, shop: PortRange, api: PortAllocation) -> None:
        row = PortAllocation(project=shop.project, port_range=shop, port_number=FIRST, service_name="b")
        PortAllocation.objects.bulk_create([row], ignore_conflicts=True)
        assert PortAllocation.objects.count() == 1

    def test_same_number_on_another_host_or_protocol_is_accepted(self, shop: PortRange, api: PortAllocation) -> None:
        insert(shop, port_number=FIRST, hostname="web-1")
        insert(shop, port_number=FIRST, protocol="udp")

    def test_released_port_is_free(self, shop: PortRange, api: PortAllocation) -> None:
        make.manager().release("shop", "api")
        insert(shop, port_number=FIRST)

    def test_upper_case_host_is_refused(self, shop: PortRange) -> None:
        with refused("port_allocations_canonical_host"):
            insert(shop, hostname="Web-1")

    @pytest.mark.parametrize(
        "name",
        [
            *("127.0.0.1", "127.1.2.3", "0.0.0.0", "::1", "::", "0:0:0:0:0:0:0:1", "::ffff:127.0.0.1"),
            *("localhost.localdomain", "ip6-localhost", "api.localhost"),  # this machine
            *("2001:db8:0:0::1", "2001:DB8::1", "::ffff:10.1.2.3"),  # addresses that are not in canonical form
            *("127.1", "0x7f000001", "a..b", "-a", "fe80::1%eth0", "1:2", ""),  # not a host
        ],
    )
    def test_host_that_is_not_canonical_is_refused(self, shop: PortRange, name: str) -> None:
        with refused("port_allocations_canonical_host"):
            insert(shop, hostname=name)

    @pytest.mark.parametrize("name", ["localhost", "web-1", "10.1.2.3", "2001:db8::1", "fe80::1", "web.example.com"])
    def test_database_and_validator_accept_the_same_canonical_hosts(self, shop: PortRange, name: str) -> None:
        assert validators.hostname(name) == name
        insert(shop, hostname=name)


class TestInsideItsRange:
    @pytest.mark.parametrize("offset", [-1, 20, 1 - FIRST], ids=["before", "after", "far"])
    def test_port_outside_its_range_is_refused(self, shop: PortRange, offset: int) -> None:
        with refused("port_allocations_inside_range"):
            insert(shop, port_number=FIRST + offset)

    def test_inserted_span_is_overwritten_from_the_range(self, shop: PortRange) -> None:
        """A trigger copies the span of the range into the row, whatever the INSERT says."""
        with refused("port_allocations_inside_range"):
            insert(shop, port_number=FIRST + 50, span="[1,65535]")

    def test_span_cannot_be_changed_later(self, api: PortAllocation) -> None:
        with refused("port_allocations_range_copy_fk"):
            sql("UPDATE port_allocations SET span = '[1,65536)' WHERE id = %s", api.pk)

    def test_range_cannot_shrink_past_a_held_port(self, api: PortAllocation) -> None:
        with refused("port_allocations_inside_range"):
            PortRange.objects.update(start_port=FIRST + 1)

    def test_range_cannot_move_away_from_a_held_port(self, api: PortAllocation) -> None:
        with refused("port_allocations_inside_range"):
            sql("UPDATE port_ranges SET start_port = start_port + 100, end_port = end_port + 100")

    def test_range_with_an_allocation_cannot_be_deleted(self, shop: PortRange, api: PortAllocation) -> None:
        with refused("port_allocations_range_fk"):
            sql("DELETE FROM port_ranges WHERE id = %s", shop.pk)

    def test_project_with_a_range_cannot_be_deleted(self, shop: PortRange, api: PortAllocation) -> None:
        with refused("port_ranges_project_fk"):
            sql("DELETE FROM projects WHERE id = %s", shop.project_id)

    def test_unknown_range_is_refused(self, shop: PortRange) -> None:
        with refused("port_allocations_copies"):
            insert(shop, port_range_id=uuid4())

    def test_range_can_shrink_around_its_held_ports(self, shop: PortRange, api: PortAllocation) -> None:
        PortRange.objects.update(end_port=FIRST)
        assert make.broken_invariants() == []
        assert Event.objects.about(api.pk).count() == 1  # updating the copied span is not a change of the allocation

    def test_released_port_does_not_prevent_a_shrink(self, shop: PortRange, api: PortAllocation) -> None:
        make.manager().release("shop", "api")
        PortRange.objects.update(start_port=FIRST + 10)


class TestOneInstance:
    def test_second_allocation_of_an_instance_is_refused(self, shop: PortRange, api: PortAllocation) -> None:
        with refused("port_allocations_one_instance"):
            insert(shop, service_name="api", instance=0)

    def test_rename_to_a_taken_instance_is_refused(self, shop: PortRange, api: PortAllocation) -> None:
        make.manager().allocate("shop", "web")
        with refused("port_allocations_one_instance"):
            PortAllocation.objects.update(service_name="api")

    def test_reservations_without_a_service_do_not_collide(self, shop: PortRange) -> None:
        reservations.reserve_block(make.manager().context, "shop", FIRST, FIRST + 5)
        assert PortAllocation.objects.filter(service_name=None).count() == 6

    def test_allocation_without_a_service_name_is_refused(self, shop: PortRange) -> None:
        with refused("port_allocations_service"):
            insert(shop, service_name=None)


class TestAllocationLifecycle:
    def test_release_sets_released_at(self, api: PortAllocation) -> None:
        PortAllocation.objects.update(status="released")
        api.refresh_from_db()
        assert api.released_at is not None

    def test_released_at_without_the_status_is_refused(self, api: PortAllocation) -> None:
        with refused("port_allocations_released_at"):
            sql("UPDATE port_allocations SET released_at = now()")

    @pytest.mark.parametrize(
        "change", [{"status": "allocated"}, {"description": "x"}, {"released_at": None}, {"service_name": "x"}]
    )
    def test_released_allocation_never_changes(self, api: PortAllocation, change: dict[str, Any]) -> None:
        make.manager().release("shop", "api")
        with refused("port_allocations_released_for_good"):
            PortAllocation.objects.update(**change)

    def test_bulk_update_of_a_released_allocation_is_refused(self, api: PortAllocation) -> None:
        released = make.manager().release("shop", "api")
        with refused("port_allocations_released_for_good"):
            PortAllocation.objects.bulk_update(released, ["description"])

    def test_inserting_a_released_allocation_is_refused(self, shop: PortRange) -> None:
        with refused("port_allocations_born_held"):
            insert(shop, status="released", released_at="2026-01-01")

    def test_allocation_never_becomes_a_reservation(self, api: PortAllocation) -> None:
        with refused("port_allocations_status_order"):
            PortAllocation.objects.update(status="reserved")

    @pytest.mark.parametrize("column", ["port_number", "instance"])
    def test_port_number_and_instance_never_change(self, api: PortAllocation, column: str) -> None:
        with refused("port_allocations_identity"):
            sql(f"UPDATE port_allocations SET {column} = {column} + 1")

    @pytest.mark.parametrize(("column", "value"), [("hostname", "web-1"), ("protocol", "udp")])
    def test_hostname_and_protocol_never_change(self, api: PortAllocation, column: str, value: str) -> None:
        with refused("port_allocations_identity"):
            PortAllocation.objects.update(**{column: value})

    def test_delete_is_refused(self, api: PortAllocation) -> None:
        with refused("port_allocations_kept"):
            sql("DELETE FROM port_allocations")

    def test_delete_through_the_orm_is_refused(self, api: PortAllocation) -> None:
        with refused("port_allocations_kept"):
            PortAllocation.objects.all().delete()

    @pytest.mark.parametrize("table", ["port_allocations", "port_ranges", "projects", "events"])
    def test_truncate_is_refused(self, api: PortAllocation, table: str) -> None:
        sql("SET CONSTRAINTS ALL IMMEDIATE")  # pending deferred checks would block TRUNCATE
        with refused(f"{table}_kept"):
            sql(f"TRUNCATE {table} CASCADE" if table == "events" else f"TRUNCATE {table}, port_health_checks CASCADE")

    def test_delete_in_a_replica_session_is_refused(self, api: PortAllocation) -> None:
        sql("SET LOCAL session_replication_role = replica")
        with refused("port_allocations_kept"):
            sql("DELETE FROM port_allocations")


class TestCloudflareHostname:
    def test_taken_name_is_refused(self, shop: PortRange) -> None:
        insert(shop, cloudflare_hostname="a.example.com")
        with refused("port_allocations_one_cloudflare"):
            insert(shop, port_number=FIRST + 6, service_name="b", cloudflare_hostname="a.example.com")

    def test_bulk_update_to_one_name_is_refused(self, shop: PortRange) -> None:
        make.manager().allocate_many("shop", ["a", "b"])
        with refused("port_allocations_one_cloudflare"):
            PortAllocation.objects.update(cloudflare_hostname="a.example.com")

    def test_upper_case_name_is_refused(self, shop: PortRange) -> None:
        with refused("port_allocations_cloudflare"):
            insert(shop, cloudflare_hostname="A.example.com")

    def test_name_is_free_after_release(self, shop: PortRange) -> None:
        make.manager().allocate("shop", "a", cloudflare_hostname="a.example.com")
        make.manager().release("shop", "a")
        insert(shop, cloudflare_hostname="a.example.com")


class TestOwnOrShared:
    def test_range_of_another_project_is_refused(self, shop: PortRange) -> None:
        other = Project.objects.create(name="other")
        with refused("port_allocations_own_or_shared"):
            insert(shop, project_id=other.pk)

    def test_shared_range_is_accepted_and_stays_shared(self, shop: PortRange) -> None:
        other = Project.objects.create(name="other")
        PortRange.objects.update(is_shared=True)
        insert(shop, project_id=other.pk)
        with refused("port_allocations_own_or_shared"):
            PortRange.objects.update(is_shared=False)

    def test_range_with_a_held_port_cannot_change_its_project(self, shop: PortRange, api: PortAllocation) -> None:
        other = Project.objects.create(name="other")
        with refused("port_allocations_own_or_shared"):
            PortRange.objects.update(project=other)

    def test_inserted_range_project_is_overwritten_from_the_range(self, shop: PortRange) -> None:
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
    def test_invalid_allocation_values_are_refused(
        self, shop: PortRange, columns: dict[str, Any], constraint: str
    ) -> None:
        with refused(constraint):
            insert(shop, **columns)

    @pytest.mark.parametrize("name", ["", "A", "a b", "-a", "a\n", "<b>"])
    def test_invalid_project_names_are_refused(self, name: str) -> None:
        with refused("projects_name"):
            Project.objects.bulk_create([Project(name=name)])

    def test_invalid_range_name_is_refused(self, shop: PortRange) -> None:
        with refused("port_ranges_name"):
            PortRange.objects.update(range_name="A B")


class TestEvents:
    @pytest.mark.django_db(transaction=True)  # in the single transaction of a test, the actor would persist
    def test_change_in_psql_names_the_database_role(self, shop: PortRange) -> None:
        key = insert(shop)
        event = Event.objects.get(subject_id=key)
        assert (event.verb, event.actor, event.source) == (
            "allocated",
            f"db:{connection.settings_dict['USER']}",
            "database",
        )
        assert event.label == f"raw {FIRST + 5}/tcp"

    def test_bulk_update_adds_one_event_per_row(self, shop: PortRange) -> None:
        make.manager().allocate_many("shop", ["a", "b", "c"])
        before = Event.objects.count()
        PortAllocation.objects.update(description="changed")
        assert Event.objects.count() == before + 3
        assert Event.objects.first().changes == {"description": ["", "changed"]}  # type: ignore[union-attr]

    def test_update_without_a_tracked_change_adds_no_event(self, api: PortAllocation) -> None:
        before = Event.objects.count()
        PortAllocation.objects.update(description="", health="up", last_used_at="2026-01-01T00:00Z")
        assert Event.objects.count() == before

    def test_changes_of_projects_and_ranges_add_events(self) -> None:
        project = Project.objects.create(name="shop")
        port_range = PortRange.objects.create(project=project, range_name="r", start_port=FIRST, end_port=FIRST + 1)
        PortRange.objects.update(description="x")
        port_range.delete()
        project.delete()
        history = [(e.subject, e.verb, e.label) for e in Event.objects.order_by("id")]
        assert history == [
            ("project", "created", "shop"),
            ("range", "created", f"r {FIRST}-{FIRST + 1}"),
            ("range", "updated", f"r {FIRST}-{FIRST + 1}"),
            ("range", "deleted", f"r {FIRST}-{FIRST + 1}"),
            ("project", "deleted", "shop"),
        ]

    def test_event_names_actor_and_source(self, shop: PortRange) -> None:
        held = PortManager(actor="rob", source="web").allocate("shop", "a")
        event = Event.objects.about(held.pk).get()
        assert (event.actor, event.source) == ("rob", "web")

    @pytest.mark.parametrize("change", ["UPDATE events SET actor = 'me'", "DELETE FROM events"])
    def test_events_cannot_be_changed_or_deleted(self, api: PortAllocation, change: str) -> None:
        with refused("events_kept"):
            sql(change)


@pytest.mark.django_db(transaction=True)
def test_actor_does_not_leak_into_the_next_transaction() -> None:
    shop = make.port_range("shop", FIRST, 20)
    PortManager(actor="rob").allocate("shop", "a")
    key = insert(shop, service_name="b")
    assert Event.objects.get(subject_id=key).actor == f"db:{connection.settings_dict['USER']}"


def test_broken_invariants_reports_breaches(shop: PortRange) -> None:
    """Other tests rely on broken_invariants: without the guards, it reports what is wrong."""
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
