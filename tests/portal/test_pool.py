"""The sessions that the web server keeps: what they must survive, and what one request must not leave to the next."""

from __future__ import annotations

import gc
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress

import pytest
from django.db import DataError, OperationalError, close_old_connections, connection, connections, transaction

from allocations.errors import Unavailable
from allocations.models import Project
from allocations.ports import PortManager, audits, tokens
from portal.postgresql import pool as pools
from portal.postgresql.base import DatabaseWrapper, release_session
from portal.worker import sessions_of_worker
from tests.make import FIRST
from tests.serving import gunicorn, wait_until

pytestmark = pytest.mark.django_db(transaction=True)
PORT = FIRST + 945
MOST = 3
OTHERS = (
    "FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
)
SESSIONS = f"SELECT count(*) {OTHERS}"
END_ALL = f"SELECT count(pg_terminate_backend(pid, 5000)) {OTHERS}"


def value(of: DatabaseWrapper, statement: str) -> object:
    with of.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchone()[0]


def pid(of: DatabaseWrapper) -> object:
    return value(of, "SELECT pg_backend_pid()")


@pytest.fixture
def pool() -> Iterator[pools.Pool]:
    connection.ensure_connection()  # outside of the pool, to look from there
    pools.pool.open(MOST)
    try:
        yield pools.pool
    finally:
        pools.pool.close()


@pytest.fixture
def wrapper(pool: pools.Pool) -> Iterator[DatabaseWrapper]:
    """What a thread uses for one request after the other."""
    wrapper = new_wrapper()
    try:
        yield wrapper
    finally:
        wrapper.close()


def new_wrapper() -> DatabaseWrapper:
    wrapper = connections.create_connection("default")
    wrapper.settings_dict = dict(wrapper.settings_dict)
    assert isinstance(wrapper, DatabaseWrapper)
    return wrapper


def end_request(of: DatabaseWrapper) -> None:
    """Do what Django does after a request."""
    of.close_if_unusable_or_obsolete()
    assert of.connection is None


def test_next_request_has_the_same_session(wrapper: DatabaseWrapper) -> None:
    before = pid(wrapper)
    end_request(wrapper)
    assert pid(wrapper) == before


def test_session_that_was_used_last_is_used_next(pool: pools.Pool) -> None:
    wrappers = [new_wrapper() for _ in range(MOST)]
    last = [pid(each) for each in wrappers][1]
    for each in (wrappers[0], wrappers[2], wrappers[1]):
        end_request(each)
    assert pid(wrappers[0]) == last
    wrappers[0].close()


@pytest.mark.parametrize(
    ("change", "look", "clean"),
    [
        ("SET statement_timeout = '7s'", "SELECT current_setting('statement_timeout') = '7s'", False),
        ("SET search_path = pg_catalog", "SELECT current_setting('search_path') = 'pg_catalog'", False),
        ("SET TIME ZONE 'Asia/Tokyo'", "SELECT current_setting('TimeZone')", "UTC"),
        ("SET my.actor = 'someone'", "SELECT coalesce(current_setting('my.actor', true), '')", ""),
        ("SET ROLE pg_monitor", "SELECT current_user = session_user", True),
        ("SET default_transaction_read_only = on", "SELECT current_setting('transaction_read_only')", "off"),
        ("SELECT pg_advisory_lock(77)", "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'", 0),
        ("CREATE TEMPORARY TABLE mine (n int)", "SELECT to_regclass('pg_temp.mine') IS NULL", True),
        ("PREPARE mine AS SELECT 1", "SELECT count(*) FROM pg_prepared_statements", 0),
        ("DECLARE mine CURSOR WITH HOLD FOR SELECT 1", "SELECT count(*) FROM pg_cursors WHERE name = 'mine'", 0),
        ("LISTEN mine", "SELECT count(*) FROM pg_listening_channels()", 0),
    ],
)
def test_nothing_of_a_request_is_seen_by_the_next(
    wrapper: DatabaseWrapper, change: str, look: str, clean: object
) -> None:
    with wrapper.cursor() as cursor:
        cursor.execute(change)
    assert value(wrapper, look) != clean
    before = wrapper.connection
    end_request(wrapper)
    assert value(wrapper, look) == clean
    assert wrapper.connection is before


