"""Test the SQL functions through the real psql, with and without defaults."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from allocations.models import Event, Listener, PortAllocation, PortRange
from allocations.ports import allocations, projects
from allocations.sql import set_actor
from portal.embedded import server
from tests import make

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.both_servers]
FIRST = make.FIRST


def psql(statement: str) -> str:
    """Return what psql prints for a statement.

    Raises:
        AssertionError: with the error message, if the statement fails.
    """
    program = server.bin_dir() / "psql" if settings.EMBEDDED_DATABASE else shutil.which("psql")
    assert program
    database = connection.settings_dict
    variables = {"PGHOST": "HOST", "PGPORT": "PORT", "PGUSER": "USER", "PGPASSWORD": "PASSWORD", "PGDATABASE": "NAME"}
    environment = os.environ | {name: str(database[key]) for name, key in variables.items() if database[key]}
    process = subprocess.run(
        [program, "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose", "-c", statement],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.strip()


@pytest.fixture
def shop() -> PortRange:
    return make.port_range("shop", FIRST, 5)


def allocate(shop: PortRange, service: str, more: str = "") -> str:
    return psql(f"SELECT port_number FROM allocate_port('{shop.project_id}', '{shop.pk}', '{service}', ''{more})")


class TestManualCalls:
    """Calls that a person types, with subqueries and names instead of ids."""

    def test_all_names_of_this_host_are_one_host(self, shop: PortRange) -> None:
        for offset, name in enumerate(("localhost", "127.0.0.1", "::1", "LOCALHOST", "api.localhost")):
            assert allocate(shop, f"s{offset}", f", '{name}'") == str(FIRST + offset)
        assert set(PortAllocation.objects.values_list("hostname", flat=True)) == {"localhost"}
        assert psql(f"SELECT find_available_port('{shop.pk}', '127.0.0.1') IS NULL") == "t"
        assert psql(f"SELECT release_port({FIRST}, '127.0.0.1')") == "t"
        assert psql("SELECT canonical_host('2001:DB8:0::1'), canonical_host('::ffff:10.0.0.1')") == (
            "2001:db8::1|10.0.0.1"
        )

    @pytest.mark.parametrize(
        ("project", "service", "message"),
        [
            ("(SELECT id FROM projects WHERE name = 'shpo')", "'web'", "there is no such project"),
            ("(SELECT id FROM projects WHERE name = 'shop')", "NULL", "a port is for a service"),
        ],
    )
    def test_wrong_argument_is_explained(self, shop: PortRange, project: str, service: str, message: str) -> None:
        with pytest.raises(AssertionError, match=message):
            psql(f"SELECT allocate_port({project}, '{shop.pk}', {service}, '')")

    def test_inactive_range_is_refused(self, shop: PortRange) -> None:
        PortRange.objects.update(is_active=False)
        with pytest.raises(AssertionError, match="is not active"):
            psql(f"SELECT find_available_port('{shop.pk}')")


class TestFindAvailablePort:
    def test_lowest_port_is_returned(self, shop: PortRange) -> None:
        assert psql(f"SELECT find_available_port('{shop.pk}')") == str(FIRST)

    def test_lowest_gap_is_returned(self, shop: PortRange) -> None:
        allocations.allocate_copies(make.manager().context, "shop", "api", 4)
        make.manager().release("shop", "api", instance=1)
        assert psql(f"SELECT find_available_port('{shop.pk}')") == str(FIRST + 1)

    def test_full_range_returns_null(self, shop: PortRange) -> None:
        allocations.allocate_copies(make.manager().context, "shop", "api", 5)
        assert psql(f"SELECT find_available_port('{shop.pk}') IS NULL") == "t"

    def test_other_hosts_and_protocols_are_independent(self, shop: PortRange) -> None:
        make.manager().allocate("shop", "api")
        assert psql(f"SELECT find_available_port('{shop.pk}', 'web-1')") == str(FIRST)
        assert psql(f"SELECT find_available_port('{shop.pk}', protocol => 'udp')") == str(FIRST)
        assert psql(f"SELECT find_available_port('{shop.pk}', 'LOCALHOST')") == str(FIRST + 1)

    def test_port_with_a_recorded_listener_is_not_free(self, shop: PortRange) -> None:
        Listener.objects.create(hostname="localhost", protocol="tcp", address="::", port=FIRST)
        assert psql(f"SELECT find_available_port('{shop.pk}')") == str(FIRST + 1)
        assert psql(f"SELECT find_available_port('{shop.pk}', protocol => 'udp')") == str(FIRST)

    def test_reservation_holds_its_port_until_it_expires(self, shop: PortRange) -> None:
        make.manager().reserve("shop", FIRST, expires_at=timezone.now() + timedelta(hours=1))
        assert psql(f"SELECT find_available_port('{shop.pk}')") == str(FIRST + 1)
        expire_reservations()
        assert psql(f"SELECT find_available_port('{shop.pk}')") == str(FIRST)

    def test_unknown_range_is_refused(self) -> None:
        with pytest.raises(AssertionError, match=r"P0002.*there is no range"):
            psql("SELECT find_available_port(gen_random_uuid())")


def expire_reservations() -> None:
    make.expire(PortAllocation.objects.all())


class TestAllocatePort:
    def test_row_is_returned(self, shop: PortRange) -> None:
        row = psql(
            "SELECT project_id, port_range_id, port_number, service_name, service_type, instance, status, hostname, "
            f"protocol FROM allocate_port('{shop.project_id}', '{shop.pk}', 'api', 'web')"
        )
        assert row == f"{shop.project_id}|{shop.pk}|{FIRST}|api|web|0|allocated|localhost|tcp"

    def test_host_and_protocol(self, shop: PortRange) -> None:
        assert allocate(shop, "api", ", 'Web-1', 'udp'") == str(FIRST)
        held = PortAllocation.objects.get()
        assert (held.hostname, held.protocol) == ("web-1", "udp")

    def test_each_call_adds_an_instance(self, shop: PortRange) -> None:
        assert [allocate(shop, "api") for _ in range(3)] == [str(FIRST + n) for n in range(3)]
        assert list(PortAllocation.objects.values_list("instance", flat=True)) == [0, 1, 2]

    def test_lowest_unused_instance_is_assigned(self, shop: PortRange) -> None:
        allocations.allocate_copies(make.manager().context, "shop", "api", 3)
        make.manager().release("shop", "api", instance=1)
        allocate(shop, "api")
        assert PortAllocation.objects.held().filter(instance=1).exists()

    def test_expired_reservation_is_released(self, shop: PortRange) -> None:
        reserved = make.manager().reserve("shop", FIRST, expires_at=timezone.now() + timedelta(hours=1))
        expire_reservations()
        assert allocate(shop, "api") == str(FIRST)
        reserved.refresh_from_db()
        assert reserved.status == "released"

    def test_active_reservation_is_skipped(self, shop: PortRange) -> None:
        make.manager().reserve("shop", FIRST)
        assert allocate(shop, "api") == str(FIRST + 1)

    @pytest.mark.parametrize(
        ("project", "range_id", "service", "message"),
        [
            ("project", "gen_random_uuid()", "api", "P0002.*there is no range"),
            ("gen_random_uuid()", "range", "api", "port_allocations_(own_or_shared|project_fk)"),
            ("project", "range", "A B", "port_allocations_service"),
        ],
    )
    def test_error_names_the_cause(
        self, shop: PortRange, project: str, range_id: str, service: str, message: str
    ) -> None:
        keys = {"project": f"'{shop.project_id}'", "range": f"'{shop.pk}'"}
        with pytest.raises(AssertionError, match=f"(?s){message}"):
            psql(f"SELECT allocate_port({keys.get(project, project)}, {keys.get(range_id, range_id)}, '{service}', '')")

    def test_full_range_is_refused(self, shop: PortRange) -> None:
        allocations.allocate_copies(make.manager().context, "shop", "api", 5)
        with pytest.raises(AssertionError, match=rf"23514.*range shop \({FIRST}-{FIRST + 4}\) has no free port"):
            allocate(shop, "one-more")

    def test_inactive_range_is_refused(self, shop: PortRange) -> None:
        PortRange.objects.update(is_active=False)
        with pytest.raises(AssertionError, match="range shop is not active"):
            allocate(shop, "api")

    def test_event_names_the_database_role(self, shop: PortRange) -> None:
        allocate(shop, "api")
        assert Event.objects.first().actor == f"db:{connection.settings_dict['USER']}"  # type: ignore[union-attr]


class TestReleasePort:
    def test_port_is_released_once(self, shop: PortRange) -> None:
        make.manager().allocate("shop", "api")
        assert psql(f"SELECT release_port({FIRST})") == "t"
        assert psql(f"SELECT release_port({FIRST})") == "f"

    def test_host_and_protocol(self, shop: PortRange) -> None:
        make.manager().allocate("shop", "api", hostname="web-1", protocol="udp")
        assert psql(f"SELECT release_port({FIRST})") == "f"
        assert psql(f"SELECT release_port({FIRST}, 'Web-1', 'udp')") == "t"

    def test_free_port_returns_false(self) -> None:
        assert psql("SELECT release_port(1)") == "f"


def hold(
    shop: PortRange, *, agent: bool = False, token: UUID | None = None, **parameters: Any
) -> PortAllocation | None:
    """Call hold_port as a person, or as an agent with or without a token, and return what it returns."""
    values = {"project_id": shop.project_id, "range_ids": [shop.pk], "service_name": "web"} | parameters
    named = ", ".join(f"{name} => %s" for name in values)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT set_config('portal.agent', %s, true), set_config('portal.token', %s, true)",
            ["on" if agent else "", str(token or "")],
        )
        held = PortAllocation.objects.raw(
            f"SELECT * FROM hold_port({named}) WHERE id IS NOT NULL", list(values.values())
        )
        return next(iter(held), None)


def reserve(shop: PortRange, port: int, token: UUID | None = None) -> PortAllocation:
    """Reserve a port with reserve_ports()."""
    with transaction.atomic(), connection.cursor() as cursor:
        set_actor("test", "test", token=token)
        cursor.execute("SELECT reservation_id FROM reserve_ports(%s, %s, %s)", [shop.project_id, port, port])
        return PortAllocation.objects.get(reservation=cursor.fetchone()[0])


class TestHoldPort:
    """The call releases a reservation or request that the new allocation may replace."""

    @pytest.fixture
    def reserved(self, shop: PortRange) -> PortAllocation:
        return make.manager().reserve("shop", FIRST + 2)

    def test_own_reservation_is_released_when_its_port_is_allocated(
        self, shop: PortRange, reserved: PortAllocation
    ) -> None:
        held = hold(shop, port_number=FIRST + 2)
        assert held is not None
        assert (held.port_number, held.status, held.instance) == (FIRST + 2, "allocated", 0)
        reserved.refresh_from_db()
        assert reserved.status == "released"
        assert list(Event.objects.values_list("verb", flat=True)[:2]) == ["allocated", "released"]

    def test_reservation_does_not_use_up_the_instance(self, shop: PortRange, reserved: PortAllocation) -> None:
        held = hold(shop, port_number=FIRST + 2)
        assert held is not None
        assert (held.pk != reserved.pk, held.instance) == (True, 0)

    def test_reservation_stays_when_the_service_keeps_its_port(self, shop: PortRange, reserved: PortAllocation) -> None:
        web = make.manager().allocate("shop", "web")
        allocation = hold(shop, port_number=FIRST + 2, reuse=True)
        assert allocation == web
        reserved.refresh_from_db()
        assert reserved.status == "reserved"

    def test_reserved_port_needs_a_reservation(self, shop: PortRange) -> None:
        with pytest.raises(IntegrityError, match="reserve_ports"):
            hold(shop, port_number=FIRST + 2, service_name=None, status="reserved")

    def test_reservation_stays_when_the_port_cannot_be_held(self, shop: PortRange, reserved: PortAllocation) -> None:
        PortRange.objects.update(is_active=False)
        assert hold(shop, port_number=FIRST + 2) is None
        assert hold(shop, port_number=FIRST + 2, range_ids=[]) is None
        reserved.refresh_from_db()
        assert reserved.status == "reserved"

    def test_reservation_of_another_project_stays(self, shop: PortRange, reserved: PortAllocation) -> None:
        PortRange.objects.update(is_shared=True)
        bank = make.port_range("bank", FIRST + 10, 5)
        assert hold(shop, project_id=bank.project_id, port_number=FIRST + 2) is None
        reserved.refresh_from_db()
        assert reserved.status == "reserved"

    @pytest.mark.parametrize(
        ("mode", "agent", "own", "is_released"),
        [
            ("autonomous", False, False, True),
            ("autonomous", True, False, True),
            ("ask", False, False, True),
            ("ask", True, False, False),
            ("ask", True, True, True),
        ],
    )
    @pytest.mark.parametrize("has_token", [True, False])
    def test_agent_in_mode_ask_takes_only_reservations_of_its_token(
        self, shop: PortRange, mode: str, agent: bool, own: bool, is_released: bool, has_token: bool
    ) -> None:
        projects.update(make.manager().context, "shop", mode=mode)
        token, other = (uuid4() if has_token else None), uuid4()
        reserver = token if own else other
        reserved = reserve(shop, FIRST + 2, token=reserver)
        assert reserved.token_id == reserver
        held = hold(shop, agent=agent, token=token, port_number=FIRST + 2)
        # Without a token, the database cannot tell that the reservation is the agent's own.
        expected = is_released and not (own and not has_token)
        assert (held is not None) == expected
        reserved.refresh_from_db()
        assert (reserved.status == "released") == expected
        if held is not None:
            assert held.status == ("pending" if agent and mode == "ask" else "allocated")

    @pytest.mark.parametrize("status", ["reserved", "pending"])
    def test_expired_holder_of_the_cloudflare_hostname_is_released(self, shop: PortRange, status: str) -> None:
        name, later = "shop.example.com", timezone.now() + timedelta(hours=1)
        # Not on the next free port, where hold_port would release it because of the port.
        if status == "reserved":
            old = reserve(shop, FIRST + 3)
            PortAllocation.objects.update(cloudflare_hostname=name)
        else:
            place = {"status": status, "expires_at": later, "port_number": FIRST + 3}
            old = hold(shop, service_name="old", cloudflare_hostname=name, **place)
        assert old is not None
        with pytest.raises(IntegrityError, match="port_allocations_one_cloudflare"):
            hold(shop, cloudflare_hostname=name)
        make.expire(PortAllocation.objects.all())
        held = hold(shop, cloudflare_hostname=name)
        assert held is not None
        assert (held.cloudflare_hostname, held.port_number) == (name, FIRST)
        old.refresh_from_db()
        assert old.status == "released"

    def test_unrelated_expired_reservations_are_kept(self, shop: PortRange) -> None:
        reserve(shop, FIRST)
        PortAllocation.objects.update(cloudflare_hostname="old.example.com")
        reserve(shop, FIRST + 1)
        expire_reservations()
        hold(shop, port_number=FIRST + 3, cloudflare_hostname="shop.example.com")
        assert PortAllocation.objects.filter(status="reserved").count() == 2

    def test_every_parameter_sets_its_column(self, shop: PortRange) -> None:
        later = timezone.now() + timedelta(hours=1)
        values = {
            "service_type": "http",
            "hostname": "web-1",
            "protocol": "udp",
            "port_number": FIRST + 4,
            "status": "pending",
            "description": "For later",
            "cloudflare_hostname": "shop.example.com",
            "expires_at": later,
        }
        held = hold(shop, metadata=json.dumps({"team": "payments"}), **values)
        assert held is not None
        assert {name: getattr(held, name) for name in values} == values
        assert held.metadata == {"team": "payments"}
