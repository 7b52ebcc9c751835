"""What answers elsewhere: real connects on the loopback addresses, which are as many hosts as one likes."""

import asyncio
import os
import resource
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from allocations import probes
from allocations.probes import connect

CLOSED = 1  # tcpmux: nobody listens on it


@pytest.fixture
def server() -> Iterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", 0)) as found:
        yield found.getsockname()


@pytest.fixture
def hanging() -> Iterator[tuple[str, int]]:
    """A listener whose queue is full: further connects get no answer."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        clients = [socket.socket() for _ in range(8)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        time.sleep(0.1)
        yield full.getsockname()
        for client in clients:
            client.close()


def test_it_works(server: tuple[str, int]) -> None:
    found = connect([server, ("127.0.0.1", CLOSED)])
    up, down = found[server], found["127.0.0.1", CLOSED]
    assert (up.status, up.reason, up.address) == ("up", "open", "127.0.0.1")
    assert up.response_time_ms is not None
    assert up.response_time_ms >= 0
    assert (down.status, down.reason) == ("down", "refused")


def test_no_targets() -> None:
    assert connect([]) == {}


def test_a_name_is_resolved_and_both_families_tried(server: tuple[str, int]) -> None:
    assert connect([("localhost", server[1])])["localhost", server[1]].status == "up"


def test_ipv6() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as found:
        target = ("::1", found.getsockname()[1])
        assert connect([target])[target].status == "up"


def test_what_accepts_and_never_speaks_is_up(server: tuple[str, int]) -> None:
    assert connect([server])[server].status == "up"


def test_the_connection_is_closed_at_once_without_a_word() -> None:
    with socket.create_server(("127.0.0.1", 0)) as found:
        connect([found.getsockname()])
        accepted, _ = found.accept()
        accepted.settimeout(2)
        assert accepted.recv(100) == b""
        accepted.close()


def test_a_timeout_is_unknown_never_down(hanging: tuple[str, int]) -> None:
    found = connect([hanging], timeout=0.3)[hanging]
    assert (found.status, found.reason) == ("unknown", "timeout")


def test_the_deadline_holds_however_many_hang(hanging: tuple[str, int]) -> None:
    targets = [(f"127.0.0.{n % 250 + 1}", hanging[1]) if n else hanging for n in range(500)]
    begun = time.monotonic()
    found = connect([hanging, *targets], timeout=30, deadline=0.5, concurrency=20)
    assert time.monotonic() - begun < 10  # not 30 s, nor 25 times 30 s: the bound is generous, machines are slow
    assert found[hanging].reason == "deadline"
    assert set(found) == {hanging, *targets}


def test_a_name_that_does_not_exist_is_unknown() -> None:
    assert connect([("nowhere.invalid", 80)])["nowhere.invalid", 80].status == "unknown"


def test_a_name_server_that_hangs_holds_nothing_up(monkeypatch: pytest.MonkeyPatch, server: tuple[str, int]) -> None:
    free = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: free.wait(30) and [])
    monkeypatch.setattr(probes, "RESOLVE_SECONDS", 0.2)
    found = connect([("slow.example", 80), server])
    free.set()
    assert found["slow.example", 80].reason == "unresolved"
    assert found[server].status == "up"


@pytest.mark.parametrize("host", ["169.254.169.254", "fe80::1", "fd00:ec2::254", "0.0.0.0", "::"])
def test_where_clouds_keep_credentials_is_never_probed(host: str) -> None:
    assert connect([(host, 80)])[host, 80].reason == "forbidden"


def test_nothing_leaks() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=600) as found:
        targets = [(f"127.0.0.{n + 1}", found.getsockname()[1]) for n in range(200)] + [found.getsockname()]
        connect(targets)  # what Python opens once
        before = (len(os.listdir("/proc/self/fd")), threading.active_count())
        for _ in range(3):
            connect(targets)
        assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before


def test_fewer_at_a_time_than_this_process_may_open(server: tuple[str, int]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 80, hard))
    try:
        found = connect([("127.0.0.1", CLOSED + n) for n in range(5)] + [server], concurrency=10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found[server].status == "up"
    assert "too many open files" not in {p.reason for p in found.values()}


def test_inside_a_running_event_loop(server: tuple[str, int]) -> None:
    async def ask() -> str:
        return connect([server])[server].status

    assert asyncio.run(ask()) == "up"
