"""What a migration makes of a registry that was in use."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.db import DatabaseError, connection

from allocations.models import PortAllocation, PortRange
from tests import make
from tests.make import FIRST

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


def migrate(to: str = "") -> None:
    call_command("migrate", "allocations", *([to] if to else []), interactive=False, verbosity=0)


@pytest.fixture
def shop() -> Iterator[PortRange]:
    """A range of a registry that calls this machine by several names, as before 0008."""
    migrate("0007_agents")
    yield make.port_range("shop", FIRST, 20)
    with connection.cursor() as cursor:  # a test may leave behind what the migration refuses
        cursor.execute("UPDATE port_allocations SET status = 'released' WHERE status <> 'released'")
    migrate()


def hold(shop: PortRange, port: int, hostname: str, status: str = "allocated") -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO port_allocations (id, project_id, port_range_id, port_number, service_name, hostname, status)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s)",
            [uuid4(), shop.project_id, shop.pk, port, f"web-{port}", hostname, status],
        )


def test_this_machine_gets_one_name(shop: PortRange) -> None:
    for place, name in enumerate(("127.0.0.1", "127.3.2.1", "::1", "0.0.0.0", "::", "127.example.com", "::12")):
        hold(shop, FIRST + place, name)
    hold(shop, FIRST + 10, "127.0.0.1", "pending")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE port_allocations SET status = 'released' WHERE hostname = '127.3.2.1'")

    migrate()

    names = PortAllocation.objects.order_by("port_number").values_list("hostname", flat=True)
    assert list(names) == [*["localhost"] * 5, "127.example.com", "::12", "localhost"]
    assert PortAllocation.objects.get(status="pending").expires_at is not None
    with pytest.raises(DatabaseError, match="cannot change"):
        PortAllocation.objects.filter(port_number=FIRST).update(hostname="elsewhere")
    with pytest.raises(DatabaseError, match="port_allocations_canonical_host"):
        hold(shop, FIRST + 11, "127.0.0.1")
    assert make.broken_invariants() == []


@pytest.mark.parametrize("further", [0, 1])
def test_of_two_that_become_one_a_person_decides(shop: PortRange, further: int) -> None:
    hold(shop, FIRST, "localhost")
    hold(shop, FIRST + further, "127.0.0.1")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE port_allocations SET service_name = 'web'")

    with pytest.raises(DatabaseError, match=rf"SELECT release_port\({FIRST}, 'localhost', 'tcp'\)"):
        migrate()

    assert PortAllocation.objects.held().count() == 2, "nothing was changed"
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT release_port({FIRST}, 'localhost', 'tcp')")
    migrate()
    assert PortAllocation.objects.held().get().hostname == "localhost"
