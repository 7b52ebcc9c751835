"""Find the sockets that are listening on this host.

On Linux, use the `sock_diag(7)` netlink interface, as `ss` does: the kernel returns only listening sockets and filters
by port itself, so looking up one port takes about 60 µs however many connections are open. If netlink isn't available,
read /proc/net instead; on other systems, use psutil.

Finding the process behind a socket is a separate step: it takes a pass over /proc/*/fd, and only root can see the
processes of other users. The observer, which is a process of root, is asked about those.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from .observer import client

TCP, UDP = "tcp", "udp"
MAX_NAME_LENGTH = 255
UNPRINTABLE = r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]"
PROC = Path("/proc")

# <linux/sock_diag.h>, <linux/inet_diag.h>, <linux/netlink.h>
NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY = 4, 20
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST_DUMP = 0x301
INET_DIAG_REQ_BYTECODE = 1
BYTECODE_JUMP, BYTECODE_PORT_GE, BYTECODE_PORT_LE = 0, 2, 3
HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port ID
REQUEST = struct.Struct("=BBBBI48x")  # family, protocol, extensions, padding, states; no socket ID
OPERATION = struct.Struct("=BBH")  # code, offset if the condition is true, offset if it is false
MESSAGE = struct.Struct("=4xH2x16s44xI")  # inet_diag_msg: source port in network order, source address, inode
STATE_LISTEN, STATE_CLOSE = 10, 7  # the kernel calls a bound, unconnected UDP socket "closed"
PROTOCOLS = {TCP: (socket.IPPROTO_TCP, STATE_LISTEN), UDP: (socket.IPPROTO_UDP, STATE_CLOSE)}
RECEIVE_BUFFER = 1 << 18
# What an audit wants to know about a process, by which it recognizes a service.
VARIABLES = ("PORT", "HOST", "PORTAL_PROJECT", "PORTAL_SERVICE")


@dataclass(frozen=True, slots=True)
class Socket:
    """A listening TCP socket, or a bound and unconnected UDP socket.

    If its process isn't known, `process` is empty and `pid` is None.
    """

    protocol: str
    address: str
    port: int
    process: str = ""
    pid: int | None = None
    container: str = ""
    inode: int = 0
    cwd: str = ""  # the working directory of the process
    # Variables of the process, as the observer read them. Otherwise environment() reads them.
    variables: Mapping[str, str] = field(default_factory=dict, compare=False)


def listening(
    first: int = 1, last: int = 65535, protocol: str | None = None, *, processes: bool = True
) -> list[Socket]:
    """Return the sockets that are listening on the ports from `first` to `last`, sorted by port.

    Args:
        first: the lowest port.
        last: the highest port, inclusive.
        protocol: "tcp" or "udp"; None means both.
        processes: whether to find the process behind each socket, which takes a pass over /proc.
    """
    protocols = (protocol,) if protocol else (TCP, UDP)
    sockets = [s for name in protocols for s in _sockets(name, first, last)]
    sockets.sort(key=lambda s: (s.port, s.protocol, s.address, s.inode))
    if not processes or not sockets:
        return sockets
    sockets = _with_processes(sockets)
    if client.is_expected() and any(s.pid is None for s in sockets):
        return _with_observed(sockets, first, last, protocol)
    return sockets


def is_listening(port: int, protocol: str = TCP) -> Socket | None:
    """Return a socket that is listening on the port at any local address, or None if there isn't one.

    If there are several, prefer one whose process is known. The allocator calls this for every new allocation, so
    processes are only searched if something is listening.
    """
    sockets = listening(port, port, protocol)
    return next((s for s in sockets if s.pid is not None), sockets[0] if sockets else None)


def listening_in(pids: Collection[int], protocol: str) -> list[Socket]:
    """Return the sockets on which these processes listen. This is much faster than to look at all processes."""
    sockets = list(_sockets(protocol, 1, 65535))
    owners = _pids({s.inode for s in sockets if s.inode}, among=pids)
    return [s for s in sockets if s.pid in pids or s.inode in owners]


def is_this_host(hostname: str) -> bool:
    """Return True if a hostname in the registry refers to the host that this code is running on."""
    return hostname in ("localhost", "127.0.0.1", "::1") or hostname == socket.gethostname().lower()


def why_processes_are_unknown() -> str:
    """Return why the processes of some sockets cannot be known, or an empty string if all of them can be."""
    if os.geteuid() == 0:
        return ""
    if not client.is_expected():
        return "only root sees the processes of other users"
    try:
        client.listeners(1, 1, TCP)
    except client.ObserverUnavailable as error:
        return str(error)
    return ""


def environment(socket: Socket, names: Iterable[str] = VARIABLES) -> Mapping[str, str]:
    """Return the given environment variables that the process behind a socket was started with.

    The result is empty if the process is not known, is gone, or belongs to another user.
    """
    if socket.pid is None or socket.variables:
        return socket.variables
    try:
        content = (PROC / str(socket.pid) / "environ").read_bytes()
    except OSError:
        return {}
    selected = set(names)
    pairs = (entry.partition(b"=") for entry in content.split(b"\0"))
    return {key.decode(): _sanitize(value) for key, _, value in pairs if key.decode(errors="replace") in selected}


# --- Sockets ---


def _sockets(protocol: str, first: int, last: int) -> Iterable[Socket]:
    for read in (_by_netlink, _by_proc):
        try:
            return list(read(protocol, first, last))
        except OSError:
            continue
    return list(_by_psutil(protocol, first, last))


def _by_netlink(protocol: str, first: int, last: int) -> Iterator[Socket]:
    if not hasattr(socket, "AF_NETLINK"):
        raise OSError("this system has no netlink")
    number, state = PROTOCOLS[protocol]
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as kernel:
        kernel.settimeout(5)
        kernel.bind((0, 0))
        for family in (socket.AF_INET, socket.AF_INET6):
            kernel.sendall(_request(family, number, 1 << state, first, last))
            yield from _responses(kernel, protocol, family)


def _request(family: int, protocol: int, states: int, first: int, last: int) -> bytes:
    body = REQUEST.pack(family, protocol, 0, 0, states)
    if (first, last) != (1, 65535):
        # Two conditions of two words each. If one is false, it jumps past the end, which rejects the socket.
        code = (
            OPERATION.pack(BYTECODE_PORT_GE, 8, 20)
            + OPERATION.pack(BYTECODE_JUMP, 4, first)
            + OPERATION.pack(BYTECODE_PORT_LE, 8, 12)
            + OPERATION.pack(BYTECODE_JUMP, 4, last)
        )
        body += struct.pack("=HH", 4 + len(code), INET_DIAG_REQ_BYTECODE) + code
    return HEADER.pack(HEADER.size + len(body), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST_DUMP, 1, 0) + body


def _responses(kernel: socket.socket, protocol: str, family: int) -> Iterator[Socket]:
    size = 4 if family == socket.AF_INET else 16
    addresses: dict[bytes, str] = {}  # formatted only once: thousands of sockets share a few addresses
    while True:
        data = kernel.recv(RECEIVE_BUFFER)
        offset = 0
        while offset < len(data):
            length, kind, *_ = HEADER.unpack_from(data, offset)
            if kind == NLMSG_DONE:
                return
            if kind == NLMSG_ERROR:
                (code,) = struct.unpack_from("=i", data, offset + HEADER.size)
                raise OSError(-code, os.strerror(-code))
            port, source, inode = MESSAGE.unpack_from(data, offset + HEADER.size)
            if source not in addresses:
                addresses[source] = socket.inet_ntop(family, source[:size])
            if port:
                yield Socket(protocol, addresses[source], socket.ntohs(port), inode=inode)
            offset += (length + 3) & ~3


def _by_proc(protocol: str, first: int, last: int) -> Iterator[Socket]:
    """Read /proc/net/tcp, tcp6, udp and udp6, which give addresses as hexadecimal 32-bit words in host byte order."""
    state = f"{PROTOCOLS[protocol][1]:02X}"
    for name in (protocol, f"{protocol}6"):
        file = PROC / "net" / name
        if name.endswith("6") and not file.exists():  # IPv6 is disabled
            continue
        for line in file.read_text().splitlines()[1:]:
            _, local, _, socket_state, *rest = line.split()
            address, port = local.split(":")
            if socket_state == state and first <= int(port, 16) <= last:
                yield Socket(protocol, _address(address), int(port, 16), inode=int(rest[5]))


def _address(text: str) -> str:
    packed = struct.pack(f"={len(text) // 8}I", *(int(text[i : i + 8], 16) for i in range(0, len(text), 8)))
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def _by_psutil(protocol: str, first: int, last: int) -> Iterator[Socket]:
    """Ask psutil, for systems other than Linux. It reports the process as well, if the system allows it."""
    for connection, pid in _connections(protocol):
        is_listener = connection.status == psutil.CONN_LISTEN if protocol == TCP else not connection.raddr
        if is_listener and connection.laddr and first <= connection.laddr.port <= last:
            name = _process_name(pid) if pid else ""
            yield Socket(protocol, connection.laddr.ip.partition("%")[0], connection.laddr.port, name, pid)


def _connections(protocol: str) -> Iterator[tuple[Any, int | None]]:
    try:
        yield from [(connection, connection.pid) for connection in psutil.net_connections(protocol)]
    except psutil.AccessDenied:  # macOS lists all connections for root only; ask each process of this user instead
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                yield from [(connection, process.pid) for connection in process.net_connections(protocol)]


# --- Processes ---


def _with_observed(sockets: list[Socket], first: int, last: int, protocol: str | None) -> list[Socket]:
    """Return the sockets with the processes that the observer sees, as far as it can be asked."""
    try:
        observed = {row["inode"]: row for row in client.listeners(first, last, protocol) if row["pid"] is not None}
    except client.ObserverUnavailable:
        return sockets
    names = ("process", "pid", "container", "cwd", "variables")
    return [
        replace(s, **{name: row[name] for name in names}) if s.pid is None and (row := observed.get(s.inode)) else s
        for s in sockets
    ]


def _with_processes(sockets: list[Socket]) -> list[Socket]:
    pids = _pids({s.inode for s in sockets if s.inode})
    details: dict[int, dict[str, Any]] = {}
    result = []
    for listener in sockets:
        pid = pids.get(listener.inode)
        if pid is None:
            result.append(listener)
            continue
        if pid not in details:
            details[pid] = {"process": _process_name(pid), "container": _container(pid), "cwd": _directory(pid)}
        result.append(replace(listener, pid=pid, **details[pid]))
    return result


def _pids(inodes: set[int], among: Iterable[int] | None = None) -> dict[int, int]:
    """Return the process that holds each socket, by inode; if several share a socket, the one with the lowest pid.

    Args:
        among: the processes to look at; None means all.
    """
    pids: dict[int, int] = {}
    if not inodes or not PROC.is_dir():
        return pids
    if among is None:
        among = (int(name) for name in os.listdir(PROC) if name.isdigit())  # noqa: PTH208 twice as fast
    for pid in sorted(among):
        if len(pids) == len(inodes):
            break
        directory = f"{PROC}/{pid}/fd"
        try:
            descriptors = os.listdir(directory)  # noqa: PTH208
        except OSError:  # the process has ended or belongs to another user
            continue
        for descriptor in descriptors:
            try:
                target = os.readlink(f"{directory}/{descriptor}")  # noqa: PTH115
            except OSError:
                continue
            if target.startswith("socket:["):
                inode = int(target[8:-1])
                if inode in inodes:
                    pids.setdefault(inode, pid)
    return pids


def _process_name(pid: int) -> str:
    """Return the name of what a process runs.

    That is the name of its main thread, unless the thread is named after something else, such as MainThread in Node 24.
    """
    directory = PROC / str(pid)
    try:
        name = (directory / "comm").read_bytes().rstrip(b"\n")
        words = (directory / "cmdline").read_bytes().split(b"\0")
        file = os.fsencode(os.readlink(directory / "exe")).removesuffix(b" (deleted)")  # noqa: PTH115
    except OSError:  # it has ended or, for `exe`, belongs to somebody else
        pass
    else:
        programs = [os.path.basename(path) for path in (words[0], *words[1:2], file)]  # noqa: PTH119 of bytes
        return _sanitize(name if any(program.startswith(name) for program in programs) else programs[2])
    try:
        return _sanitize((directory / "comm").read_bytes().rstrip(b"\n"))
    except OSError:
        pass
    try:
        return _sanitize(psutil.Process(pid).name().encode(errors="replace"))
    except psutil.Error:
        return ""


def _directory(pid: int) -> str:
    try:
        path = os.fsencode(os.readlink(PROC / str(pid) / "cwd"))  # noqa: PTH115
    except OSError:
        return ""
    return re.sub(UNPRINTABLE, "\N{REPLACEMENT CHARACTER}", path.decode(errors="replace"))


def _container(pid: int) -> str:
    """Return the container ID or systemd unit that the process runs in, judging by its control group."""
    try:
        groups = (PROC / str(pid) / "cgroup").read_text(errors="replace")
    except OSError:
        return ""
    if match := re.search(r"(?:docker|libpod|crio|cri-containerd)[-/]([0-9a-f]{12})[0-9a-f]{52}", groups):
        return match[1]
    # Units of a user's own systemd are nested in that user's `user@1000.service`, so take the innermost one.
    units = re.findall(r"/([a-zA-Z0-9@:._-]+\.service)(?=/|$)", groups, re.MULTILINE)
    return units[-1][:MAX_NAME_LENGTH] if units else ""


def _sanitize(raw: bytes) -> str:
    """Decode text that another program chose, replace characters that could confuse a terminal, and truncate it."""
    return re.sub(UNPRINTABLE, "\N{REPLACEMENT CHARACTER}", raw.decode(errors="replace"))[:MAX_NAME_LENGTH]
