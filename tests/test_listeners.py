"""Finding listening sockets, with real sockets and processes and each of the three sources."""

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
from tests.make import FIRST
from tests.node import NODE

Open = Callable[..., socket.socket]


@pytest.fixture
def open_socket() -> Iterator[Open]:
    """Return a function that opens sockets, which are closed after the test."""
    with ExitStack() as stack:

        def open_socket(address: str, protocol: str = "tcp", port: int = 0, v6only: bool = True) -> socket.socket:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
            while True:
                opened = stack.enter_context(socket.socket(family, kind))
                if family == socket.AF_INET6:
                    opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
                opened.bind((address, port))
                if protocol == "tcp":
                    opened.listen()
                # The kernel may choose a port on which another program is listening at another address.
                if port or len(listening(port_of(opened), port_of(opened), protocol, processes=False)) == 1:
                    return opened

        yield open_socket


def port_of(bound: socket.socket) -> int:
    return int(bound.getsockname()[1])


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "0.0.0.0", "::1", "::"])
def test_listener_on_any_local_address_is_found(open_socket: Open, address: str, protocol: str) -> None:
    port = port_of(open_socket(address, protocol))
    listener = is_listening(port, protocol)
    assert listener is not None
    assert (listener.protocol, listener.address, listener.port, listener.pid) == (protocol, address, port, os.getpid())
    assert listener.process == Path(f"/proc/{os.getpid()}/comm").read_text().strip()


