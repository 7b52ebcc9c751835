"""What listens on this host, from the kernel.

On Linux by `sock_diag(7)`, the netlink dump that `ss` reads: only listening sockets come back, and the kernel itself
picks a span of ports, so that one port costs some 60 µs however many connections there are. Where netlink is closed
to us /proc/net tells the same, and on other systems psutil. Who owns a socket is another matter: that takes one pass
over /proc/*/fd, and only root sees the processes of other users.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

TCP, UDP = "tcp", "udp"
LONGEST_NAME = 255
UNPRINTABLE = r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]"  # control, direction, width
PROC = Path("/proc")

# <linux/sock_diag.h>, <linux/inet_diag.h>, <linux/netlink.h>
NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY = 4, 20
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST_DUMP = 0x301
INET_DIAG_REQ_BYTECODE = 1
BYTECODE_JUMP, BYTECODE_PORT_GE, BYTECODE_PORT_LE = 0, 2, 3
HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port id
REQUEST = struct.Struct("=BBBBI48x")  # family, protocol, extensions, pad, states; no socket id
OPERATION = struct.Struct("=BBH")  # code, offset if it holds, offset if not
MESSAGE = struct.Struct("=4xH2x16s44xI")  # inet_diag_msg: source port in network order, source address, inode
STATE_LISTEN, STATE_CLOSE = 10, 7  # a bound UDP socket that is not connected is "closed"
PROTOCOLS = {TCP: (socket.IPPROTO_TCP, STATE_LISTEN), UDP: (socket.IPPROTO_UDP, STATE_CLOSE)}
RECEIVE_BUFFER = 1 << 18


@dataclass(frozen=True, slots=True)
class Socket:
    """One listening TCP socket, or one bound and unconnected UDP socket.

    `process` is empty and `pid` None where the owner cannot be known.
    """

    protocol: str
    address: str
    port: int
    process: str = ""
    pid: int | None = None
    container: str = ""
    inode: int = 0


def listening(first: int = 1, last: int = 65535, protocol: str | None = None, *, owners: bool = True) -> list[Socket]:
    """Every socket that listens on a port from first to last, IPv4 and IPv6, in port order.

    Args:
        protocol: tcp or udp; None is both.
        owners: whether to find out whose they are, which costs a pass over /proc.
    """
    wanted = (protocol,) if protocol else (TCP, UDP)
    found = [s for proto in wanted for s in _sockets(proto, first, last)]
    found.sort(key=lambda s: (s.port, s.protocol, s.address, s.inode))
    return _with_owners(found) if owners and found else found


def is_listening(port: int, protocol: str = TCP) -> Socket | None:
    """A socket that listens on the port on any local address, with its owner; None if there is none.

    This is the allocator's hot path: no process is looked at unless something listens.
    """
    found = listening(port, port, protocol)
    return next((s for s in found if s.pid is not None), found[0] if found else None)


def is_this_host(hostname: str) -> bool:
    """Whether a host of the registry is the one this code runs on."""
    return hostname in ("localhost", "127.0.0.1", "::1") or hostname == socket.gethostname().lower()


def sees_all_owners() -> bool:
    """Whether the owner of every socket can be known: only root sees the processes of others."""
    return os.geteuid() == 0


def environment(
    pid: int, names: Iterable[str] = ("PORT", "HOST", "PORTAL_PROJECT", "PORTAL_SERVICE")
) -> dict[str, str]:
    """These variables of a process, as it was started; none where it cannot be read."""
    try:
        raw = (PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return {}
    wanted = set(names)
    pairs = (entry.partition(b"=") for entry in raw.split(b"\0"))
    return {key.decode(): _plain(value) for key, _, value in pairs if key.decode(errors="replace") in wanted}


# --- The kernel ---


def _sockets(protocol: str, first: int, last: int) -> Iterable[Socket]:
    for read in (_by_netlink, _by_proc):
        try:
            return list(read(protocol, first, last))
        except OSError:
            continue
    return list(_by_psutil(protocol, first, last))


def _by_netlink(protocol: str, first: int, last: int) -> Iterator[Socket]:
    if not hasattr(socket, "AF_NETLINK"):
        raise OSError("no netlink here")
    number, state = PROTOCOLS[protocol]
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as kernel:
        kernel.settimeout(5)
        kernel.bind((0, 0))
        for family in (socket.AF_INET, socket.AF_INET6):
            kernel.sendall(_question(family, number, 1 << state, first, last))
            yield from _answers(kernel, protocol, family)


def _question(family: int, protocol: int, states: int, first: int, last: int) -> bytes:
    body = REQUEST.pack(family, protocol, 0, 0, states)
    if (first, last) != (1, 65535):
        # Two conditions of two words each; one that fails jumps past the end, which rejects the socket.
        code = (
            OPERATION.pack(BYTECODE_PORT_GE, 8, 20)
            + OPERATION.pack(BYTECODE_JUMP, 4, first)
            + OPERATION.pack(BYTECODE_PORT_LE, 8, 12)
            + OPERATION.pack(BYTECODE_JUMP, 4, last)
        )
        body += struct.pack("=HH", 4 + len(code), INET_DIAG_REQ_BYTECODE) + code
    return HEADER.pack(HEADER.size + len(body), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST_DUMP, 1, 0) + body


def _answers(kernel: socket.socket, protocol: str, family: int) -> Iterator[Socket]:
    size = 4 if family == socket.AF_INET else 16
    written: dict[bytes, str] = {}  # thousands of sockets share a few addresses
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
            if source not in written:
                written[source] = socket.inet_ntop(family, source[:size])
            if port:
                yield Socket(protocol, written[source], socket.ntohs(port), inode=inode)
            offset += (length + 3) & ~3


def _by_proc(protocol: str, first: int, last: int) -> Iterator[Socket]:
    """/proc/net/tcp and its kin: addresses in hexadecimal, as 32-bit words of the machine's byte order."""
    state = f"{PROTOCOLS[protocol][1]:02X}"
    for name in (protocol, f"{protocol}6"):
        file = PROC / "net" / name
        if name.endswith("6") and not file.exists():  # no IPv6 here
            continue
        for line in file.read_text().splitlines()[1:]:
            _, local, _, found_state, *rest = line.split()
            address, port = local.split(":")
            if found_state == state and first <= int(port, 16) <= last:
                yield Socket(protocol, _address(address), int(port, 16), inode=int(rest[5]))


