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
    ipaddress.ip_network(n) for n in ("169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128", "0.0.0.0/8", "::/128")
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
    results: list[T] = []
    thread = threading.Thread(target=lambda: results.append(asyncio.run(work)))
    thread.start()
    thread.join()
    return results[0]


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
        except (OSError, UnicodeError):
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
    """The first address that answers; else what the last one said."""
    said = Probe(UNKNOWN, "unresolved")
    for address in addresses:
        if any(ipaddress.ip_address(address.partition("%")[0]) in network for network in FORBIDDEN):
            said = Probe(UNKNOWN, "forbidden", None, address)
            continue
        said = await _connect(address, port, timeout)
        if said.status == UP:
            return said
    return said


async def _connect(address: str, port: int, timeout: float) -> Probe:
    begun = time.monotonic()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as ours:
            ours.setblocking(False)
            async with asyncio.timeout(timeout):
                await asyncio.get_running_loop().sock_connect(ours, (address, port))
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
