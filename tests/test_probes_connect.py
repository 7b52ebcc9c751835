"""What answers elsewhere: real connects on the loopback addresses, which are as many hosts as one likes."""

import os
import resource
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from allocations import probes
from allocations.probes import connect
from tests.loops import in_a_loop_of_its_own

CLOSED = 1  # tcpmux: nobody listens on it


@pytest.fixture
def server() -> Iterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", 0)) as found:
        yield found.getsockname()


@contextmanager
def full_queue(address: str) -> Iterator[int]:
    """The port of a listener whose queue is full: further connects get no answer."""
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind((address, 0))
        full.listen(0)
        for _ in range(8):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        time.sleep(0.1)
        yield full.getsockname()[1]


@pytest.fixture
def hanging() -> Iterator[tuple[str, int]]:
    with full_queue("127.0.0.1") as port:
        yield "127.0.0.1", port


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


@pytest.mark.parametrize(
    ("timeout", "reasons"),
    [
        (30, {"deadline"}),
        (0.2, {"timeout", "deadline"}),  # 20 at a time for 0.2 s: some are known when time is up, most are not
    ],
)
def test_the_deadline_holds_however_many_hang(timeout: float, reasons: set[str]) -> None:
    with full_queue("0.0.0.0") as port:  # every loopback address is one more host that hangs
        targets = {(f"127.0.{n // 250 + 1}.{n % 250 + 1}", port) for n in range(500)}
        begun = time.monotonic()
        found = connect(targets, timeout=timeout, deadline=1, concurrency=20)
    assert time.monotonic() - begun < 15  # not 30 s: generous, machines are slow
    assert set(found) == targets
    assert {p.status for p in found.values()} == {"unknown"}
    assert {p.reason for p in found.values()} == reasons


@pytest.mark.parametrize("order", [1, -1])
def test_a_name_is_down_only_where_each_address_refused(
    hanging: tuple[str, int], order: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service may listen on the address that is silent: which one is asked first must not matter."""
    answers = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, 0)) for a in ("127.0.0.1", "127.0.0.2")][::order]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers)
    found = connect([("two.example", hanging[1]), ("two.example", CLOSED)], timeout=0.3)
    silent, refused = found["two.example", hanging[1]], found["two.example", CLOSED]
    assert (silent.status, silent.reason, silent.address) == ("unknown", "timeout", "127.0.0.1")
    assert (refused.status, refused.reason) == ("down", "refused")


def test_up_and_down_follow_the_service() -> None:
    with socket.create_server(("127.0.0.1", 0)) as found:
        target = found.getsockname()
        assert connect([target])[target].status == "up"
    assert connect([target])[target].status == "down"
    with socket.create_server(target):
        assert connect([target])[target].status == "up"


ALONE = """
import subprocess, sys
sys.path[:] = sys.argv[1].split(":")
from allocations.probes import connect
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
open("/proc/sys/net/ipv4/ip_local_port_range", "w").write("40000 40001")
print({connect([("127.0.0.1", 40000)])["127.0.0.1", 40000].status for _ in range(20)})
"""


def test_a_port_is_not_up_because_our_own_end_got_it() -> None:
    """TCP can connect a socket to itself. Likely only with a handful of ports for our end: a network of its own."""
    alone = ["unshare", "--map-root-user", "--net"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("this system gives us no network namespace")
    done = subprocess.run(
        [*alone, sys.executable, "-c", ALONE, ":".join([str(Path.cwd()), *sys.path])], capture_output=True, text=True
    )
    assert done.stdout == "{'down'}\n", done.stderr


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


@pytest.mark.parametrize("host", ["::ffff:169.254.1.1", "64:ff9b::a9fe:101", "2002:a9fe:101::1", "::ffff:0.0.0.0"])
def test_nor_by_an_address_that_carries_it(host: str) -> None:
    assert connect([(host, CLOSED)], timeout=0.2)[host, CLOSED].reason == "forbidden"


@pytest.mark.parametrize("host", ["::ffff:127.0.0.1", "127.0.0.1", "::1"])
def test_other_addresses_are_probed(host: str) -> None:
    assert connect([(host, CLOSED)])[host, CLOSED].reason == "refused"


@pytest.mark.parametrize("host", ["a\0b", "x" * 300, "..", "\ud800"])
def test_what_is_no_name_is_unresolved(host: str) -> None:
    assert connect([(host, 80)], timeout=0.2)[host, 80].reason == "unresolved"


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

    assert in_a_loop_of_its_own(ask()) == "up"


def test_in_another_thread(server: tuple[str, int]) -> None:
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: connect([server])[server].status, range(8)))
    assert found == ["up"] * 8


def test_inside_a_running_event_loop_an_error_is_the_same_error() -> None:
    async def ask() -> None:
        connect([("127.0.0.1", 70_000)])

    with pytest.raises(OverflowError):
        connect([("127.0.0.1", 70_000)])
    with pytest.raises(OverflowError):
        in_a_loop_of_its_own(ask())
