"""Find out which account of this machine opened a connection, and whether it may read without a login.

A plain `proxy_pass http://localhost:3000` makes the whole world look like this machine: it sends the header
`Host: localhost:3000`, and no forwarding header. But the kernel knows the account that the proxy runs as.
"""

from __future__ import annotations

import functools
import ipaddress
import os
import re
import socket
import struct
import sys
from pathlib import Path

Address = tuple[str, str | int]

# From linux/netlink.h, linux/sock_diag.h and linux/inet_diag.h.
NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, ANY_INTERFACE, NO_COOKIE = 4, 20, 1, 0, 0xFFFFFFFF
ESTABLISHED = 1
HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, pid
REQUEST = struct.Struct("=BBBBI")  # family, protocol, extensions, padding, states
PORTS = struct.Struct("!HH16s16s")  # source and destination port and address
ANSWER = struct.Struct("=BBBB48xIIIII")  # family, state, timer, retransmissions; expires, queues, uid, inode

# The accounts of systemd's dynamic users, and those that stand for nobody (systemd's UIDS-GIDS).
NO_LOGIN = range(61184, 65536)


def is_supported() -> bool:
    """Return whether the kernel can tell which account opened a connection."""
    return sys.platform == "linux"


def may_read(client: Address, server: Address) -> bool:
    """Return whether a connection comes from root, from Portal's own account, or from a login account of this machine.

    Args:
        client: the address of the client's end.
        server: the address of Portal's end.
    """
    uid = uid_of_peer(client, server)
    return uid is not None and (uid in (0, os.geteuid()) or is_login_account(uid))


def is_login_account(uid: int) -> bool:
    """Return whether an account is one for people, and not for a service such as www-data."""
    return uid >= first_login_uid() and uid not in NO_LOGIN and uid < NO_COOKIE


@functools.cache
def first_login_uid(file: Path = Path("/etc/login.defs")) -> int:
    """Return UID_MIN, the lowest id of an account for people."""
    try:
        match = re.search(r"^\s*UID_MIN\s+(\d+)", file.read_text(errors="replace"), re.MULTILINE)
    except OSError:
        match = None
    return int(match[1]) if match else 1000


def uid_of_peer(client: Address, server: Address) -> int | None:
    """Return the id of the account that opened a connection, or None if it is not a connection of this machine.

    The kernel is asked for the client's end of this one connection. It must be established, because the kernel says
    that root owns the sockets that a process has left behind.
    """
    if not is_supported():
        return None
    try:
        # A Unix socket has no port.
        ends = [(_without_mapping(address), int(port)) for address, port in (client, server)]
        answer = _ask_kernel(*ends)
    except (OSError, ValueError, struct.error):
        return None
    _, kind, *_ = HEADER.unpack_from(answer)
    if kind != SOCK_DIAG_BY_FAMILY:  # an error: there is no such socket
        return None
    _, state, _, _, _, _, _, uid, _ = ANSWER.unpack_from(answer, HEADER.size)
    return uid if state == ESTABLISHED else None


def _without_mapping(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the IPv4 address in an IPv6 address that only stands for it."""
    ip = ipaddress.ip_address(address)
    return getattr(ip, "ipv4_mapped", None) or ip


def _ask_kernel(*ends: tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]) -> bytes:
    (client, client_port), (server, server_port) = ends
    family = socket.AF_INET if client.version == 4 else socket.AF_INET6
    request = REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, 1 << ESTABLISHED)
    request += PORTS.pack(client_port, server_port, client.packed, server.packed)
    request += struct.pack("=III", ANY_INTERFACE, NO_COOKIE, NO_COOKIE)
    header = HEADER.pack(HEADER.size + len(request), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as kernel:
        kernel.settimeout(1)
        kernel.sendto(header + request, (0, 0))
        return kernel.recv(8192)
