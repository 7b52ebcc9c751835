"""Probing ports with real connections to loopback addresses, which stand for as many hosts as a test needs."""

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

CLOSED = 1  # tcpmux, on which nothing listens


@pytest.fixture
def server() -> Iterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()


@contextmanager
def full_queue(address: str) -> Iterator[int]:
    """Provide the port of a listener whose backlog is full, so that further connections time out."""
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


def test_open_port_is_up_and_closed_port_is_down(server: tuple[str, int]) -> None:
    results = connect([server, ("127.0.0.1", CLOSED)])
    up, down = results[server], results["127.0.0.1", CLOSED]
    assert (up.status, up.reason, up.address) == ("up", "open", "127.0.0.1")
    assert up.response_time_ms is not None
    assert up.response_time_ms >= 0
    assert (down.status, down.reason) == ("down", "refused")


def test_no_targets_have_no_results() -> None:
    assert connect([]) == {}


def test_name_is_resolved_to_ipv4_and_ipv6(server: tuple[str, int]) -> None:
    assert connect([("localhost", server[1])])["localhost", server[1]].status == "up"


def test_ipv6_address_is_probed() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        target = ("::1", listener.getsockname()[1])
        assert connect([target])[target].status == "up"


def test_server_that_sends_nothing_is_up(server: tuple[str, int]) -> None:
    assert connect([server])[server].status == "up"


def test_connection_is_closed_without_sending_anything() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connect([listener.getsockname()])
        accepted, _ = listener.accept()
        accepted.settimeout(2)
        assert accepted.recv(100) == b""
        accepted.close()


def test_timeout_is_unknown(hanging: tuple[str, int]) -> None:
    probe = connect([hanging], timeout=0.3)[hanging]
    assert (probe.status, probe.reason) == ("unknown", "timeout")


@pytest.mark.parametrize(
    ("timeout", "reasons"),
    [
        (30, {"deadline"}),
        (0.2, {"timeout", "deadline"}),  # at the deadline, only a few have timed out
    ],
)
def test_deadline_holds_however_many_targets_hang(timeout: float, reasons: set[str]) -> None:
    with full_queue("0.0.0.0") as port:  # each loopback address stands for another host that hangs
        targets = {(f"127.0.{n // 250 + 1}.{n % 250 + 1}", port) for n in range(500)}
        started_at = time.monotonic()
        results = connect(targets, timeout=timeout, deadline=1, concurrency=20)
    assert time.monotonic() - started_at < 15  # generous for slow machines, but less than the timeout of 30 s
    assert set(results) == targets
    assert {p.status for p in results.values()} == {"unknown"}
    assert {p.reason for p in results.values()} == reasons


