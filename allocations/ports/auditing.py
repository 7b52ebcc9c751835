"""Audits, what is seen of them, and retention."""

from __future__ import annotations

import functools
import time
from datetime import datetime, timedelta
from typing import Any

from django.db.models.functions import Now
from django.utils import timezone

from allocations import errors, listeners, probes, sql, words
from allocations.access import Role
from allocations.audit import AuditReport, Finding, Unallocated, compare, told
from allocations.models import Audit, Listener, PortAllocation, PortHealthCheck, PortRange, Project

from .base import Operations, operation

# For how long callers share one audit: long enough for many who ask at once, too short to be called old.
SHARED_FOR = timedelta(seconds=2)


class Auditing(Operations):
    """audit, shared_audit, prune."""

    def audit(
        self, project: str | None = None, *, hostname: str | None = None, record: bool = True, deadline: float = 15.0
    ) -> AuditReport:
        """Compare the registry with what really listens; see audit.py for the verdicts.

        Args:
            project: only this project's allocations and ranges.
            hostname: only the allocations of this host.
            record: keep the checks, the listeners, and what was last seen of each allocation. Who sees only a part
                and names no project has everything audited, and sees their part of it.
            deadline: seconds for all probes of other hosts together.

        Raises:
            UnknownProject, InvalidName, NotPermitted, Unavailable.
        """
        self.caller.require(Role.VIEWER, "audit")
        if record and project is None and self.caller.projects is not None:
            return self.shared_audit()
        started_at, clock = timezone.now(), time.monotonic()
        owner = self._project(project) if project else None
        host = words.host(hostname) if hostname else None
        asked = PortAllocation.objects.visible_to(self.caller).held().allocated().select_related("project")
        ranges = PortRange.objects.active().visible_to(self.caller).select_related("project")
        if owner:
            asked, ranges = asked.filter(project=owner), ranges.filter(project=owner)
        if host:
            asked = asked.filter(hostname=host)
        allocations = list(asked)
        if host and not allocations and not listeners.is_this_host(host):
            raise self._nothing_on(host)
        here = [a for a in allocations if listeners.is_this_host(a.hostname)]
        elsewhere = [a for a in allocations if not listeners.is_this_host(a.hostname)]
        look_here = host is None or listeners.is_this_host(host)
        sockets = listeners.listening() if look_here else []
        targets = {(a.hostname, a.port_number) for a in elsewhere if a.protocol == words.TCP}
        report = compare(
            here,
            elsewhere,
            list(ranges) if look_here else [],
            sockets,
            probes.connect(sorted(targets), deadline=deadline) if targets else {},
            self._covered(),
            functools.lru_cache(maxsize=None)(listeners.environment),
        )
        report.started_at = started_at
        report.finished_at = started_at + timedelta(seconds=time.monotonic() - clock)
        if not look_here:
            report.sockets = None
        if record:
            self._record(report, owner.pk if owner else None, host)
        visible = self.visible_names()
        report.findings = [finding.told_to(visible) for finding in report.findings]
        return report

    def _nothing_on(self, host: str) -> errors.UnknownAllocation:
        """A mistyped host in a line of cron would be healthy for ever."""
        seen = PortAllocation.objects.visible_to(self.caller).held().order_by().values_list("hostname", flat=True)
        near = words.nearest(host, sorted({*seen.distinct(), words.LOCALHOST}))
        hint = f" Did you mean {words.either(near)}?" if near else ""
        return errors.UnknownAllocation(f"Nothing is allocated on {host}, so nothing was audited.{hint}", field="host")

    def _covered(self) -> set[tuple[str, int]]:
        held = PortAllocation.objects.held().values_list("hostname", "protocol", "port_number")
        return {(protocol, port) for hostname, protocol, port in held if listeners.is_this_host(hostname)}

    @operation(Role.VIEWER, "audit")
    def _record(self, report: AuditReport, project: Any, hostname: str | None) -> None:
        report.id = sql.record_audit(report, self.actor, self.source, project, hostname)

    def shared_audit(self, project: str | None = None) -> AuditReport:
        """A new audit of everything, or the one that somebody else just made or is making; what the caller may see.

        Args:
            project: only what is of this project.

        Raises:
            UnknownProject, NotPermitted.
            Unavailable: another audit takes too long.
        """
        self.caller.require(Role.VIEWER, "audit")
        owner = self._project(project) if project else None
        return self._seen(self._made_or_shared(), owner)

    @operation(Role.VIEWER, "audit")
    def _made_or_shared(self) -> Audit:
        sql.one_at_a_time("audit")  # who comes meanwhile waits here, and finds it done
        recent = Audit.objects.of_everything().filter(finished_at__gt=Now() - SHARED_FOR).first()
        if recent is not None:
            return recent
        # Of everything, whoever asks: what each caller may see is left to the reading.
        everything = type(self)(actor=self.actor, source=self.source).audit()
        return Audit.objects.get(pk=str(everything.id))

    def _seen(self, audit: Audit, owner: Project | None) -> AuditReport:
        """The report of a recorded audit, as far as the caller may see it."""
        visible = PortAllocation.objects.visible_to(self.caller)
        strays = Listener.objects.unallocated().visible_to(self.caller)
        if owner:
            visible, strays = visible.filter(project=owner), strays.in_ranges_of(owner)
        checks = PortHealthCheck.objects.filter(audit=audit, port_allocation__in=visible).select_related(
            "port_allocation__project"
        )
        visible_names = self.visible_names()
        order = ("port_allocation__port_number", "port_allocation__hostname", "port_allocation__protocol")
        findings = [
            Finding(
                c.port_allocation,
                c.status,
                c.check_type,
                told(c.evidence, visible_names).get("reason", ""),
                c.response_time_ms,
                listens_on=c.evidence.get("listensOn"),
            )
            for c in checks.order_by(*order)
        ]
        unallocated = {
            (s.hostname, s.protocol, s.port): Unallocated(
                s.port, s.hostname, s.protocol, s.process, s.pid, s.range_project_name, s.range_project_id
            )
            for s in strays
        }
        return AuditReport(
            findings=findings,
            unallocated=list(unallocated.values()),
            started_at=audit.started_at,
            finished_at=audit.finished_at,
            id=audit.pk,
        )

    @operation(Role.ADMIN, "apply retention")
    def prune(self, *, checks: timedelta) -> int:
        """Delete checks and audits older than `checks`; allocations and events are history and stay.

        Returns:
            How many checks were deleted.
        """
        if checks <= timedelta(0):
            raise errors.InvalidValue("The retention must be longer than nothing: write 30d.", field="checks")
        sql.forget_requests(timezone.now() - timedelta(days=1))
        before: datetime = timezone.now() - checks
        return sql.prune(before)
