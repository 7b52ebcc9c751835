"""Reach a verdict on each allocation from the sockets that are listening and from the results of probes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from uuid import UUID

from allocations.listeners import Socket
from allocations.models import Health, PortAllocation, PortRange
from allocations.probes import Probe

from .process_owner import Environment, find_foreign_process, first_identified
from .report import NOT_RUNNING, AuditReport, Finding, UnallocatedListener

KERNEL, CONNECT = "kernel", "connect"
# The metadata key for the port on which an imported service was listening before it was allocated another one. A later
# import recognizes the service by it.
IMPORTED_FROM = "importedFrom"


def compare(
    local: Sequence[PortAllocation],
    remote: Sequence[PortAllocation],
    ranges: Iterable[PortRange],
    sockets: Sequence[Socket],
    probes: Mapping[tuple[str, int], Probe],
    covered: set[tuple[str, int]],
    environment: Environment,
) -> AuditReport:
    """Compare allocations with what is listening, and return a report.

    Args:
        local: the allocations on this host, which are compared with `sockets`.
        remote: the allocations on other hosts, which are compared with `probes`.
        ranges: the active ranges in which unallocated listeners are reported.
        sockets: the sockets that are listening on this host.
        probes: the results of the probes, by (host, port).
        covered: the (protocol, port) pairs that are held on this host, including reservations and the allocations of
            projects that the caller may not see.
        environment: returns the PORT, PORTAL_PROJECT and PORTAL_SERVICE variables of the process behind a
            socket.
    """
    sockets_on: dict[tuple[str, int], list[Socket]] = defaultdict(list)
    for socket in sockets:
        sockets_on[socket.protocol, socket.port].append(socket)
    findings = [_check_by_kernel(a, sockets_on.get((a.protocol, a.port_number), []), environment) for a in local]
    findings += [_check_by_connect(a, probes) for a in remote]
    findings.sort(key=lambda f: (f.allocation.port_number, f.allocation.hostname, f.allocation.protocol))
    uncovered = [on_port for key, on_port in sockets_on.items() if key not in covered]
    return AuditReport(
        findings=_with_drift(findings, uncovered, environment),
        unallocated=_unallocated(uncovered, list(ranges)),
        sockets=sockets,
    )


def _check_by_kernel(allocation: PortAllocation, sockets: Sequence[Socket], environment: Environment) -> Finding:
    if not sockets:
        return Finding(allocation, Health.DOWN, KERNEL, NOT_RUNNING)
    foreign = find_foreign_process(allocation, sockets, environment)
    if foreign is not None:
        return Finding(
            allocation,
            Health.CONFLICT,
            KERNEL,
            foreign.reason,
            socket=foreign.socket,
            foreign_project=foreign.project,
        )
    return Finding(allocation, Health.UP, KERNEL, "listening", socket=first_identified(sockets))


def _check_by_connect(allocation: PortAllocation, probes: Mapping[tuple[str, int], Probe]) -> Finding:
    if allocation.protocol != "tcp":
        return Finding(allocation, Health.UNKNOWN, CONNECT, "UDP ports of other hosts cannot be checked")
    probe = probes[allocation.hostname, allocation.port_number]
    return Finding(allocation, probe.status, CONNECT, probe.reason, response_time_ms=probe.response_time_ms)


def _unallocated(uncovered: Iterable[Sequence[Socket]], ranges: list[PortRange]) -> list[UnallocatedListener]:
    """Return the listeners that are in one of the ranges, one for each port and protocol."""
    unallocated = []
    for sockets in uncovered:
        port = sockets[0].port
        port_range = next((r for r in ranges if r.start_port <= port <= r.end_port), None)
        if port_range is not None:
            socket = next((s for s in sockets if s.process), sockets[0])
            unallocated.append(
                UnallocatedListener(
                    port=port,
                    hostname="localhost",
                    protocol=socket.protocol,
                    process=socket.process,
                    pid=socket.pid,
                    project=port_range.project.name,
                    project_id=port_range.project_id,
                    cwd=socket.cwd,
                )
            )
    return sorted(unallocated, key=lambda u: (u.port, u.protocol))


def _with_drift(
    findings: Sequence[Finding], uncovered: Iterable[Sequence[Socket]], environment: Environment
) -> list[Finding]:
    """Return the findings, noting for each service that is down if it is listening on another, unallocated port.

    Two things give such a service away. Many frameworks use the next free port if theirs is taken, but their process
    still has the PORT that it was started with. And a service that was imported from another port, and has never been
    seen on its new one, may not have been reconfigured yet.
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
    drifted: dict[UUID, Socket] = {}
    for socket in (socket for sockets in uncovered for socket in sockets):
        port = environment(socket).get("PORT", "")
        allocation = down.get((socket.protocol, int(port))) if port.isascii() and port.isdigit() else None
        allocation = allocation or imported.get((socket.protocol, socket.port))
        if allocation is not None:
            drifted.setdefault(allocation.pk, socket)
    return [_with_socket(f, drifted.get(f.allocation.pk)) for f in findings]


def _with_socket(finding: Finding, socket: Socket | None) -> Finding:
    if socket is None:
        return finding
    return replace(finding, reason=f"listens on {socket.port}", socket=socket, listens_on=socket.port)