def test_dual_stack_socket_is_found(open_socket: Open) -> None:
    assert is_listening(port_of(open_socket("::", v6only=False))) is not None


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("address", ["127.0.0.2", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1"])
def test_netlink_and_proc_format_addresses_alike(open_socket: Open, address: str, protocol: str) -> None:
    port = port_of(open_socket(address, protocol, v6only=False))
    (by_netlink,), (by_proc,) = (list(f(protocol, port, port)) for f in (listeners._by_netlink, listeners._by_proc))
    assert by_netlink == by_proc
    assert by_netlink.address == address
    assert by_netlink.inode


def test_ipv4_and_ipv6_sockets_on_one_port_are_both_returned(open_socket: Open) -> None:
    port = port_of(open_socket("::1"))
    open_socket("127.0.0.1", port=port)
    assert [s.address for s in listening(port, port, "tcp")] == ["127.0.0.1", "::1"]


def test_each_of_many_listeners_is_returned_once(open_socket: Open) -> None:
    """There are more than fit into one message from the kernel."""
    opened = {port_of(open_socket("127.0.0.1")) for _ in range(1000)}
    ports = [s.port for s in listening(protocol="tcp") if s.pid == os.getpid()]
    assert len(ports) == len(set(ports))
    assert opened <= set(ports)


AS_NOBODY = """
import os, sys
sys.path[:] = sys.argv[1].split(":")
from django.conf import settings
settings.configure(PORTAL_HOME=__import__("pathlib").Path("/nonexistent"))
from allocations import listeners
os.setuid(65534)  # only after the imports, since that user may not be able to read our files
found = listeners.is_listening(int(sys.argv[2]))
parent = listeners.Socket("tcp", "::", 1, pid=os.getppid())
print(found is not None, found and found.pid, listeners.why_processes_are_unknown(), listeners.environment(parent))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_other_users_see_the_socket_but_not_its_process(open_socket: Open) -> None:
    port = port_of(open_socket("127.0.0.1"))
    path = ":".join([str(Path.cwd()), *sys.path])
    done = subprocess.run([sys.executable, "-c", AS_NOBODY, path, str(port)], capture_output=True, text=True)
    assert done.stdout == "True None only root sees the processes of other users {}\n", done.stderr


def test_protocols_are_separate(open_socket: Open) -> None:
    assert is_listening(port_of(open_socket("127.0.0.1", "udp")), "tcp") is None


def test_closed_socket_is_not_found(open_socket: Open) -> None:
    opened = open_socket("127.0.0.1")
    port = port_of(opened)
    opened.close()
    assert is_listening(port) is None


def test_bound_socket_that_is_not_listening_is_ignored(open_socket: Open) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert is_listening(port_of(bound)) is None


def test_connections_are_ignored(open_socket: Open) -> None:
    server = open_socket("127.0.0.1")
    with socket.create_connection(server.getsockname()) as client:
        assert is_listening(port_of(client)) is None
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connected:
            connected.connect(("127.0.0.1", 9))
            assert is_listening(port_of(connected), "udp") is None


def test_kernel_filters_by_port(open_socket: Open) -> None:
    first, second = sorted(port_of(open_socket("127.0.0.1")) for _ in range(2))
    assert [s.port for s in listening(first, first, "tcp")] == [first]
    assert {first, second} <= {s.port for s in listening(first, second, "tcp")}
    assert all(first <= s.port <= second for s in listening(first, second))


def test_process_of_another_program_is_found(tmp_path: Path) -> None:
    serve = "s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); sys.stdin.read()"
    program = f"import socket, sys; {serve}"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        listener = is_listening(int(child.stdout.readline()))
        assert listener is not None
        assert listener.pid == child.pid
        assert listener.process.startswith("python")
        child.communicate("")


def test_all_three_sources_agree(open_socket: Open) -> None:
    """Try repeatedly, since other programs open and close sockets between two reads."""
    for address in ("127.0.0.2", "0.0.0.0", "::1", "::"):
        for protocol in ("tcp", "udp"):
            open_socket(address, protocol)

    def addresses(read: Callable[[str, int, int], object], protocol: str) -> set[tuple[str, int]]:
        return {(s.address, s.port) for s in read(protocol, 1, 65535)}  # type: ignore[attr-defined]

    sources = (listeners._by_netlink, listeners._by_proc, listeners._by_psutil)

    for protocol in ("tcp", "udp"):
        for _ in range(20):
            results = [addresses(source, protocol) for source in sources]
            if results[0] == results[1] == results[2]:
                break
            time.sleep(0.1)
        else:
            pytest.fail(f"the sources disagree: {results[0] ^ results[1]}, {results[0] ^ results[2]}")


def test_proc_and_psutil_are_used_without_netlink(open_socket: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    port = port_of(open_socket("::1"))

    def refused(*_: object) -> Iterator[Socket]:
        raise PermissionError

    monkeypatch.setattr(listeners, "_by_netlink", refused)
    assert is_listening(port) is not None
    monkeypatch.setattr(listeners, "_by_proc", refused)
    listener = is_listening(port)
    assert listener is not None
    assert listener.pid == os.getpid()


def test_psutil_finds_own_sockets_if_listing_all_is_denied(open_socket: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """On macOS, only root may list the sockets of all processes."""
    port = port_of(open_socket("127.0.0.1"))

    def refused(*_: object) -> object:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "net_connections", refused)
    (listener,) = listeners._by_psutil("tcp", port, port)
    assert (listener.address, listener.pid) == ("127.0.0.1", os.getpid())


def test_sockets_are_sorted_and_names_are_printable(open_socket: Open) -> None:
    open_socket("127.0.0.1")
    sockets = listening()
    assert sockets == sorted(sockets, key=lambda s: (s.port, s.protocol, s.address))
    assert all(s.process.isprintable() and len(s.process) <= 255 for s in sockets)


def test_processes_are_optional(open_socket: Open) -> None:
    port = port_of(open_socket("127.0.0.1"))
    assert [(s.pid, s.process) for s in listening(port, port, processes=False)] == [(None, "")]


def test_sanitize_replaces_control_characters_and_truncates() -> None:
    assert listeners._sanitize(b"evil\x1b[31m\n\xff" + b"x" * 400) == ("evil\ufffd[31m\ufffd\ufffd" + "x" * 400)[:255]


@pytest.mark.parametrize("character", ["\n", "\x7f", "\x9b", "\u202e", "\u2066", "\u200b", "\u2028"])
def test_sanitize_replaces_characters_that_affect_display(character: str) -> None:
    assert listeners._sanitize(f"a{character}b".encode()) == "a\ufffdb"


def test_malicious_process_name_is_sanitized() -> None:
    rename = "open('/proc/self/comm', 'w').write('\\u202e\\x9b[1m')"
    program = f"import socket, sys; {rename}; s = socket.create_server(('127.0.0.1', 0)); "
    program += "print(s.getsockname()[1], flush=True); sys.stdin.read()"
    with subprocess.Popen(
        ["\u202e\x9b[1m", "-X", "utf8", "-c", program],
        executable=sys.executable,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        listener = is_listening(int(child.stdout.readline()))
        child.communicate("")
    assert listener is not None
    assert listener.process == "\ufffd\ufffd[1m"


def test_processes_may_end_during_the_search(open_socket: Open) -> None:
    port = port_of(open_socket("127.0.0.1"))
    stop = threading.Event()

    def start_processes() -> None:
        while not stop.is_set():
            subprocess.run(["true"], check=True)

    thread = threading.Thread(target=start_processes)
    thread.start()
    try:
        for _ in range(50):
            assert is_listening(port) is not None
            listening()
    finally:
        stop.set()
        thread.join()


def test_environment_returns_only_the_given_names() -> None:
    variables = {"PORT": "3100", "PORTAL_PROJECT": "shop", "SECRET": "no", "PATH": os.environ["PATH"]}
    with subprocess.Popen(["sleep", "60"], env=variables) as child:
        deadline = time.monotonic() + 5
        listener = listeners.Socket("tcp", "::", 1, pid=child.pid)
        while not listeners.environment(listener) and time.monotonic() < deadline:
            time.sleep(0.01)  # the environment is empty between fork and exec
        environment = listeners.environment(listener)
        child.kill()
    assert environment == {"PORT": "3100", "PORTAL_PROJECT": "shop"}


def test_environment_of_missing_process_is_empty() -> None:
    assert listeners.environment(listeners.Socket("tcp", "::", 1, pid=2**22 - 1)) == {}


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


def test_other_host() -> None:
    assert not listeners.is_this_host("web-1.example.com")


PORT = FIRST + 960
SERVER = "require('http').createServer().listen(PORT, '127.0.0.1', () => console.log('ready'))"


@pytest.mark.parametrize("thread", ["MainThread", "node-main"])
def test_process_is_named_after_what_it_runs(thread: str, tmp_path: Path) -> None:
    """Node 24 calls its main thread MainThread."""
    code = f"require('fs').writeFileSync('/proc/self/comm', '{thread}');" + SERVER.replace("PORT", str(PORT))
    with subprocess.Popen([NODE, "-e", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            (found,) = listening(PORT, PORT)
            assert (found.process, found.pid, found.cwd) == ("node", process.pid, str(tmp_path))
            assert [s.port for s in listeners.listening_in({process.pid}, "tcp")] == [PORT]
            assert listeners.listening_in({1}, "udp") == []
        finally:
            process.kill()