def _address(text: str) -> str:
    whole = struct.pack(f"={len(text) // 8}I", *(int(text[i : i + 8], 16) for i in range(0, len(text), 8)))
    return socket.inet_ntop(socket.AF_INET if len(whole) == 4 else socket.AF_INET6, whole)


def _by_psutil(protocol: str, first: int, last: int) -> Iterator[Socket]:
    """Other systems; there the owner comes along, where the system tells it."""
    for found, pid in _connections(protocol):
        waits = found.status == psutil.CONN_LISTEN if protocol == TCP else not found.raddr
        if waits and found.laddr and first <= found.laddr.port <= last:
            name = _process_name(pid) if pid else ""
            yield Socket(protocol, found.laddr.ip.partition("%")[0], found.laddr.port, name, pid)


def _connections(protocol: str) -> Iterator[tuple[Any, int | None]]:
    try:
        yield from [(found, found.pid) for found in psutil.net_connections(protocol)]
    except psutil.AccessDenied:  # macOS tells all of them only to root; those of our own user it tells us one by one
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                yield from [(found, process.pid) for found in process.net_connections(protocol)]


# --- The owners ---


def _with_owners(sockets: list[Socket]) -> list[Socket]:
    wanted = {s.inode for s in sockets if s.inode}
    pids = _owners(wanted)
    known: dict[int, tuple[str, str]] = {}
    told = []
    for found in sockets:
        pid = pids.get(found.inode)
        if pid is None:
            told.append(found)
            continue
        if pid not in known:
            known[pid] = (_process_name(pid), _container(pid))
        told.append(replace(found, pid=pid, process=known[pid][0], container=known[pid][1]))
    return told


def _owners(inodes: set[int]) -> dict[int, int]:
    """Which process holds which socket: of several that share one, the first started."""
    found: dict[int, int] = {}
    if not inodes or not PROC.is_dir():
        return found
    for pid in sorted(int(name) for name in os.listdir(PROC) if name.isdigit()):  # noqa: PTH208 twice as fast
        if len(found) == len(inodes):
            break
        directory = f"{PROC}/{pid}/fd"
        try:
            descriptors = os.listdir(directory)  # noqa: PTH208
        except OSError:  # another user's, or gone
            continue
        for descriptor in descriptors:
            try:
                target = os.readlink(f"{directory}/{descriptor}")  # noqa: PTH115
            except OSError:
                continue
            if target.startswith("socket:["):
                inode = int(target[8:-1])
                if inode in inodes:
                    found.setdefault(inode, pid)
    return found


def _process_name(pid: int) -> str:
    try:
        return _plain((PROC / str(pid) / "comm").read_bytes().rstrip(b"\n"))
    except OSError:
        pass
    try:
        return _plain(psutil.Process(pid).name().encode(errors="replace"))
    except psutil.Error:
        return ""


def _container(pid: int) -> str:
    """The container or systemd unit in whose control group the process runs."""
    try:
        groups = (PROC / str(pid) / "cgroup").read_text(errors="replace")
    except OSError:
        return ""
    if found := re.search(r"(?:docker|libpod|crio|cri-containerd)[-/]([0-9a-f]{12})[0-9a-f]{52}", groups):
        return found[1]
    # A unit of a user's own systemd lies inside that user's `user@1000.service`: the innermost one is meant.
    units = re.findall(r"/([a-zA-Z0-9@:._-]+\.service)(?=/|$)", groups, re.MULTILINE)
    return units[-1][:LONGEST_NAME] if units else ""


def _plain(raw: bytes) -> str:
    """What another program chose as its name: nothing that steers a terminal or turns text around, cut to fit."""
    return re.sub(UNPRINTABLE, "\N{REPLACEMENT CHARACTER}", raw.decode(errors="replace"))[:LONGEST_NAME]
