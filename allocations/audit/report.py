"""The report of an audit: a verdict on each allocation, the unallocated listeners, and a summary."""

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

from .process_owner import FOREIGN_PROJECT, redact

NOT_RUNNING = "not running"


@dataclass(frozen=True, slots=True)
class Finding:
    """The verdict on one allocation, with its evidence."""

    allocation: PortAllocation
    status: str  # Health
    check_type: str  # "kernel" or "connect"
    reason: str
    response_time_ms: int | None = None
    socket: Socket | None = None
    listens_on: int | None = None  # the port it is listening on instead of its own
    foreign_project: str = ""  # the project of the process that is listening on its port

    @property
    def evidence(self) -> dict[str, Any]:
        """Return the reason for the verdict and the details of the socket, to be recorded as JSON."""
        evidence: dict[str, Any] = {"reason": self.reason}
        if self.socket is not None:
            evidence |= {"address": self.socket.address, "process": self.socket.process, "pid": self.socket.pid}
        if self.listens_on is not None:
            evidence["listensOn"] = self.listens_on
        if self.foreign_project:
            evidence[FOREIGN_PROJECT] = self.foreign_project
        return evidence

    def redacted(self, visible: Container[str] | None) -> Finding:
        """Return the finding as it may be shown to a caller.

        Args:
            visible: the names of the projects that the caller may see; None means all.
        """
        return replace(self, reason=redact(self.evidence, visible)["reason"])

    @property
    def drift_sentence(self) -> str:
        """Return a sentence that says which other port the service is listening on; empty if there isn't one."""
        if self.listens_on is None:
            return ""
        return f"{self.allocation.label} is listening on {self.listens_on} instead of {self.allocation.address}."


@dataclass(frozen=True, slots=True)
class UnallocatedListener:
    """A listener on a port inside an active range that no allocation covers."""

    port: int
    hostname: str
    protocol: str
    process: str
    pid: int | None
    project: str
    project_id: UUID
    cwd: str = ""  # the working directory of the process


@dataclass(frozen=True, slots=True)
class AuditSummary:
    """The numbers of allocations by verdict, and of unallocated listeners.

    `not_running` includes the conflicts, because in a conflict another process is listening instead of the service.
    """

    allocated: int
    in_use: int
    not_running: int
    conflicts: int
    unknown: int
    unallocated: int
    drift: int = 0  # how many of those that are not running are listening on another port

    @property
    def health_percentage(self) -> int | None:
        """Return the percentage of services that are up; see `health_percentage()`."""
        return health_percentage(self.in_use, self.not_running, is_empty=self.allocated == 0)


def health_percentage(up: int, not_running: int, *, is_empty: bool) -> int | None:
    """Return the percentage of services that are up, among those that could be judged.

    It is rounded half up, but it is at most 99 if anything is not running, and at least 1 if anything is up. It is 100
    if nothing is allocated, and None if nothing could be judged.

    Args:
        up: how many services are listening.
        not_running: how many are down or in conflict.
        is_empty: whether nothing is allocated.
    """
    judged = up + not_running
    if not judged:
        return 100 if is_empty else None
    rounded = (200 * up + judged) // (2 * judged)
    return max(min(rounded, 99 if not_running else 100), 1 if up else 0)


@dataclass(slots=True, eq=False)  # so that what is made of a report can be kept
class AuditReport:
    """The result of one audit."""

    findings: list[Finding]
    unallocated: list[UnallocatedListener]
    # All sockets that are listening on this host, to be recorded; None if this host wasn't audited.
    sockets: Sequence[Socket] | None = None
    started_at: datetime = field(default_factory=timezone.now)
    finished_at: datetime = field(default_factory=timezone.now)
    id: UUID | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def summary(self) -> AuditSummary:
        """Return the summary of the findings."""
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
            drift=len(self.drift),
        )

    @property
    def conflicts(self) -> list[Finding]:
        """Return the findings on services that aren't running or whose port is used by another process."""
        return [f for f in self.findings if f.status in (Health.DOWN, Health.CONFLICT)]

    @property
    def drift(self) -> list[Finding]:
        """Return the findings on services that are listening on another port than their own."""
        return [f for f in self.findings if f.listens_on is not None]

    @property
    def problems(self) -> dict[str, str]:
        """Return a sentence for each problem, by what it is about. It stays the same as long as the problem does."""
        problems = {}
        for f in self.conflicts:
            what = f"{f.allocation.label} on {f.allocation.address}"
            state = NOT_RUNNING if f.reason == NOT_RUNNING else f"conflict with {f.reason}"
            problems[what] = f.drift_sentence or f"{what}: {state}."
        for listener in self.unallocated:
            what = f"{listener.port}/{listener.protocol} in {listener.project}"
            process = listener.process or "an unknown process"
            problems[what] = f"{what}: {process} is listening, and no service holds the port."
        return problems

    @property
    def is_healthy(self) -> bool:
        """Return True if no allocation is down or in conflict."""
        return not self.conflicts
