"""What answers on other hosts: TCP connects, many at a time, within a deadline for all of them."""

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
ADDRESSES_TRIED = 4
DESCRIPTORS_LEFT = 64  # for everything else that this process has open
# Where clouds answer with credentials: never probed, whatever a name resolves to.
FORBIDDEN = [
    ipaddress.ip_network(n)
    for n in (
        *("169.254.0.0/16", "fe80::/10", "0.0.0.0/8", "::/128"),
        *("fd00:ec2::254/128", "fd20:ce::254/128", "100.100.100.200/32", "168.63.129.16/32"),
    )
]
# IPv6 addresses that reach an IPv4 one, and by how many bits that lies to the left: mapped, NAT64, 6to4.
CARRIERS = [
    (ipaddress.IPv6Network(n), bits) for n, bits in (("::ffff:0:0/96", 0), ("64:ff9b::/96", 0), ("2002::/16", 80))
]


@dataclass(frozen=True, slots=True)
class Probe:
    """What one connect told.

    `down` only where the host itself refused; whatever cannot be seen from here is `unknown`, with the reason:
    timeout, unreachable, unresolved, forbidden or deadline.
    """

    status: str
    reason: str
    response_time_ms: int | None = None
    address: str = ""


def connect(
    targets: Iterable[Target], *, timeout: float = 2.0, deadline: float = 15.0, concurrency: int = 100
) -> dict[Target, Probe]:
    """Connect to each (host, port), and close at once without a word.

    Args:
        timeout: seconds for one connect.
        deadline: seconds for all together; what is not known by then is `unknown`.
        concurrency: how many at a time; less where this process may not open that many files.
    """
    wanted = sorted(set(targets))
    if not wanted:
        return {}
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    width = max(1, min(concurrency, soft - DESCRIPTORS_LEFT)) if soft != resource.RLIM_INFINITY else concurrency
    return _run(_all(wanted, timeout, deadline, width))


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run it to its end, also for a caller in whose thread an event loop runs already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


async def _all(targets: list[Target], timeout: float, deadline: float, width: int) -> dict[Target, Probe]:
    found = dict.fromkeys(targets, Probe(UNKNOWN, "deadline"))
    names: dict[str, asyncio.Task[list[str]]] = {}
    waiting = iter(targets)

    async def worker() -> None:
        for host, port in waiting:
            if host not in names:  # once per host, so that all its ports are probed at the same addresses
                names[host] = asyncio.create_task(_resolve(host))
            addresses = await asyncio.shield(names[host])
            found[host, port] = await _probe(addresses, port, timeout)

    workers = [asyncio.create_task(worker()) for _ in range(min(width, len(targets)))]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(deadline):
            await asyncio.gather(*workers)
    for task in (*workers, *names.values()):
        task.cancel()
    await asyncio.gather(*workers, *names.values(), return_exceptions=True)
    return found


async def _resolve(host: str) -> list[str]:
    """The host's addresses, both families; none where it has none or its name servers are slow."""
    with contextlib.suppress(ValueError):
        return [str(ipaddress.ip_address(host))]
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[str]] = loop.create_future()

    def tell(addresses: list[str]) -> None:
        if not answer.done():
            answer.set_result(addresses)

    def look_up() -> None:
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, ValueError):  # ValueError: no name at all
            found = []
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))[:ADDRESSES_TRIED]
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
            loop.call_soon_threadsafe(tell, addresses)

    # A daemon of its own: a name server that hangs must hold up neither the deadline nor the end of the program.
    threading.Thread(target=look_up, daemon=True).start()
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            return await answer
    except TimeoutError:
        return []


async def _probe(addresses: list[str], port: int, timeout: float) -> Probe:
    """The first address that answers; else `down` if each refused, and the first doubt if there is any."""
    said = []
    for address in addresses:
        if _is_forbidden(address):
            said.append(Probe(UNKNOWN, "forbidden", None, address))
            continue
        said.append(await _connect(address, port, timeout))
        if said[-1].status == UP:
            return said[-1]
    doubts = (probe for probe in said if probe.status == UNKNOWN)
    return next(doubts, said[-1] if said else Probe(UNKNOWN, "unresolved"))


def _is_forbidden(address: str) -> bool:
    """Whether an address, or the IPv4 address that it carries, is one that is never probed."""
    found = ipaddress.ip_address(address.partition("%")[0])
    carried = [ipaddress.IPv4Address(int(found) >> bits & 0xFFFFFFFF) for network, bits in CARRIERS if found in network]
    return any(ip in network for ip in (found, *carried) for network in FORBIDDEN)


async def _connect(address: str, port: int, timeout: float) -> Probe:
    begun = time.monotonic()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as ours:
            ours.setblocking(False)
            async with asyncio.timeout(timeout):
                await asyncio.get_running_loop().sock_connect(ours, (address, port))
            if ours.getsockname()[:2] == (address, port):  # we met ourselves: the kernel chose that port for our end
                return Probe(DOWN, "refused", _milliseconds(begun), address)
    except TimeoutError:
        return Probe(UNKNOWN, "timeout", None, address)
    except ConnectionRefusedError:
        return Probe(DOWN, "refused", _milliseconds(begun), address)
    except OSError as error:
        reason = "too many open files" if error.errno in (errno.EMFILE, errno.ENFILE) else "unreachable"
        return Probe(UNKNOWN, reason, None, address)
    return Probe(UP, "open", _milliseconds(begun), address)


def _milliseconds(begun: float) -> int:
    return round((time.monotonic() - begun) * 1000)
