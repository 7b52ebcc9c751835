"""What listens here: real sockets, real processes, three ways to ask."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from allocations import listeners
from allocations.listeners import Socket, is_listening, listening

Open = Callable[..., socket.socket]


@pytest.fixture
def open_socket() -> Iterator[Open]:
    """Opens sockets that are closed in the end."""
    with ExitStack() as stack:

        def open_socket(address: str, protocol: str = "tcp", port: int = 0, v6only: bool = True) -> socket.socket:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
            while True:
                found = stack.enter_context(socket.socket(family, kind))
                if family == socket.AF_INET6:
                    found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
                found.bind((address, port))
                if protocol == "tcp":
                    found.listen()
                # The kernel may choose a port on which another program listens at another address.
                if port or len(listening(port_of(found), port_of(found), protocol, owners=False)) == 1:
                    return found

        yield open_socket


def port_of(found: socket.socket) -> int:
    return int(found.getsockname()[1])


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "0.0.0.0", "::1", "::"])
def test_any_local_address_counts(open_socket: Open, address: str, protocol: str) -> None:
    port = port_of(open_socket(address, protocol))
    found = is_listening(port, protocol)
    assert found is not None
    assert (found.protocol, found.address, found.port, found.pid) == (protocol, address, port, os.getpid())
    assert found.process == Path(f"/proc/{os.getpid()}/comm").read_text().strip()


def test_a_dual_stack_socket_counts(open_socket: Open) -> None:
    assert is_listening(port_of(open_socket("::", v6only=False))) is not None


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("address", ["127.0.0.2", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1"])
def test_kernel_and_files_write_an_address_alike(open_socket: Open, address: str, protocol: str) -> None:
    port = port_of(open_socket(address, protocol, v6only=False))
    (by_netlink,), (by_proc,) = (list(f(protocol, port, port)) for f in (listeners._by_netlink, listeners._by_proc))
    assert by_netlink == by_proc
    assert by_netlink.address == address
    assert by_netlink.inode


def test_both_families_on_one_port_are_two_sockets(open_socket: Open) -> None:
    port = port_of(open_socket("::1"))
    open_socket("127.0.0.1", port=port)
    assert [s.address for s in listening(port, port, "tcp")] == ["127.0.0.1", "::1"]


def test_many_listeners_are_all_seen_once(open_socket: Open) -> None:
    """More than fit into one message of the kernel."""
    wanted = {port_of(open_socket("127.0.0.1")) for _ in range(1000)}
    found = [s.port for s in listening(protocol="tcp") if s.pid == os.getpid()]
    assert len(found) == len(set(found))
    assert wanted <= set(found)


NOBODY = """
import os, sys
sys.path[:] = sys.argv[1].split(":")
from allocations import listeners
os.setuid(65534)  # after the imports: that user may not be able to read our files
found = listeners.is_listening(int(sys.argv[2]))
print(found is not None, found and found.pid, listeners.sees_all_owners(), listeners.environment(os.getppid()))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_sees_the_socket_but_not_its_owner(open_socket: Open) -> None:
    port = port_of(open_socket("127.0.0.1"))
    path = ":".join([str(Path.cwd()), *sys.path])
    done = subprocess.run([sys.executable, "-c", NOBODY, path, str(port)], capture_output=True, text=True)
    assert done.stdout == "True None False {}\n", done.stderr


def test_the_other_protocol_is_another_port(open_socket: Open) -> None:
    assert is_listening(port_of(open_socket("127.0.0.1", "udp")), "tcp") is None


def test_nothing_listens_after_it_is_closed(open_socket: Open) -> None:
    found = open_socket("127.0.0.1")
    port = port_of(found)
    found.close()
    assert is_listening(port) is None


def test_a_bound_socket_that_does_not_listen_is_none(open_socket: Open) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert is_listening(port_of(bound)) is None


def test_connections_are_no_listeners(open_socket: Open) -> None:
    server = open_socket("127.0.0.1")
    with socket.create_connection(server.getsockname()) as client:
        assert is_listening(port_of(client)) is None
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connected:
            connected.connect(("127.0.0.1", 9))
            assert is_listening(port_of(connected), "udp") is None


def test_a_span_of_ports_is_picked_by_the_kernel(open_socket: Open) -> None:
    first, second = sorted(port_of(open_socket("127.0.0.1")) for _ in range(2))
    assert [s.port for s in listening(first, first, "tcp")] == [first]
    assert {first, second} <= {s.port for s in listening(first, second, "tcp")}
    assert all(first <= s.port <= second for s in listening(first, second))


def test_another_process_is_named(tmp_path: Path) -> None:
    serve = "s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); sys.stdin.read()"
    program = f"import socket, sys; {serve}"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        found = is_listening(int(child.stdout.readline()))
        assert found is not None
        assert found.pid == child.pid
        assert found.process.startswith("python")
        child.communicate("")


