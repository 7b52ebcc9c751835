"""Test the operations under concurrency, with real processes and a real PostgreSQL.

Naive implementations of the same operations must fail each check.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
from django.conf import settings
from django.db import connection

from allocations.errors import PortOutOfRange, RangeExhausted
from allocations.models import PortAllocation, PortRange
from tests import make

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.both_servers, pytest.mark.slow]
FIRST = make.FIRST
Job = list[Any]


def race(jobs_of_each: list[list[Job]], *, threads: int = 1, locked_table: str = "") -> list[dict[str, Any]]:
    """Run the jobs of each process at the same time, and return the answer of every job.

    Args:
        threads: how many threads, each with a connection of its own, share the jobs of a process.
        locked_table: a table to lock until all threads of all processes wait for it, so that they start together.
    """
    racers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.ports.racer"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=settings.BASE_DIR,
        )
        for _ in jobs_of_each
    ]
    for racer, jobs in zip(racers, jobs_of_each, strict=True):
        assert racer.stdin is not None
        work = {"database": connection.settings_dict["NAME"], "jobs": jobs, "threads": threads}
        racer.stdin.write(json.dumps(work) + "\n")
        racer.stdin.flush()
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    with locked_until_waiting(locked_table, threads * len(racers)) if locked_table else nullcontext():
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
    answers = [racer.communicate(timeout=120)[0] for racer in racers]
    return [json.loads(line) for answer in answers for line in answer.splitlines()]


@contextmanager
def locked_until_waiting(table: str, callers: int) -> Iterator[None]:
    """Lock the table, and unlock it at the end of the block once this number of callers wait for it."""
    locker = connection.copy()
    try:
        locker.set_autocommit(False)
        with locker.cursor() as cursor:
            cursor.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        yield
        query = f"SELECT count(*) FROM pg_locks WHERE relation = '{table}'::regclass AND NOT granted"
        _wait_until(query, callers, seconds=8)  # the first caller gives up after ten
        locker.rollback()
    finally:
        locker.close()


def _wait_until(query: str, count: int, seconds: int) -> None:
    deadline = time.monotonic() + seconds
    while (rows := rows_of(query)) != [(count,)]:
        assert time.monotonic() < deadline, f"{rows} instead of {count}: {query}"
        time.sleep(0.02)


def deal(jobs: list[Job], processes: int) -> list[list[Job]]:
    """Distribute the jobs over this number of processes."""
    return [jobs[n::processes] for n in range(processes)]


@pytest.fixture
def naive_tables() -> Iterator[None]:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE naive_ports (port int, service text)")
        cursor.execute("CREATE TABLE naive_range (last int)")
        cursor.execute("INSERT INTO naive_range VALUES (%s)", [FIRST + 199])
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE naive_ports, naive_range")


def rows_of(query: str) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall()


class TestManyServices:
    def test_200_services_get_200_ports_and_one_more_is_refused(self) -> None:
        make.port_range("shop", FIRST, 200)
        answers = race(deal([["allocate", "shop", f"service-{n}"] for n in range(200)], 16))
        ports = sorted(answer["value"] for answer in answers)
        assert ports == list(range(FIRST, FIRST + 200))
        assert make.broken_invariants() == []
        with pytest.raises(RangeExhausted, match=f"all 200 of shop {FIRST}-{FIRST + 199} are held"):
            make.manager().allocate("shop", "one-too-many")

    def test_naive_allocator_gives_out_a_port_twice(self, naive_tables: None) -> None:
        answers = race(deal([["naive_allocate", FIRST, f"service-{n}"] for n in range(200)], 16))
        ports = [answer["value"] for answer in answers]
        assert len(set(ports)) < len(ports)


class TestOneService:
    """64 callers, each with its own connection, look up the same service at the same time."""

    def test_64_callers_get_the_same_allocation(self) -> None:
        make.port_range("shop", FIRST, 100)
        answers = race([[["get_or_allocate", "shop", "api"]] * 4] * 16, threads=4, locked_table="port_allocations")
        assert [answer.get("value", answer) for answer in answers] == [FIRST] * 64
        assert PortAllocation.objects.count() == 1

    def test_naive_get_or_allocate_creates_several(self, naive_tables: None) -> None:
        race([[["naive_get_or_allocate", FIRST, "api"]] * 4] * 16, threads=4, locked_table="naive_ports")
        assert len(rows_of("SELECT port FROM naive_ports")) > 1


def test_concurrent_projects_get_separate_blocks() -> None:
    answers = race([[["add_project", f"project-{n}"]] for n in range(8)])
    assert len({answer["value"] for answer in answers}) == 8, answers
    assert make.broken_invariants() == []


class TestResizeDuringAllocation:
    def test_no_held_port_is_outside_its_range(self) -> None:
        make.port_range("shop", FIRST, 200)
        sizes = [["resize", "shop", FIRST + size - 1] for size in (150, 60, 200, 30, 120, 90, 200, 40, 10, 200) * 3]
        answers = race([sizes, *deal([["allocate", "shop", f"service-{n}"] for n in range(120)], 7)])
        assert make.broken_invariants() == []
        resized, allocated = answers[: len(sizes)], answers[len(sizes) :]
        assert {answer["code"] for answer in resized if "code" in answer} <= {"range_in_use"}, answers
        assert {answer["code"] for answer in allocated if "code" in answer} <= {"range_exhausted"}, answers
        assert PortAllocation.objects.held().count() > 0

    @pytest.mark.parametrize(("offset", "refusal"), [(None, RangeExhausted), (7, PortOutOfRange)])
    def test_an_allocation_waits_for_the_new_size(self, offset: int | None, refusal: type[Exception]) -> None:
        """A range that is shrunk while a port is taken from it is, to the allocation, a small range."""
        shop = make.port_range("shop", FIRST, 10)
        for n in range(5):
            make.manager().allocate("shop", f"service-{n}")
        with _another_session() as other, ThreadPoolExecutor(1) as threads:
            other.execute("UPDATE port_ranges SET end_port = %s WHERE id = %s", [FIRST + 4, shop.pk])
            answer = threads.submit(_allocate_in_thread, None if offset is None else FIRST + offset)
            _wait_until(WAITING, 1, seconds=20)
            other.connection.commit()
            with pytest.raises(refusal):
                answer.result(10)

    def test_naive_resize_leaves_ports_outside(self, naive_tables: None) -> None:
        tighten: list[Job] = [["naive_tighten", FIRST]] * 30
        allocate: list[Job] = [["naive_allocate_inside", FIRST, f"service-{n}"] for n in range(140)]
        # On a busy machine the two jobs may not overlap in one race, so run up to ten.
        assert any(any(a["value"] for a in race([tighten, *deal(allocate, 7)])[:30]) for _ in range(10))


WAITING = """
    SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
     WHERE NOT l.granted AND a.datname = current_database()