@pytest.mark.parametrize("order", [1, -1])
def test_name_is_down_only_if_every_address_refuses(
    hanging: tuple[str, int], order: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service may listen on the address that does not answer, whichever of them is tried first."""
    entries = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, 0)) for a in ("127.0.0.1", "127.0.0.2")][::order]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: entries)
    results = connect([("two.example", hanging[1]), ("two.example", CLOSED)], timeout=0.3)
    silent, refused = results["two.example", hanging[1]], results["two.example", CLOSED]
    assert (silent.status, silent.reason, silent.address) == ("unknown", "timeout", "127.0.0.1")
    assert (refused.status, refused.reason) == ("down", "refused")


def test_status_follows_the_service() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = listener.getsockname()
        assert connect([target])[target].status == "up"
    assert connect([target])[target].status == "down"
    with socket.create_server(target):
        assert connect([target])[target].status == "up"


IN_NAMESPACE = """
import subprocess, sys
sys.path[:] = sys.argv[1].split(":")
from allocations.probes import connect
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
open("/proc/sys/net/ipv4/ip_local_port_range", "w").write("40000 40001")
print({connect([("127.0.0.1", 40000)])["127.0.0.1", 40000].status for _ in range(20)})
"""


def test_socket_connected_to_itself_is_down() -> None:
    """Run in a network namespace with very few ephemeral ports, where this is likely."""
    unshare = ["unshare", "--map-root-user", "--net"]
    if shutil.which("unshare") is None or subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("this system does not allow network namespaces")
    done = subprocess.run(
        [*unshare, sys.executable, "-c", IN_NAMESPACE, ":".join([str(Path.cwd()), *sys.path])],
        capture_output=True,
        text=True,
    )
    assert done.stdout == "{'down'}\n", done.stderr


def test_name_that_does_not_exist_is_unknown() -> None:
    assert connect([("nowhere.invalid", 80)])["nowhere.invalid", 80].status == "unknown"


def test_slow_name_server_does_not_delay_other_targets(
    monkeypatch: pytest.MonkeyPatch, server: tuple[str, int]
) -> None:
    finish = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: finish.wait(30) and [])
    monkeypatch.setattr(probes, "RESOLVE_SECONDS", 0.2)
    results = connect([("slow.example", 80), server])
    finish.set()
    assert results["slow.example", 80].reason == "unresolved"
    assert results[server].status == "up"


@pytest.mark.parametrize("host", ["169.254.169.254", "fe80::1", "fd00:ec2::254", "192.0.0.192", "0.0.0.0", "::"])
def test_metadata_addresses_of_clouds_are_never_probed(host: str) -> None:
    assert connect([(host, 80)])[host, 80].reason == "forbidden"


# Each leads to 169.254.169.254 in a network that translates such addresses.
HIDING = {
    "mapped": "::ffff:169.254.169.254",
    "compatible": "::a9fe:a9fe",
    "translated": "::ffff:0:a9fe:a9fe",
    "NAT64": "64:ff9b::a9fe:a9fe",
    "local NAT64, 96 bits": "64:ff9b:1::a9fe:a9fe",
    "local NAT64, 64 bits": "64:ff9b:1:0:a9:fea9:fe00:0",
    "local NAT64, 56 bits": "64:ff9b:1:a9:fe:a9fe::",
    "local NAT64, 48 bits": "64:ff9b:1:a9fe:a9:fe00::",
    "6to4": "2002:a9fe:a9fe::1",
    "Teredo server": "2001:0:a9fe:a9fe::1",
    "Teredo client": "2001:0:c000:201::5601:5601",
    "ISATAP": "2001:db8::5efe:a9fe:a9fe",
    "ISATAP, unique": "2001:db8::200:5efe:a9fe:a9fe",
    "mapped, this network": "::ffff:0.0.0.0",
}


@pytest.mark.parametrize("host", HIDING.values(), ids=HIDING)
def test_addresses_that_embed_metadata_addresses_are_never_probed(host: str) -> None:
    assert connect([(host, CLOSED)], timeout=0.2)[host, CLOSED].reason == "forbidden"


@pytest.mark.parametrize("host", ["192.168.1.1", "10.0.0.1", "64:ff9b::c0a8:101", "2001:db8::1", "other.example"])
def test_private_and_public_addresses_are_not_forbidden(host: str) -> None:
    assert not probes.is_forbidden(host)


@pytest.mark.parametrize("host", ["::ffff:127.0.0.1", "127.0.0.1", "::1"])
def test_other_addresses_are_probed(host: str) -> None:
    assert connect([(host, CLOSED)])[host, CLOSED].reason == "refused"


@pytest.mark.parametrize("host", ["a\0b", "x" * 300, "..", "\ud800"])
def test_malformed_name_is_unresolved(host: str) -> None:
    assert connect([(host, 80)], timeout=0.2)[host, 80].reason == "unresolved"


def test_no_descriptor_or_thread_leaks() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=600) as listener:
        targets = [(f"127.0.0.{n + 1}", listener.getsockname()[1]) for n in range(200)] + [listener.getsockname()]
        connect(targets)  # the first call also opens descriptors that Python keeps
        before = (len(os.listdir("/proc/self/fd")), threading.active_count())
        for _ in range(3):
            connect(targets)
        assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before


def test_concurrency_respects_the_limit_of_open_files(server: tuple[str, int]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 80, hard))
    try:
        results = connect([("127.0.0.1", CLOSED + n) for n in range(5)] + [server], concurrency=10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert results[server].status == "up"
    assert "too many open files" not in {p.reason for p in results.values()}


def test_connect_works_inside_a_running_event_loop(server: tuple[str, int]) -> None:
    async def status() -> str:
        return connect([server])[server].status

    assert in_a_loop_of_its_own(status()) == "up"


def test_connect_works_in_other_threads(server: tuple[str, int]) -> None:
    with ThreadPoolExecutor(4) as threads:
        statuses = list(threads.map(lambda _: connect([server])[server].status, range(8)))
    assert statuses == ["up"] * 8


def test_error_inside_a_running_event_loop_is_raised() -> None:
    async def probe() -> None:
        connect([("127.0.0.1", 70_000)])

    with pytest.raises(OverflowError):
        connect([("127.0.0.1", 70_000)])
    with pytest.raises(OverflowError):
        in_a_loop_of_its_own(probe())