def test_the_three_ways_agree(open_socket: Open) -> None:
    """Other programs come and go between two looks, so that a few are needed to find them standing still."""
    for address in ("127.0.0.2", "0.0.0.0", "::1", "::"):
        for protocol in ("tcp", "udp"):
            open_socket(address, protocol)

    def look(read: Callable[[str, int, int], object], protocol: str) -> set[tuple[str, int]]:
        return {(s.address, s.port) for s in read(protocol, 1, 65535)}  # type: ignore[attr-defined]

    for protocol in ("tcp", "udp"):
        for _ in range(20):
            looks = [look(way, protocol) for way in (listeners._by_netlink, listeners._by_proc, listeners._by_psutil)]
            if looks[0] == looks[1] == looks[2]:
                break
            time.sleep(0.1)
        else:
            pytest.fail(f"they see different sockets: {looks[0] ^ looks[1]}, {looks[0] ^ looks[2]}")


def test_without_netlink_the_files_tell(open_socket: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    port = port_of(open_socket("::1"))

    def refused(*_: object) -> Iterator[Socket]:
        raise PermissionError

    monkeypatch.setattr(listeners, "_by_netlink", refused)
    assert is_listening(port) is not None
    monkeypatch.setattr(listeners, "_by_proc", refused)
    found = is_listening(port)
    assert found is not None
    assert found.pid == os.getpid()


def test_where_the_system_tells_only_root_our_own_sockets_are_seen(
    open_socket: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As macOS does."""
    port = port_of(open_socket("127.0.0.1"))

    def refused(*_: object) -> object:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "net_connections", refused)
    (found,) = listeners._by_psutil("tcp", port, port)
    assert (found.address, found.pid) == ("127.0.0.1", os.getpid())


def test_sockets_are_sorted_and_plain(open_socket: Open) -> None:
    open_socket("127.0.0.1")
    found = listening()
    assert found == sorted(found, key=lambda s: (s.port, s.protocol, s.address))
    assert all(s.process.isprintable() and len(s.process) <= 255 for s in found)


def test_without_owners_no_process_is_looked_at(open_socket: Open) -> None:
    port = port_of(open_socket("127.0.0.1"))
    assert [(s.pid, s.process) for s in listening(port, port, owners=False)] == [(None, "")]


def test_a_name_that_another_program_chose_is_harmless() -> None:
    assert listeners._plain(b"evil\x1b[31m\n\xff" + b"x" * 400) == ("evil\ufffd[31m\ufffd\ufffd" + "x" * 400)[:255]


@pytest.mark.parametrize("evil", ["\n", "\x7f", "\x9b", "\u202e", "\u2066", "\u200b", "\u2028"])
def test_nothing_of_a_name_steers_the_reader(evil: str) -> None:
    assert listeners._plain(f"a{evil}b".encode()) == "a\ufffdb"


def test_a_process_with_an_evil_name() -> None:
    rename = "open('/proc/self/comm', 'w').write('\\u202e\\x9b[1m')"
    program = f"import socket, sys; {rename}; s = socket.create_server(('127.0.0.1', 0)); "
    program += "print(s.getsockname()[1], flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-X", "utf8", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        found = is_listening(int(child.stdout.readline()))
        child.communicate("")
    assert found is not None
    assert found.process == "\ufffd\ufffd[1m"


def test_processes_that_vanish_are_no_error(open_socket: Open) -> None:
    port = port_of(open_socket("127.0.0.1"))
    stop = threading.Event()

    def come_and_go() -> None:
        while not stop.is_set():
            subprocess.run(["true"], check=True)

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        for _ in range(50):
            assert is_listening(port) is not None
            listening()
    finally:
        stop.set()
        thread.join()


def test_environment_tells_only_what_is_asked() -> None:
    told = {"PORT": "3100", "PORTAL_PROJECT": "shop", "SECRET": "no", "PATH": os.environ["PATH"]}
    with subprocess.Popen(["sleep", "60"], env=told) as child:
        deadline = time.monotonic() + 5
        while not listeners.environment(child.pid) and time.monotonic() < deadline:
            time.sleep(0.01)  # between fork and exec it has none
        found = listeners.environment(child.pid)
        child.kill()
    assert found == {"PORT": "3100", "PORTAL_PROJECT": "shop"}


def test_environment_of_nobody_is_empty() -> None:
    assert listeners.environment(2**22 - 1) == {}


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (f"0::/system.slice/docker-{'a1b2c3d4e5f6' + '0' * 52}.scope\n", "a1b2c3d4e5f6"),
        (f"12:pids:/docker/{'a1b2c3d4e5f6' + '0' * 52}\n", "a1b2c3d4e5f6"),
        ("0::/system.slice/consilio-api.service\n", "consilio-api.service"),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/web.service\n", "web.service"),
        ("0::/user.slice/user-1000.slice/session-3.scope\n", ""),
    ],
)
def test_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: str, expected: str) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "cgroup").write_text(groups)
    monkeypatch.setattr(listeners, "PROC", tmp_path)
    assert listeners._container(7) == expected


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1", socket.gethostname().lower()])
def test_this_host(name: str) -> None:
    assert listeners.is_this_host(name)


def test_another_host() -> None:
    assert not listeners.is_this_host("web-1.example.com")
