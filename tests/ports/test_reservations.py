"""Reservations: a block of ports in one row, which shrinks or splits when some of its ports are released."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from allocations.errors import InvalidValue, PortOutOfRange, PortTaken
from allocations.models import Event, PortAllocation, PortRange, Reservation
from allocations.ports import PortManager, allocations, projects, queries, reservations
from tests import make
from tests.api.conftest import ApiClient, make_token
from tests.commands import run
from tests.make import FIRST
from tests.users import client_of, client_with_role, superuser

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def shop() -> PortRange:
    return make.port_range("shop", FIRST, 100)


@pytest.fixture
def ports(shop: PortRange) -> PortManager:
    return make.manager("anna")


def reserve(ports: PortManager, first: int, last: int, **more: Any) -> list[PortAllocation]:
    return reservations.reserve_block(ports.context, "shop", FIRST + first, FIRST + last, **more)


def release(ports: PortManager, first: int, last: int) -> None:
    reservations.release(ports.context, "shop", FIRST + first, FIRST + last)


def blocks() -> set[tuple[int, int]]:
    rows = Reservation.objects.filter(released_at__isnull=True)
    return {(row.start_port - FIRST, row.end_port - FIRST) for row in rows}


def history() -> list[str]:
    """Return the events of reservations as `released 0-4/tcp`, oldest first."""
    events = Event.objects.filter(subject="reservation").order_by("pk")
    return [f"{event.verb} {event.label}".replace(str(FIRST)[:-1], "") for event in events]


def sql(statement: str, *values: object) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement, values)


class TestOneBlock:
    def test_a_block_takes_one_statement_whatever_its_size(self, ports: PortManager) -> None:
        counts = []
        for first, last in ((0, 0), (1, 99)):
            with CaptureQueriesContext(
                connection,
            ) as queries_of:
                reserve(ports, first, last)
            counts.append([q["sql"] for q in queries_of if "reserve_ports" in q["sql"]])
            assert len(queries_of) <= 6
        assert [len(count) for count in counts] == [1, 1]
        assert blocks() == {(0, 0), (1, 99)}
        assert make.broken_invariants() == []

    def test_the_row_has_the_note_the_expiry_and_who(self, ports: PortManager) -> None:
        later = timezone.now() + timedelta(hours=1)
        rows = reserve(ports, 5, 9, description="phase 2", expires_at=later)
        block = Reservation.objects.get()
        assert (block.ports, block.description, block.expires_at) == (f"{FIRST + 5}-{FIRST + 9}", "phase 2", later)
        assert (block.reserved_by, block.project.name) == ("anna", "shop")
        assert {(a.description, a.expires_at, a.allocated_by) for a in rows} == {("phase 2", later, "anna")}

    @pytest.mark.parametrize(
        ("first", "last", "error", "port"),
        [(0, 9, PortTaken, 4), (90, 110, PortOutOfRange, 100)],
    )
    def test_all_or_none(self, ports: PortManager, first: int, last: int, error: type[Exception], port: int) -> None:
        ports.allocate("shop", "web", port_number=FIRST + 4)
        with pytest.raises(error, match=str(FIRST + port)):
            reserve(ports, first, last)
        assert not Reservation.objects.exists()
        assert PortAllocation.objects.count() == 1

    def test_a_port_that_is_taken_at_the_same_moment(self, ports: PortManager) -> None:
        """Blocks that overlap, and single ports, at the same time: each port goes to one of them."""

        def attempt(job: int) -> bool:
            try:
                if job % 2:
                    reserve(make.manager(), job, job + 20)
                else:
                    make.manager().allocate("shop", f"s{job}", port_number=FIRST + job + 10)
                return True
            except PortTaken:
                return False
            finally:
                connection.close()

        with ThreadPoolExecutor(6) as threads:
            assert any(threads.map(attempt, range(30)))
        assert make.broken_invariants() == []

    def test_an_expired_block_makes_way(self, ports: PortManager) -> None:
        reserve(ports, 0, 9)
        make.expire(PortAllocation.objects.all())
        assert ports.allocate("shop", "web").port_number == FIRST
        assert blocks() == {(1, 9)}
        reserve(ports, 3, 5)
        assert blocks() == {(1, 2), (3, 5), (6, 9)}
        assert make.broken_invariants() == []

    def test_an_agent_in_mode_ask_gets_a_day(self, ports: PortManager) -> None:
        projects.update(ports.context, "shop", mode="ask")
        agent = ApiClient(make_token(ports, "operator"))
        answer = agent("POST", "/api/reservations", {"project": "shop", "port": FIRST, "lastPort": FIRST + 2})
        assert answer.status_code == 201
        expiry = Reservation.objects.get().expires_at
        assert expiry is not None
        assert expiry <= timezone.now() + timedelta(days=1)
        assert (
            agent("PATCH", f"/api/ports/{answer.json()['allocations'][0]['id']}", {"expiresAt": None}).status_code
            == 403
        )


class TestReleasingAPart:
    @pytest.mark.parametrize(
        ("first", "last", "left"),
        [
            (0, 9, set()),
            (0, 2, {(3, 9)}),
            (7, 9, {(0, 6)}),
            (4, 4, {(0, 3), (5, 9)}),
        ],
    )
    def test_the_block_shrinks_or_splits(
        self, ports: PortManager, first: int, last: int, left: set[tuple[int, int]]
    ) -> None:
        reserve(ports, 0, 9, description="phase 2")
        release(ports, first, last)
        assert blocks() == left
        assert set(Reservation.objects.values_list("description", "reserved_by")) == {("phase 2", "anna")}
        assert make.broken_invariants() == []

    def test_several_parts_at_once(self, ports: PortManager) -> None:
        reserve(ports, 0, 9)
        odd = [FIRST + 1, FIRST + 3, FIRST + 8]
        PortAllocation.objects.filter(port_number__in=odd).update(status="released")
        assert blocks() == {(0, 0), (2, 2), (4, 7), (9, 9)}
        assert make.broken_invariants() == []

    def test_a_service_takes_a_port_of_the_block(self, ports: PortManager) -> None:
        reserve(ports, 0, 9)
        ports.allocate("shop", "web", port_number=FIRST + 3)
        assert blocks() == {(0, 2), (4, 9)}

    def test_two_parts_at_the_same_time(self, ports: PortManager) -> None:
        reserve(ports, 0, 99)

        def run_one(first: int) -> None:
            try:
                release(make.manager(), first, first + 1)
            finally:
                connection.close()

        with ThreadPoolExecutor(6) as threads:
            list(threads.map(run_one, range(1, 99, 14)))
        assert len(blocks()) == 8
        assert make.broken_invariants() == []

    def test_the_history_is_that_of_the_block(self, ports: PortManager) -> None:
        reserved = reserve(ports, 0, 9)
        release(ports, 3, 4)
        reservations.release(ports.context, "shop", FIRST, FIRST + 9)
        assert history()[:4] == [
            "reserved 0-9/tcp",
            "updated 0-9/tcp",  # it has 5-9 from now on
            "updated 0-2/tcp",
            "released 3-4/tcp",
        ]
        assert set(history()[4:]) == {"released 0-2/tcp", "released 5-9/tcp"}
        assert not Event.objects.filter(subject="allocation").exists()
        assert Event.objects.about(reserved[9].pk).count() == 3  # reserved, shrunk and released

    def test_a_change_of_the_note_reaches_every_port(self, ports: PortManager) -> None:
        reserved = reserve(ports, 0, 4)
        allocations.update_by_id(ports.context, reserved[2].pk, description="later", expires_at=None)
        assert set(PortAllocation.objects.values_list("description", flat=True)) == {"later"}
        assert history() == ["reserved 0-4/tcp", "updated 0-4/tcp"]


class TestDoors:
    """Lists, search and release treat a block as one."""

    @pytest.fixture
    def block(self, ports: PortManager) -> list[PortAllocation]:
        ports.allocate("shop", "web", port_number=FIRST + 50)
        return reserve(ports, 0, 9, description="phase 2")

    def test_lists_show_one_row(self, ports: PortManager, block: list[PortAllocation]) -> None:
        rows = queries.list_allocations(ports.context, "shop")
        assert [a.address for a in rows] == [f"{FIRST}-{FIRST + 9}/tcp", f"{FIRST + 50}/tcp"]
        assert [a.address for a in queries.list_allocations(ports.context, text=str(FIRST + 5))] == [rows[0].address]
        release(ports, 0, 9)
        assert [a.address for a in queries.list_allocations(ports.context, status="released")] == [rows[0].address]

    def test_commands(self, ports: PortManager, block: list[PortAllocation]) -> None:
        assert f"{FIRST}-{FIRST + 9}" in run("list_ports", "--project", "shop")[0]
        listed = json.loads(run("list_ports", "--status", "reserved", "--json")[0])
        assert [(row["port"], row["lastPort"]) for row in listed] == [(FIRST, FIRST + 9)]
        assert run("release", "shop", "--reservation", f"{FIRST + 3}-{FIRST + 4}")[0] == (
            f"Released {FIRST + 3}-{FIRST + 4}/tcp of shop/(reserved).\n"
        )
        assert blocks() == {(0, 2), (5, 9)}

    def test_reserving_a_port_on_which_something_listens_is_reported(self, ports: PortManager) -> None:
        with socket.create_server(("127.0.0.1", FIRST + 7)):
            _, errors, status = run("reserve", "shop", f"{FIRST + 5}-{FIRST + 9}")
        assert status == 0
        assert f"is listening on {FIRST + 7}/tcp already" in errors

    def test_api(self, ports: PortManager, block: list[PortAllocation]) -> None:
        operator = ApiClient(make_token(ports, "operator"))
        items = operator("GET", "/api/ports?project=shop").json()["items"]
        assert [(item["port"], item.get("lastPort")) for item in items] == [(FIRST, FIRST + 9), (FIRST + 50, None)]
        assert "lastPort" not in operator("GET", f"/api/ports/{block[5].pk}").json(), "the block does not begin here"
        part = operator("DELETE", f"/api/ports/{block[5].pk}?ports={FIRST + 3}-{FIRST + 4}")
        assert (part.json()["port"], part.json()["lastPort"]) == (FIRST + 3, FIRST + 4)
        assert blocks() == {(0, 2), (5, 9)}
        assert operator("DELETE", f"/api/ports/{block[7].pk}").status_code == 200
        assert blocks() == {(0, 2)}
        assert operator("GET", f"/api/events?subject={block[7].pk}").json()["items"][0]["verb"] == "released"

    @pytest.mark.parametrize("part", ["20", "0-40", "3-x", "9-3"])
    def test_a_part_that_is_none_is_refused(self, ports: PortManager, block: list[PortAllocation], part: str) -> None:
        part = "-".join(str(FIRST + int(p)) if p.isdigit() else p for p in part.split("-"))
        with pytest.raises(InvalidValue) as refusal:
            allocations.release_by_id(ports.context, block[0].pk, ports=part)
        assert refusal.value.field == "ports"
        assert blocks() == {(0, 9)}

    def test_a_stale_version_is_refused(self, ports: PortManager, block: list[PortAllocation]) -> None:
        operator = ApiClient(make_token(ports, "operator"))
        version = operator("GET", f"/api/ports/{block[0].pk}")["ETag"]
        release(ports, 9, 9)
        assert operator("DELETE", f"/api/ports/{block[0].pk}", If_Match=version).status_code == 412

    def test_dashboard(self, ports: PortManager, block: list[PortAllocation]) -> None:
        anna = client_with_role("operator")
        page = anna.get("/projects/shop").content.decode()
        assert page.count("phase 2</span>") == 1
        assert f">{FIRST}-{FIRST + 9}<" in page
        address = reverse("release", args=[block[0].pk])
        assert f'value="{FIRST}-{FIRST + 9}"' in anna.get(address).content.decode()
        refused = anna.post(address, {"ports": "7"})
        assert (refused.status_code, blocks()) == (400, {(0, 9)})
        assert anna.post(address, {"ports": f" {FIRST + 3} "}, follow=True).status_code == 200
        assert blocks() == {(0, 2), (4, 9)}
        assert anna.post(address, {}, follow=True).status_code == 200
        assert blocks() == {(4, 9)}
        assert f"{FIRST + 4}-{FIRST + 9}" in anna.get("/search", {"q": str(FIRST + 6)}).content.decode()

    def test_admin(self, block: list[PortAllocation]) -> None:
        root: Client = client_of(superuser())
        page = root.get("/admin/allocations/portallocation/")
        assert page.context["cl"].result_count == 2
        assert f"{FIRST}-{FIRST + 9}" in page.content.decode()


class TestDatabase:
    """What no statement can break, whoever sends it."""

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE reservations SET end_port = end_port + 1",
            "UPDATE reservations SET start_port = start_port + 1",
            "UPDATE reservations SET released_at = now()",
            "UPDATE reservations SET hostname = 'web-1'",
            "UPDATE reservations SET reserved_by = 'me'",
            "DELETE FROM reservations",
            "TRUNCATE reservations CASCADE",
            "INSERT INTO reservations (project_id, start_port, end_port) SELECT id, 1, 2 FROM projects",
            "UPDATE port_allocations SET reservation_id = NULL WHERE status = 'reserved'",
            "UPDATE port_allocations SET reservation_id = (SELECT id FROM reservations LIMIT 1)",
            "UPDATE port_allocations SET description = 'x' WHERE status = 'reserved'",
            "UPDATE port_allocations SET expires_at = now() WHERE status = 'reserved'",
        ],
    )
    def test_statement_is_refused(self, ports: PortManager, statement: str) -> None:
        reserve(ports, 0, 3)
        ports.allocate("shop", "web")
        with pytest.raises(DatabaseError):
            sql(statement)
        assert make.broken_invariants() == []

    def test_a_released_reservation_never_changes(self, ports: PortManager) -> None:
        reserve(ports, 0, 3)
        release(ports, 0, 3)
        with pytest.raises(DatabaseError, match="never changes after its release"):
            sql("UPDATE reservations SET description = 'x'")
