"""Check ports on other hosts by opening TCP connections to them, many at a time and within one deadline."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import resource
import socket
import threading
import time
from collections.abc import Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")
Target = tuple[str, int]

UP, DOWN, UNKNOWN = "up", "down", "unknown"
RESOLVE_SECONDS = 2.0
MAX_ADDRESSES = 4  # per host
RESERVED_DESCRIPTORS = 64  # file descriptors left for the rest of this process
# Link-local addresses, those of no host, and those at which cloud providers serve credentials. They are never probed,
# whatever a name resolves to.
FORBIDDEN = [
    ipaddress.ip_network(n)
    for n in (
        *("169.254.0.0/16", "fe80::/10", "0.0.0.0/8", "::/128", "192.0.0.192/32"),
        *("fd00:ec2::254/128", "fd20:ce::254/128", "100.100.100.200/32", "168.63.129.16/32"),
    )
]
# IPv6 networks whose addresses end with an IPv4 address: compatible and mapped (RFC 4291), translated (RFC 2765), and
# NAT64 (RFC 6052 and 8215).
ENDING_WITH_IPV4 = [
    ipaddress.IPv6Network(n) for n in ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48")
]
LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")
ISATAP = (0x00005EFE, 0x02005EFE)  # the bits before the IPv4 address, in any network (RFC 5214)


@dataclass(frozen=True, slots=True)
class Probe:
    """The result of one connection attempt.

    The status is "down" only if the host itself refused the connection. If the state of the port can't be determined,
    the status is "unknown" and the reason says why: timeout, unreachable, unresolved, forbidden, deadline or too many
    open files.
    """

    status: str
    reason: str
    response_time_ms: int | None = None
    address: str = ""


def connect(
    targets: Iterable[Target], *, timeout: float = 2.0, deadline: float = 15.0, concurrency: int = 100
) -> dict[Target, Probe]:
    """Connect to each (host, port), close the connection at once without sending anything, and return the results.

    Args:
        targets: the hosts and ports to probe; duplicates are probed once.
        timeout: seconds to wait for one connection.
        deadline: seconds for all targets together; those without a result by then are "unknown".
        concurrency: how many targets to probe at a time; fewer if this process may not open that many files.
    """
    unique = sorted(set(targets))
    if not unique:
        return {}
    soft_limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft_limit != resource.RLIM_INFINITY:
        concurrency = max(1, min(concurrency, soft_limit - RESERVED_DESCRIPTORS))
    return _run(_probe_all(unique, timeout, deadline, concurrency))


def _run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to completion, even if the caller's thread is already running an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


async def _probe_all(targets: list[Target], timeout: float, deadline: float, concurrency: int) -> dict[Target, Probe]:
    results = dict.fromkeys(targets, Probe(UNKNOWN, "deadline"))
    lookups: dict[str, asyncio.Task[list[str]]] = {}
    queue = iter(targets)

    async def worker() -> None:
        for host, port in queue:
            if host not in lookups:  # once per host, so that all its ports are probed at the same addresses
                lookups[host] = asyncio.create_task(_resolve(host))
            addresses = await asyncio.shield(lookups[host])
            results[host, port] = await _probe(addresses, port, timeout)

    workers = [asyncio.create_task(worker()) for _ in range(min(concurrency, len(targets)))]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(deadline):
            await asyncio.gather(*workers)
    for task in (*workers, *lookups.values()):
        task.cancel()
    await asyncio.gather(*workers, *lookups.values(), return_exceptions=True)
    return results


async def _resolve(host: str) -> list[str]:
    """Return the IPv4 and IPv6 addresses of a host; an empty list if it has none or the lookup takes too long."""
    with contextlib.suppress(ValueError):
        return [str(ipaddress.ip_address(host))]
    loop = asyncio.get_running_loop()
    future: asyncio.Future[list[str]] = loop.create_future()

    def set_result(addresses: list[str]) -> None:
        if not future.done():
            future.set_result(addresses)

    def look_up() -> None:
        try:
            entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, ValueError):  # ValueError: the name is malformed
            entries = []
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in entries))[:MAX_ADDRESSES]
        with contextlib.suppress(RuntimeError):  # the event loop has been closed in the meantime
            loop.call_soon_threadsafe(set_result, addresses)

    # A daemon thread, because a name server that hangs must not delay the deadline or the exit of the program.
    threading.Thread(target=look_up, daemon=True).start()
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            return await future
    except TimeoutError:
        return []


async def _probe(addresses: list[str], port: int, timeout: float) -> Probe:
    """Try the addresses in turn and return the first that is up.

    If none is, return the first unknown result, or "down" if every address refused the connection.
    """
    results = []
    for address in addresses:
        if is_forbidden(address):
            results.append(Probe(UNKNOWN, "forbidden", None, address))
            continue
        results.append(await _connect(address, port, timeout))
        if results[-1].status == UP:
            return results[-1]
    unknown = (probe for probe in results if probe.status == UNKNOWN)
    return next(unknown, results[-1] if results else Probe(UNKNOWN, "unresolved"))


def is_forbidden(host: str) -> bool:
    """Return whether a host is an address that must never be probed, or one that leads to such an address."""
    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:  # a name
        return False
    hidden = [] if ip.version == 4 or ip.is_loopback else _hidden_addresses(ip)
    return any(candidate in network for candidate in (ip, *hidden) for network in FORBIDDEN)


def _hidden_addresses(ip: ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    """Return the IPv4 addresses to which the network may deliver what is sent to an IPv6 address."""
    bits = int(ip)
    hidden = [*(ip.teredo or ()), *filter(None, [ip.sixtofour])]
    if any(ip in network for network in ENDING_WITH_IPV4) or bits >> 32 & 0xFFFFFFFF in ISATAP:
        hidden.append(ipaddress.IPv4Address(bits & 0xFFFFFFFF))
    if ip in LOCAL_NAT64:  # its prefix may have 48, 56 or 64 bits too; bits 64 to 71 are not part of the address
        without_gap = bits >> 64 << 56 | bits & (1 << 56) - 1
        hidden += [ipaddress.IPv4Address(without_gap >> 120 - 32 - length & 0xFFFFFFFF) for length in (48, 56, 64)]
    return hidden


async def _connect(address: str, port: int, timeout: float) -> Probe:
    started_at = time.monotonic()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as client:
            client.setblocking(False)
            async with asyncio.timeout(timeout):
                await asyncio.get_running_loop().sock_connect(client, (address, port))
            if client.getsockname()[:2] == (address, port):  # the kernel connected the socket to itself
                return Probe(DOWN, "refused", _milliseconds_since(started_at), address)
    except TimeoutError:
        return Probe(UNKNOWN, "timeout", None, address)
    except ConnectionRefusedError:
        return Probe(DOWN, "refused", _milliseconds_since(started_at), address)
    except OSError as error:
        reason = "too many open files" if error.errno in (errno.EMFILE, errno.ENFILE) else "unreachable"
        return Probe(UNKNOWN, reason, None, address)
    return Probe(UP, "open", _milliseconds_since(started_at), address)


def _milliseconds_since(started_at: float) -> int:
    return round((time.monotonic() - started_at) * 1000)
