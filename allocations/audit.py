"""Compares allocations with what listens and what answers. Pure: it reads no database and changes nothing.

PortManager.audit() looks, calls `compare`, and records the report.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from django.utils import timezone

from .listeners import Socket
from .models import Health, PortAllocation, PortRange
from .probes import Probe

KERNEL, CONNECT = "kernel", "connect"
NOT_RUNNING = "not running"
# The metadata that says where a service listened before it was given another port; an import run again knows it by it.
IMPORTED_FROM = "importedFrom"


@dataclass(frozen=True, slots=True)
class Finding:
    """The verdict on one allocation, with its evidence."""

    allocation: PortAllocation
    status: str  # Health
    check_type: str  # how it was looked at: kernel, connect
    reason: str
    response_time_ms: int | None = None
    socket: Socket | None = None
    listens_on: int | None = None  # another port than the one it was given

    @property
    def evidence(self) -> dict[str, Any]:
        """What a person would want to see of it, as JSON."""
        seen: dict[str, Any] = {"reason": self.reason}
        if self.socket is not None:
            seen |= {"address": self.socket.address, "process": self.socket.process, "pid": self.socket.pid}
        if self.listens_on is not None:
            seen["listensOn"] = self.listens_on
        return seen

    @property
    def said_drift(self) -> str:
        """That the service listens on another port than its own, as a sentence; empty where it does not."""
        if self.listens_on is None:
            return ""
        return f"{self.allocation.label} was given {self.allocation.address} and listens on {self.listens_on}."


@dataclass(frozen=True, slots=True)
class Unallocated:
    """A listener inside an active range that no allocation covers."""

    port: int
    hostname: str
    protocol: str
    process: str
    pid: int | None
    project: str
    project_id: UUID


@dataclass(frozen=True, slots=True)
class AuditSummary:
    """The numbers of an audit. `not_running` counts what is down and what another process stands on."""

    allocated: int
    in_use: int
    not_running: int
    conflicts: int
    unknown: int
    unallocated: int

    @property
    def health_percentage(self) -> int:
        """in_use / allocated, rounded half up; 100 when nothing is allocated."""
        return (200 * self.in_use + self.allocated) // (2 * self.allocated) if self.allocated else 100


@dataclass(slots=True)
class AuditReport:
    """What one audit found."""

    findings: list[Finding]
    unallocated: list[Unallocated]
    # Every socket of this host that was seen, for the record; None: this host was not looked at.
    sockets: Sequence[Socket] | None = None
    started_at: datetime = field(default_factory=timezone.now)
    finished_at: datetime = field(default_factory=timezone.now)
    id: UUID | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def summary(self) -> AuditSummary:
        """The numbers."""
        count: dict[str, int] = defaultdict(int)
        for finding in self.findings:
            count[finding.status] += 1
        return AuditSummary(
            allocated=len(self.findings),
            in_use=count[Health.UP],
            not_running=count[Health.DOWN] + count[Health.CONFLICT],
            conflicts=count[Health.CONFLICT],
            unknown=count[Health.UNKNOWN],
            unallocated=len(self.unallocated),
        )

    @property
    def conflicts(self) -> list[Finding]:
        """Allocations that do not run, and those whose port something else holds."""
        return [f for f in self.findings if f.status in (Health.DOWN, Health.CONFLICT)]

    @property
    def drift(self) -> list[Finding]:
        """Services that listen on another port than the one they were given."""
        return [f for f in self.findings if f.listens_on is not None]

    @property
    def is_healthy(self) -> bool:
        """Nothing that should run is missing, and nobody stands on another's port."""
        return not self.conflicts

    def payload(self) -> dict[str, Any]:
        """The report as spec section 7 promises it to programs."""
        summary = self.summary
        return {
            "success": True,
            "summary": {
                "allocated": summary.allocated,
                "inUse": summary.in_use,
                "notRunning": summary.not_running,
                "healthPercentage": summary.health_percentage,
            },
            "conflicts": [
                {
                    "port": f.allocation.port_number,
                    "expected": f.allocation.label,
                    "actual": NOT_RUNNING if f.status == Health.DOWN else f.reason,
                }
                for f in self.conflicts
            ],
            "unallocated": [
                {
                    "port": u.port,
                    "hostname": u.hostname,
                    "protocol": u.protocol,
                    "process": u.process,
                    "project": u.project,
                }
                for u in self.unallocated
            ],
        }


Environment = Callable[[int], Mapping[str, str]]


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
    socket = next((s for s in found if s.pid is not None), found[0])
    stranger = _stranger(allocation, socket, environment)
    if stranger:
        return Finding(allocation, Health.CONFLICT, KERNEL, stranger, socket=socket)
    return Finding(allocation, Health.UP, KERNEL, "listening", socket=socket)


def _stranger(allocation: PortAllocation, socket: Socket, environment: Environment) -> str:
    """Who listens there instead of the service, where that can be known: by what `run` told the process, or by the
    process name that the allocation expects (metadata `process`)."""
    if socket.pid is not None:
        told = environment(socket.pid)
        project, service = told.get("PORTAL_PROJECT"), told.get("PORTAL_SERVICE")
        if project and (project != allocation.project.name or (service and service != allocation.service_name)):
            return f"{project}/{service}" if service else f"a service of {project}"
    expected = allocation.metadata.get("process")
    if isinstance(expected, str) and expected and socket.process and socket.process != expected:
        return f"process {socket.process}"
    return ""


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
