"""From what listens and what answers to verdicts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from uuid import UUID

from allocations.listeners import Socket
from allocations.models import Health, PortAllocation, PortRange
from allocations.probes import Probe

from .report import NOT_RUNNING, AuditReport, Finding, Unallocated
from .strangers import Environment, first_known, stranger

KERNEL, CONNECT = "kernel", "connect"
# The metadata that says where a service listened before it was given another port; an import run again knows it by it.
IMPORTED_FROM = "importedFrom"


def compare(
    here: Sequence[PortAllocation],
    elsewhere: Sequence[PortAllocation],
    ranges: Iterable[PortRange],
    sockets: Sequence[Socket],
    probes: Mapping[tuple[str, int], Probe],
    covered: set[tuple[str, int]],
    environment: Environment,
) -> AuditReport:
    """Compare allocations with what was seen.

    Args:
        here: allocations on this host, judged by `sockets`.
        elsewhere: allocations on other hosts, judged by `probes`.
        ranges: the active ranges in which a listener without an allocation is worth telling.
        sockets: what listens on this host.
        probes: what answered, by (host, port).
        covered: (protocol, port) on this host that somebody holds, reservations included, whoever may see them.
        environment: of a process, by its pid: its PORT, PORTAL_PROJECT and PORTAL_SERVICE.
    """
    at: dict[tuple[str, int], list[Socket]] = defaultdict(list)
    for socket in sockets:
        at[socket.protocol, socket.port].append(socket)
    findings = [_by_kernel(a, at.get((a.protocol, a.port_number), []), environment) for a in here]
    findings += [_by_connect(a, probes) for a in elsewhere]
    findings.sort(key=lambda f: (f.allocation.port_number, f.allocation.hostname, f.allocation.protocol))
    strays = [found for key, found in at.items() if key not in covered]
    return AuditReport(
        findings=_with_drift(findings, strays, environment),
        unallocated=_unallocated(strays, list(ranges)),
        sockets=sockets,
    )


def _by_kernel(allocation: PortAllocation, found: Sequence[Socket], environment: Environment) -> Finding:
    if not found:
        return Finding(allocation, Health.DOWN, KERNEL, NOT_RUNNING)
    other = stranger(allocation, found, environment)
    if other is not None:
        return Finding(allocation, Health.CONFLICT, KERNEL, other.reason, socket=other.socket, stranger=other.project)
    return Finding(allocation, Health.UP, KERNEL, "listening", socket=first_known(found))


def _by_connect(allocation: PortAllocation, probes: Mapping[tuple[str, int], Probe]) -> Finding:
    if allocation.protocol != "tcp":
        return Finding(allocation, Health.UNKNOWN, CONNECT, "a UDP port of another host cannot be seen from here")
    probe = probes[allocation.hostname, allocation.port_number]
    return Finding(allocation, probe.status, CONNECT, probe.reason, response_time_ms=probe.response_time_ms)


def _unallocated(strays: Iterable[Sequence[Socket]], ranges: list[PortRange]) -> list[Unallocated]:
    found = []
    for sockets in strays:
        port = sockets[0].port
        around = next((r for r in ranges if r.start_port <= port <= r.end_port), None)
        if around is not None:
            known = next((s for s in sockets if s.process), sockets[0])
            found.append(
                Unallocated(
                    port, "localhost", known.protocol, known.process, known.pid, around.project.name, around.project_id
                )
            )
    return sorted(found, key=lambda u: (u.port, u.protocol))


def _with_drift(
    findings: Sequence[Finding], strays: Iterable[Sequence[Socket]], environment: Environment
) -> list[Finding]:
    """The findings; those of services that are down on their port while they listen on a stray one say on which.

    Frameworks move on to the next number by themselves, and what gives them away is the PORT they were started with. A
    service that was imported from another port, and was never seen on its own, listens on the old one until somebody
    reconfigures it.
    """
    down = {
        (f.allocation.protocol, f.allocation.port_number): f.allocation
        for f in findings
        if f.status == Health.DOWN and f.check_type == KERNEL
    }
    if not down:
        return list(findings)
    imported = {
        (a.protocol, a.metadata.get(IMPORTED_FROM)): a
        for a in down.values()
        if a.last_used_at is None and isinstance(a.metadata.get(IMPORTED_FROM), int)
    }
    elsewhere: dict[UUID, Socket] = {}
    for socket in (socket for sockets in strays for socket in sockets):
        given = environment(socket.pid).get("PORT", "") if socket.pid is not None else ""
        allocation = down.get((socket.protocol, int(given))) if given.isascii() and given.isdigit() else None
        allocation = allocation or imported.get((socket.protocol, socket.port))
        if allocation is not None:
            elsewhere.setdefault(allocation.pk, socket)
    return [_drifted(f, elsewhere.get(f.allocation.pk)) for f in findings]


def _drifted(finding: Finding, socket: Socket | None) -> Finding:
    if socket is None:
        return finding
    return replace(finding, reason=f"listens on {socket.port}", socket=socket, listens_on=socket.port)