"""


@contextmanager
def _another_session() -> Iterator[Any]:
    """Open a transaction in a session of its own."""
    other = connection.copy()
    try:
        other.set_autocommit(False)
        with other.cursor() as cursor:
            yield cursor
    finally:
        other.close()


def _allocate_in_thread(port: int | None) -> int:
    try:
        return make.manager().allocate("shop", "last", port_number=port).port_number
    finally:
        connection.close()


def test_concurrent_batches_are_allocated_completely_or_not_at_all() -> None:
    make.port_range("shop", FIRST, 50)
    jobs: list[Job] = [["allocate_many", "shop", [f"{n}-{m}" for m in range(8)]] for n in range(16)]
    answers = race(deal(jobs, 8))
    batches = [answer["value"] for answer in answers if "value" in answer]
    refusals = [answer for answer in answers if "code" in answer]
    assert {answer["code"] for answer in refusals} <= {"range_exhausted"}
    assert all(len(ports) == 8 for ports in batches)
    assert len(batches) == 6  # 48 of 50 ports
    assert PortAllocation.objects.held().count() == 48
    assert make.broken_invariants() == []


def test_allocating_and_releasing_in_a_small_range_never_exhausts_it() -> None:
    make.port_range("shop", FIRST, 10)
    jobs = [
        [job for n in range(15) for job in (["allocate", "shop", f"s{p}-{n}"], ["release", "shop", f"s{p}-{n}"])]
        for p in range(8)
    ]
    answers = race(jobs)
    # At most 8 of the 10 ports are in use at a time, so no caller may be told that the range is full.
    assert {answer.get("code") for answer in answers} == {None}
    assert PortAllocation.objects.held().count() == 0
    assert make.broken_invariants() == []


def test_port_of_a_client_killed_before_its_commit_is_free() -> None:
    make.port_range("shop", FIRST, 10)
    answers = race([[["allocate_and_die", "shop", "api"]]])
    assert answers == [{"taken": FIRST}]
    _wait_until_killed_client_is_gone()
    assert make.manager().allocate("shop", "next").port_number == FIRST


def _wait_until_killed_client_is_gone() -> None:
    """Wait for PostgreSQL to notice that a client is gone. Until then its transaction stays open."""
    _wait_until("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()", 0, seconds=20)


def test_allocation_does_not_wait_for_another_to_commit() -> None:
    """While one transaction that holds a port is open, another caller gets the next port at once."""
    shop = make.port_range("shop", FIRST, 10)
    other = connection.copy()
    try:
        other.set_autocommit(False)
        with other.cursor() as cursor:
            cursor.execute("SELECT port_number FROM allocate_port(%s, %s, 'first', '')", [shop.project_id, shop.pk])
            assert cursor.fetchone() == (FIRST,)
            with connection.cursor() as second:
                second.execute("SET statement_timeout = '2s'")
                second.execute(
                    "SELECT port_number FROM allocate_port(%s, %s, 'second', '')", [shop.project_id, shop.pk]
                )
                assert second.fetchone() == (FIRST + 1,)
                second.execute("RESET statement_timeout")
        other.rollback()
    finally:
        other.close()
    assert make.manager().allocate("shop", "third").port_number == FIRST


def test_allocation_of_the_last_port_waits_for_a_possible_rollback() -> None:
    """The transaction that is taking the last port may roll back. The range is not reported as full until it ends."""
    make.port_range("shop", FIRST, 1)
    other = connection.copy()
    try:
        other.set_autocommit(False)
        with other.cursor() as cursor:
            row = PortRange.objects.get()
            cursor.execute("SELECT allocate_port(%s, %s, 'first', '')", [row.project_id, row.pk])
            with subprocess.Popen(
                [sys.executable, "-m", "tests.ports.racer"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=settings.BASE_DIR,
            ) as racer:
                assert racer.stdin is not None
                assert racer.stdout is not None
                work = {"database": connection.settings_dict["NAME"], "jobs": [["allocate", "shop", "second"]]}
                racer.stdin.write(json.dumps(work) + "\n")
                racer.stdin.flush()
                assert racer.stdout.readline() == "ready\n"
                racer.stdin.write("go\n")
                racer.stdin.flush()
                with pytest.raises(subprocess.TimeoutExpired):
                    racer.wait(timeout=1)  # it is still waiting
                other.rollback()
                assert json.loads(racer.communicate(timeout=20)[0]) == {"value": FIRST}
    finally:
        other.close()
