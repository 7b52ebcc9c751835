"""Many idle and slow connections, with a real gunicorn: Portal goes on answering others."""

from __future__ import annotations

import http.client
import resource
import signal
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest
from django.conf import settings

from portal.worker import most_connections
from tests import make
from tests.serving import gunicorn, wait_until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
SERVED = make.FIRST + 920
DRIP = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: "


def healthz() -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{SERVED}/healthz", timeout=30) as response:
        return int(response.status)


@contextmanager
def connections(count: int) -> Iterator[list[socket.socket]]:
    """Open this many connections, at a rate that the server can accept."""
    with ExitStack() as stack:
        opened = []
        for n in range(count):
            opened.append(stack.enter_context(socket.create_connection(("127.0.0.1", SERVED), timeout=30)))
            if n % 200 == 199:
                time.sleep(0.02)
        yield opened


def is_closed(client: socket.socket) -> bool:
    """Return whether the server has closed the connection, after reading what it has sent."""
    client.setblocking(False)
    try:
        while client.recv(4096):
            pass
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def log_size() -> int:
    return (settings.PORTAL_HOME / f"served-{SERVED}.log").stat().st_size


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Let this process open all the files that its hard limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_few_descriptors_are_enough_for_many_idle_connections() -> None:
    with gunicorn(SERVED, descriptors=128), connections(320) as idle:
        assert [healthz() for _ in range(20)] == [200] * 20
        most = 2 * (most_connections(128) // 2)  # two workers, one address
        assert wait_until(lambda: len([client for client in idle if not is_closed(client)]) <= most)
        assert log_size() < 20_000


@pytest.mark.usefixtures("many_descriptors")
def test_thousands_of_idle_and_hundreds_of_slow_connections_stop_nobody() -> None:
    with gunicorn(SERVED, descriptors=1024), connections(5000), connections(500) as slow:
        for _ in range(5):
            for client in slow:
                with suppress(OSError):  # closed by the server, to make room
                    client.sendall(DRIP[:1])
            assert healthz() == 200
        assert log_size() < 50_000


def test_slow_clients_are_closed_and_quick_ones_are_not() -> None:
    with gunicorn(SERVED, workers=1), connections(4) as (idle, dripping, stalled, uploading):
        stalled.sendall(b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n")
        uploading.sendall(b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90000\r\n\r\n")
        deadline = time.monotonic() + 30
        clients, closed = {idle, dripping, stalled}, set[socket.socket]()
        n = 0
        while closed != clients and time.monotonic() < deadline:
            if dripping not in closed:
                dripping.sendall(DRIP[n : n + 1])
            uploading.sendall(b"x" * 512)
            n += 1
            time.sleep(0.5)
            closed |= {client for client in clients - closed if is_closed(client)}
        assert closed == clients
        assert not is_closed(uploading)
        assert healthz() == 200


def test_connections_whose_requests_are_being_answered_are_not_closed_to_make_room() -> None:
    with gunicorn(SERVED, workers=1, descriptors=128):
        most = most_connections(128) // 2  # of one address
        with connections(most) as busy:
            for client in busy:
                client.sendall(b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n")
            time.sleep(0.5)
            with connections(1) as (refused,):
                refused.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert refused.recv(4096).startswith(b"HTTP/1.1 503 ")
            assert not [client for client in busy if is_closed(client)]
        assert healthz() == 200


def answered(client: socket.socket) -> bool:
    """Send a request, and return whether it is answered."""
    try:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return client.recv(4096).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False


def test_connection_stays_open_longer_than_clients_pause() -> None:
    """A client that sends a request while Portal closes the connection would lose it."""
    with gunicorn(SERVED, workers=1), connections(1) as (client,):
        assert answered(client)
        time.sleep(3)  # gunicorn's default is 2 s
        assert answered(client)


def test_connections_between_two_requests_are_closed_to_make_room() -> None:
    with gunicorn(SERVED, workers=1, descriptors=128):
        most = most_connections(128) // 2  # of one address
        with connections(most) as pausing:
            assert all(answered(client) for client in pausing)
            time.sleep(0.5)
            assert healthz() == 200
            assert is_closed(pausing[0])
            assert not [client for client in pausing[1:] if is_closed(client)]


def test_end_does_not_wait_for_connections_without_a_request() -> None:
    with gunicorn(SERVED, workers=2, end=signal.SIGTERM), connections(4) as clients:
        assert all(answered(client) for client in clients[:3])
        started_at = time.monotonic()
    assert time.monotonic() - started_at < 15  # gunicorn would wait for so long


def test_a_worker_that_is_replaced_drops_no_request() -> None:
    """Clients that keep their connections get each answer, however often workers are replaced meanwhile."""
    failures: list[str] = []

    def send(requests: int) -> None:
        client = http.client.HTTPConnection("127.0.0.1", SERVED, timeout=30)
        for _ in range(requests):
            try:
                client.request("GET", "/healthz")
                response = client.getresponse()
                response.read()
                assert response.status == 200
            except (OSError, http.client.HTTPException, AssertionError) as error:
                failures.append(repr(error))
                client.close()
            time.sleep(0.001)
        client.close()

    with gunicorn(SERVED, max_requests=80):
        threads = [threading.Thread(target=send, args=(100,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []
