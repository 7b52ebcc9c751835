"""What an audit found: verdicts with their evidence, listeners without an allocation, and the numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from django.utils import timezone

from allocations.listeners import Socket
from allocations.models import Health, PortAllocation

from .strangers import told

NOT_RUNNING = "not running"


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
    stranger: str = ""  # the project of the process that stands on its port

    @property
    def evidence(self) -> dict[str, Any]:
        """What a person would want to see of it, as JSON."""
        seen: dict[str, Any] = {"reason": self.reason}
        if self.socket is not None:
            seen |= {"address": self.socket.address, "process": self.socket.process, "pid": self.socket.pid}
        if self.listens_on is not None:
            seen["listensOn"] = self.listens_on
        if self.stranger:
            seen["stranger"] = self.stranger
        return seen

    def told_to(self, visible: Container[str] | None) -> Finding:
        """The finding as who may see only the projects `visible` reads it; None: all."""
        return replace(self, reason=told(self.evidence, visible)["reason"])

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
