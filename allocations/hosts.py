"""Recognize the names and addresses of this machine, so that no host has two names in the registry."""

from __future__ import annotations

import ipaddress
import socket

import psutil

LOCALHOST = "localhost"
# The names that distributions give this machine. Every name below .localhost is this machine too (RFC 6761, 6.3).
THIS_HOST = ("localhost", "localhost.localdomain", "localhost4", "localhost6", "ip6-localhost", "ip6-loopback")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_name_of_this_host(name: str) -> bool:
    """Return whether a lower-case name, not an address, means the machine that runs this code."""
    return name in THIS_HOST or name.endswith(".localhost") or name == socket.gethostname().lower()


def is_address_of_this_host(address: Address) -> bool:
    """Return whether an address is a loopback address or one of this machine's network interfaces."""
    return address.is_loopback or address.is_unspecified or str(address) in _interface_addresses()


def _interface_addresses() -> set[str]:
    """Return the addresses of every network interface as they are now."""
    return {a.address.partition("%")[0] for addresses in psutil.net_if_addrs().values() for a in addresses}