def test_sequence_value_of_a_request_is_not_seen_by_the_next(wrapper: DatabaseWrapper) -> None:
    with wrapper.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY SEQUENCE mine; SELECT nextval('mine')")
    value(wrapper, "SELECT lastval()")
    end_request(wrapper)
    with pytest.raises(OperationalError, match="lastval is not yet defined"):
        value(wrapper, "SELECT lastval()")


@pytest.mark.parametrize("statements", [["BEGIN"], ["BEGIN", "SELECT 1/0"]])
def test_transaction_of_a_request_ends_with_it(wrapper: DatabaseWrapper, statements: list[str]) -> None:
    for statement in statements:
        with suppress(DataError), wrapper.cursor() as cursor:
            cursor.execute(statement)
    before = wrapper.connection
    end_request(wrapper)
    assert value(wrapper, "SELECT pg_current_xact_id_if_assigned() IS NULL")
    assert wrapper.connection is not before


def test_actions_after_a_commit_are_not_left_to_the_next_request(wrapper: DatabaseWrapper) -> None:
    pid(wrapper)
    wrapper.run_on_commit.append((set(), lambda: pytest.fail("it is another request's"), False))
    end_request(wrapper)
    pid(wrapper)
    assert wrapper.run_on_commit == []


def test_session_that_the_server_has_ended_is_not_used(wrapper: DatabaseWrapper) -> None:
    before = pid(wrapper)
    end_request(wrapper)
    assert value(connection, f"SELECT pg_terminate_backend({before}, 5000)") is True  # type: ignore[arg-type]
    assert pid(wrapper) != before


def test_session_of_another_role_or_database_is_not_used(wrapper: DatabaseWrapper) -> None:
    before = pid(wrapper)
    end_request(wrapper)
    wrapper.settings_dict["NAME"] = "postgres"
    try:
        assert pid(wrapper) != before
        end_request(wrapper)
    finally:
        wrapper.settings_dict["NAME"] = connection.settings_dict["NAME"]
    assert pid(wrapper) == before


def test_session_that_breaks_during_a_request_is_not_kept(wrapper: DatabaseWrapper, pool: pools.Pool) -> None:
    value(connection, f"SELECT pg_terminate_backend({pid(wrapper)}, 5000)")  # type: ignore[arg-type]
    with pytest.raises(OperationalError):
        pid(wrapper)
    end_request(wrapper)
    assert pid(wrapper)
    assert (pool._count, len(pool._idle)) == (1, 0)


