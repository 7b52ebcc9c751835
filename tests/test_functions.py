"""The SQL functions as somebody with psql meets them: through the real psql, with and without defaults."""

from __future__ import annotations

import os
import shutil
import subprocess
from datetime import timedelta

import pytest
from django.conf import settings
from django.db import connection
from django.utils import timezone

from allocations.models import Event, Listener, PortAllocation, PortRange
from portal.embedded import server
from tests import make

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.both_servers]
FIRST = make.FIRST


def psql(statement: str) -> str:
    """What psql prints for a statement; what it refuses is an AssertionError with its words."""
    program = server.bin_dir() / "psql" if settings.EMBEDDED_DATABASE else shutil.which("psql")
    assert program
    given = connection.settings_dict
    named = {"PGHOST": "HOST", "PGPORT": "PORT", "PGUSER": "USER", "PGPASSWORD": "PASSWORD", "PGDATABASE": "NAME"}
    environment = os.environ | {name: str(given[key]) for name, key in named.items() if given[key]}
    done = subprocess.run(
        [program, "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose", "-c", statement],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def shop() -> PortRange:
    return make.port_range("shop", FIRST, 5)


def allocate(shop: PortRange, service: str, more: str = "") -> str:
    return psql(f"SELECT port_number FROM allocate_port('{shop.project_id}', '{shop.pk}', '{service}', ''{more})")


class TestByHand:
    """What somebody types who knows no ids by heart."""

    def test_one_host_whatever_it_is_called(self, shop: PortRange) -> None:
        for place, name in enumerate(("localhost", "127.0.0.1", "::1", "LOCALHOST", "api.localhost")):
            assert allocate(shop, f"s{place}", f", '{name}'") == str(FIRST + place)
        assert set(PortAllocation.objects.values_list("hostname", flat=True)) == {"localhost"}
        assert psql(f"SELECT find_available_port('{shop.pk}', '127.0.0.1') IS NULL") == "t"
        assert psql(f"SELECT release_port({FIRST}, '127.0.0.1')") == "t"
        assert psql("SELECT canonical_host('2001:DB8:0::1'), canonical_host('::ffff:10.0.0.1')") == (
            "2001:db8::1|10.0.0.1"
        )

    @pytest.mark.parametrize(
        ("project", "service", "said"),
        [
            ("(SELECT id FROM projects WHERE name = 'shpo')", "'web'", "there is no such project"),
            ("(SELECT id FROM projects WHERE name = 'shop')", "NULL", "a port is for a service"),
        ],
    )
    def test_a_slip_is_told_in_a_sentence(self, shop: PortRange, project: str, service: str, said: str) -> None:
        with pytest.raises(AssertionError, match=said):
            psql(f"SELECT allocate_port({project}, '{shop.pk}', {service}, '')")

    def test_a_range_that_is_not_active_has_no_free_port(self, shop: PortRange) -> None:
        PortRange.objects.update(is_active=False)
        with pytest.raises(AssertionError, match="is not active"):
            psql(f"SELECT find_available_port('{shop.pk}')")


class TestFindAvailablePort:
    def test_the_lowest(self, shop: PortRange) -> None:
        assert psql(f"SELECT find_available_port('{shop.pk}')") == str(FIRST)

    def test_the_lowest_gap(self, shop: PortRange) -> None:
        make.manager().allocate_copies("shop", "api", 4)
        make.manager().release("shop", "api", instance=1)
        assert psql(f"SELECT find_available_port('{shop.pk}')") == str(FIRST + 1)

    def test_null_where_the_range_is_full(self, shop: PortRange) -> None:
        make.manager().allocate_copies("shop", "api", 5)
        assert psql(f"SELECT find_available_port('{shop.pk}') IS NULL") == "t"

    def test_other_hosts_and_protocols(self, shop: PortRange) -> None:
        make.manager().allocate("shop", "api")
        assert psql(f"SELECT find_available_port('{shop.pk}', 'web-1')") == str(FIRST)
        assert psql(f"SELECT find_available_port('{shop.pk}', protocol => 'udp')") == str(FIRST)
        assert psql(f"SELECT find_available_port('{shop.pk}', 'LOCALHOST')") == str(FIRST + 1)

    def test_a_seen_listener_is_no_free_port(self, shop: PortRange) -> None:
        Listener.objects.create(hostname="localhost", protocol="tcp", address="::", port=FIRST)
        assert psql(f"SELECT find_available_port('{shop.pk}')") == str(FIRST + 1)
        assert psql(f"SELECT find_available_port('{shop.pk}', protocol => 'udp')") == str(FIRST)

    def test_a_reservation_holds_until_it_expires(self, shop: PortRange) -> None:
        make.manager().reserve("shop", FIRST, expires_at=timezone.now() + timedelta(hours=1))
        assert psql(f"SELECT find_available_port('{shop.pk}')") == str(FIRST + 1)
        expire_everything()
        assert psql(f"SELECT find_available_port('{shop.pk}')") == str(FIRST)

    def test_a_range_that_does_not_exist(self) -> None:
        with pytest.raises(AssertionError, match=r"P0002.*there is no range"):
            psql("SELECT find_available_port(gen_random_uuid())")


def expire_everything() -> None:
    PortAllocation.objects.filter(status="reserved").update(expires_at=timezone.now() - timedelta(seconds=1))


class TestAllocatePort:
    def test_the_whole_row(self, shop: PortRange) -> None:
        row = psql(
            "SELECT project_id, port_range_id, port_number, service_name, service_type, instance, status, hostname, "
            f"protocol FROM allocate_port('{shop.project_id}', '{shop.pk}', 'api', 'web')"
        )
        assert row == f"{shop.project_id}|{shop.pk}|{FIRST}|api|web|0|allocated|localhost|tcp"

    def test_host_and_protocol(self, shop: PortRange) -> None:
        assert allocate(shop, "api", ", 'Web-1', 'udp'") == str(FIRST)
        held = PortAllocation.objects.get()
        assert (held.hostname, held.protocol) == ("web-1", "udp")

    def test_always_a_new_instance(self, shop: PortRange) -> None:
        assert [allocate(shop, "api") for _ in range(3)] == [str(FIRST + n) for n in range(3)]
        assert list(PortAllocation.objects.values_list("instance", flat=True)) == [0, 1, 2]

    def test_the_lowest_unused_instance(self, shop: PortRange) -> None:
        make.manager().allocate_copies("shop", "api", 3)
        make.manager().release("shop", "api", instance=1)
        allocate(shop, "api")
        assert PortAllocation.objects.held().filter(instance=1).exists()

    def test_an_expired_reservation_gives_way_at_that_moment(self, shop: PortRange) -> None:
        reserved = make.manager().reserve("shop", FIRST, expires_at=timezone.now() + timedelta(hours=1))
        expire_everything()
        assert allocate(shop, "api") == str(FIRST)
        reserved.refresh_from_db()
        assert reserved.status == "released"

    def test_a_reservation_that_lives_does_not(self, shop: PortRange) -> None:
        make.manager().reserve("shop", FIRST)
        assert allocate(shop, "api") == str(FIRST + 1)

    @pytest.mark.parametrize(
        ("project", "range_id", "service", "said"),
        [
            ("project", "gen_random_uuid()", "api", "P0002.*there is no range"),
            ("gen_random_uuid()", "range", "api", "port_allocations_(own_or_shared|project_fk)"),
            ("project", "range", "A B", "port_allocations_service"),
        ],
    )
    def test_what_is_wrong_is_said(self, shop: PortRange, project: str, range_id: str, service: str, said: str) -> None:
        keys = {"project": f"'{shop.project_id}'", "range": f"'{shop.pk}'"}
        with pytest.raises(AssertionError, match=f"(?s){said}"):
            psql(f"SELECT allocate_port({keys.get(project, project)}, {keys.get(range_id, range_id)}, '{service}', '')")

    def test_full(self, shop: PortRange) -> None:
        make.manager().allocate_copies("shop", "api", 5)
        with pytest.raises(AssertionError, match=rf"23514.*range shop \({FIRST}-{FIRST + 4}\) has no free port"):
            allocate(shop, "one-more")

    def test_inactive(self, shop: PortRange) -> None:
        PortRange.objects.update(is_active=False)
        with pytest.raises(AssertionError, match="range shop is not active"):
            allocate(shop, "api")

    def test_it_leaves_an_event_with_the_role(self, shop: PortRange) -> None:
        allocate(shop, "api")
        assert Event.objects.first().actor == "db:portal"  # type: ignore[union-attr]


class TestReleasePort:
    def test_it_works_once(self, shop: PortRange) -> None:
        make.manager().allocate("shop", "api")
        assert psql(f"SELECT release_port({FIRST})") == "t"
        assert psql(f"SELECT release_port({FIRST})") == "f"

    def test_host_and_protocol(self, shop: PortRange) -> None:
        make.manager().allocate("shop", "api", hostname="web-1", protocol="udp")
        assert psql(f"SELECT release_port({FIRST})") == "f"
        assert psql(f"SELECT release_port({FIRST}, 'Web-1', 'udp')") == "t"

    def test_nothing_held(self) -> None:
        assert psql("SELECT release_port(1)") == "f"
