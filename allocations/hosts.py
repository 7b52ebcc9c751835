"""Hosts of the registry: how each is called, so that no host has two names."""

from __future__ import annotations

import ipaddress
import re
import socket

import psutil

from .errors import InvalidName, quoted

LOCALHOST = "localhost"
# What distributions call it besides; every name below .localhost is it too (RFC 6761, 6.3).
THIS_HOST = ("localhost", "localhost.localdomain", "localhost4", "localhost6", "ip6-localhost", "ip6-loopback")
# RFC 1123 labels, dotted; IP literals are checked apart.
HOST_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$"
# What the database checks: the characters of a host name or of an IP literal, and that it is none of this host's own.
HOST_DATABASE_PATTERN = (
    r"^(?!127(\.[0-9]+){3}$|0\.0\.0\.0$|::1?$)"
    r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?|[0-9a-f:]*:[0-9a-f:.]*(%[a-z0-9._-]+)?)$"
)


def host(value: object) -> str:
    """A host: an RFC 1123 name or an IP literal, lower-cased.

    This host is always `localhost`, whether it is called by nothing, by its own name, by a loopback address or by one
    of its network: under a second name its ports would be handed out a second time.

    Raises:
        InvalidName.
    """
    if value is None or value == "":
        return LOCALHOST
    if isinstance(value, str):
        text = value.lower().removesuffix(".")
        if text.startswith("[") and text.endswith("]"):
            text = text[1:-1]
        if not text.isascii():
            text = ""  # digits of other scripts are digits to Python
        if (address := _address(text)) is not None:
            is_here = address.is_loopback or address.is_unspecified or str(address) in _own_addresses()
            return LOCALHOST if is_here else str(address)
        if text in THIS_HOST or text.endswith(".localhost") or text == socket.gethostname().lower():
            return LOCALHOST
        # A name whose last label is a number would be read as an address by some resolvers ("127.1", "0x7f000001").
        is_name = len(text) <= 253 and re.fullmatch(HOST_PATTERN.replace("$", r"\Z"), text)
        if is_name and not re.fullmatch(r"[0-9]+|0x[0-9a-f]*", text.rsplit(".", 1)[-1]):
            return text
    raise InvalidName(
        f"host {quoted(value)} is not a host: use a name such as web-1.example.com or an IP address.", field="host"
    )


def _own_addresses() -> set[str]:
    """Of every network interface, as they are now."""
    return {a.address.partition("%")[0] for found in psutil.net_if_addrs().values() for a in found}


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        return None if address.scope_id else address.ipv4_mapped or address
    return address