def test_old_sessions_are_closed(wrapper: DatabaseWrapper, pool: pools.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    before = pid(wrapper)
    monkeypatch.setattr(pools, "MOST_SECONDS", -1)
    end_request(wrapper)
    assert pool._count == 0
    assert pid(wrapper) != before


def test_idle_sessions_are_closed(pool: pools.Pool) -> None:
    wrappers = [new_wrapper() for _ in range(MOST)]
    # Threads of other tests in this process may have sessions, too.
    mine = f"{SESSIONS} AND pid = ANY (ARRAY{[pid(each) for each in wrappers]})"
    for each in wrappers:
        end_request(each)
    pool.close_idle()
    assert value(connection, mine) == MOST  # type: ignore[arg-type]
    pool.close_idle(0)
    assert wait_until(lambda: value(connection, mine) == 0)  # type: ignore[arg-type]
    assert pool._count == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_thread_that_ends_without_closing_leaves_its_place(pool: pools.Pool) -> None:
    def forget_to_close() -> None:
        assert pid(new_wrapper())

    for _ in range(MOST + 1):
        thread = threading.Thread(target=forget_to_close)
        thread.start()
        thread.join()
        gc.collect()
    assert pool._count == 0


def test_request_waits_for_a_session(wrapper: DatabaseWrapper, monkeypatch: pytest.MonkeyPatch) -> None:
    others = [new_wrapper() for _ in range(MOST)]
    for each in others:
        pid(each)
    monkeypatch.setattr(pools, "WAIT_SECONDS", 0.1)
    with pytest.raises(OperationalError, match="All 3 sessions of this process are in use"):
        pid(wrapper)
    monkeypatch.setattr(pools, "WAIT_SECONDS", 20)
    before = pid(others[0])
    timer = threading.Timer(0.2, lambda: pools.pool.put(session))
    session, others[0].connection = others[0].connection, None
    timer.start()
    assert pid(wrapper) == before
    for each in others:
        each.close()


def test_session_within_a_transaction_is_kept(wrapper: DatabaseWrapper) -> None:
    """The transaction of a test goes on, though the client of the test sends a request."""
    connections["default"].ensure_connection()
    with transaction.atomic():
        before = connections["default"].connection
        release_session()
        assert connections["default"].connection is before


def test_child_process_gets_sessions_of_its_own(wrapper: DatabaseWrapper, pool: pools.Pool) -> None:
    before = pid(wrapper)
    end_request(wrapper)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            mine = new_wrapper()
            status = 0 if pool._count == 0 and pid(mine) != before else 2
            end_request(mine)
            pool.close_idle(0)
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert pid(wrapper) == before


@pytest.mark.parametrize(("sessions", "workers", "each"), [(40, 2, 20), (40, 3, 13), (2, 4, 1)])
def test_workers_share_the_sessions(sessions: int, workers: int, each: int) -> None:
    assert sessions_of_worker(sessions, workers) == each


def test_callers_who_wait_for_an_audit_keep_no_session(ports: PortManager, pool: pools.Pool) -> None:
    """As many as the process may have sessions would block everybody else until the audit ends."""

    def ask() -> object:
        try:
            Project.objects.exists()  # as looking up who asks does
            return audits.run_shared(ports.context).id
        finally:
            close_old_connections()

    with ThreadPoolExecutor(2 * MOST) as threads, ExitStack() as stack:
        stack.enter_context(audits._turn)
        waiting = [threads.submit(ask) for _ in range(2 * MOST)]
        assert not wait(waiting, 0.5, FIRST_COMPLETED).done
        assert pool._count == len(pool._idle)
        stack.close()
        assert len({each.result(30) for each in waiting}) == 1


def test_an_audit_that_takes_too_long_is_told(ports: PortManager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audits, "LONGEST_WAIT", 0.1)
    with audits._turn, pytest.raises(Unavailable, match="Another audit takes too long"):
        audits.run_shared(ports.context)


@pytest.fixture
def served() -> Iterator[Callable[[], int]]:
    """What asks a real gunicorn for the first page of ports, and returns the status."""
    secret = tokens.create(PortManager(actor="tests").context, "pool", role="viewer")[1]
    close_old_connections()
    with gunicorn(PORT) as url:

        def ask() -> int:
            request = urllib.request.Request(  # noqa: S310 always http to this machine
                f"{url}/api/ports", headers={"Authorization": f"Bearer {secret}"}
            )
            try:
                with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310 always http to this machine
                    return int(response.status)
            except urllib.error.HTTPError as error:
                return error.code

        yield ask


@pytest.mark.slow
def test_no_request_fails_after_all_sessions_were_ended(served: Callable[[], int]) -> None:
    with ThreadPoolExecutor(8) as threads:
        for _ in range(5):
            assert {*threads.map(lambda _: served(), range(24))} == {200}
            assert int(str(value(connection, END_ALL))) > 0  # type: ignore[arg-type]


@pytest.mark.slow
def test_many_parallel_requests_do_not_exhaust_the_server(served: Callable[[], int]) -> None:
    done = threading.Event()
    gc.collect()  # sessions of threads that other tests started
    before = int(str(value(connection, SESSIONS)))  # type: ignore[arg-type]
    connection.close()  # it would be one more

    def watch() -> int:
        most = 0
        while not done.is_set():
            most = max(most, int(str(value(connection, SESSIONS))) - before)  # type: ignore[arg-type]
            time.sleep(0.02)
        connection.close()
        return most

    with ThreadPoolExecutor(401) as threads:
        watching = threads.submit(watch)
        statuses = [*threads.map(lambda _: served(), range(400))]
        done.set()
        most = watching.result()
    assert {*statuses} == {200}
    assert 2 <= most <= 40
