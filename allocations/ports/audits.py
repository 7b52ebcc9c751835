"""Run audits, read recorded ones, and apply retention."""

from __future__ import annotations

import functools
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from allocations import listeners, sql, validators
from allocations.audit import AuditReport, Finding, UnallocatedListener, compare, redact
from allocations.auth.roles import Caller, Role
from allocations.errors import InvalidValue, Unavailable, UnknownAllocation
from allocations.models import Audit, Listener, PortAllocation, PortHealthCheck, PortRange, Project
from allocations.text import did_you_mean
from portal.postgresql.base import release_session

from . import hosts
from .operations import Context, operation
from .queries import get_project, visible_project_names

# How long callers share one audit: long enough for callers who ask at the same time, but not long enough to be stale.
SHARED_FOR = timedelta(seconds=2)
LONGEST_WAIT = 25  # seconds for one's turn, longer than the probes of an audit can take
# Callers of this process wait here, without a session of PostgreSQL. Processes wait for one another in the database.
_turn = threading.Lock()
# What no verdict depends on.
UNUSED = ("allocated_at", "expires_at", "released_at", "span", "range_project_id", "range_is_shared", "token_id")
MOST_SHARED = 2  # reports that each process keeps


def run(
    context: Context,
    project: str | None = None,
    *,
    hostname: str | None = None,
    record: bool = True,
    deadline: float = 15.0,
) -> AuditReport:
    """Compare the registry with what is listening; see `allocations.audit` for the verdicts.

    Args:
        project: only this project's allocations and ranges.
        hostname: only the allocations of this host.
        record: store the checks, the listeners, and the verdict of each allocation. A limited caller who names no
            project triggers a full audit and receives their share of it.
        deadline: seconds for all probes of other hosts together.

    Raises:
        UnknownProject, InvalidName, NotPermitted, Unavailable.
        UnknownAllocation: nothing is allocated on `hostname`.
    """
    context.caller.require(Role.VIEWER, "audit")
    if record and project is None and context.caller.projects is not None:
        return run_shared(context)
    started_at, clock = timezone.now(), time.monotonic()
    project_row = get_project(context, project) if project else None
    host = validators.hostname(hostname) if hostname else None
    rows = PortAllocation.objects.visible_to(context.caller).held().allocated()
    ranges = PortRange.objects.active().visible_to(context.caller).select_related("project")
    if project_row:
        rows, ranges = rows.filter(project=project_row), ranges.filter(project=project_row)
    if host:
        rows = rows.filter(hostname=host)
    # One object for each project, and no dates: for 10,000 allocations, making these takes longer than comparing.
    allocations = list(rows.prefetch_related("project").defer(*UNUSED))
    includes_this_host = host is None or listeners.is_this_host(host)
    if host and not allocations and not includes_this_host:
        raise _nothing_on(context, host)
    here = [a for a in allocations if listeners.is_this_host(a.hostname)]
    elsewhere = [a for a in allocations if not listeners.is_this_host(a.hostname)]
    targets = {(a.hostname, a.port_number) for a in elsewhere if a.protocol == validators.TCP}
    report = compare(
        here,
        elsewhere,
        list(ranges) if includes_this_host else [],
        listeners.listening() if includes_this_host else [],
        hosts.probe(targets, deadline=deadline),
        _held_here(),
        functools.lru_cache(maxsize=None)(listeners.environment),
    )
    report.notes += _unknown_owners(report.sockets or ())
    report.started_at = started_at
    report.finished_at = started_at + timedelta(seconds=time.monotonic() - clock)
    if not includes_this_host:
        report.sockets = None
    if record:
        _record(context, report, project_row.pk if project_row else None, host)
    visible = visible_project_names(context)
    if visible is not None:
        report.findings = [finding.redacted(visible) for finding in report.findings]
    return report


@operation(Role.VIEWER, "audit")
def changes(
    context: Context, report: AuditReport, project: str | None = None, hostname: str | None = None
) -> tuple[list[str], list[str]]:
    """Return what has changed since the last call for audits of the same project and host.

    Returns:
        the sentences of the problems that are new, and of those that are solved.
    """
    problems = report.problems
    before = sql.exchange_problems(json.dumps([project, hostname]), problems)
    new = [sentence for what, sentence in problems.items() if before.get(what) != sentence]
    return new, [sentence for what, sentence in before.items() if what not in problems]


def _unknown_owners(sockets: Sequence[listeners.Socket]) -> list[str]:
    """Return a sentence that says of how many sockets the processes are unknown, and why."""
    unknown = sum(socket.pid is None for socket in sockets)
    reason = listeners.why_processes_are_unknown() if unknown else ""
    if not reason:
        return []
    return [f"The owners of {unknown} {'socket is' if unknown == 1 else 'sockets are'} unknown: {reason}."]


def _nothing_on(context: Context, host: str) -> UnknownAllocation:
    """Return the refusal for a host without allocations, since a mistyped one in a crontab would never be noticed."""
    rows = PortAllocation.objects.visible_to(context.caller).held().order_by()
    names = sorted({*rows.values_list("hostname", flat=True).distinct(), validators.LOCALHOST})
    hint = did_you_mean(host, names)
    return UnknownAllocation(
        f"Nothing is allocated on {host}, so nothing was audited. {hint}".rstrip(), field="hostname"
    )


def _held_here() -> set[tuple[str, int]]:
    """Return the (protocol, port) pairs that are held on this host, including those that the caller may not see."""
    rows = PortAllocation.objects.held().values_list("hostname", "protocol", "port_number")
    return {(protocol, port) for hostname, protocol, port in rows if listeners.is_this_host(hostname)}


@operation(Role.VIEWER, "audit")
def _record(context: Context, report: AuditReport, project: UUID | None, hostname: str | None) -> None:
    report.id = sql.record_audit(report, context.actor, context.source, project, hostname)


def run_shared(context: Context, project: str | None = None) -> AuditReport:
    """Return what the caller may see of a full audit: a new one, or one that another caller has just run.

    Args:
        project: report only this project's allocations and listeners.

    Raises:
        UnknownProject, NotPermitted.
        Unavailable: another audit takes too long.
    """
    context.caller.require(Role.VIEWER, "audit")
    project_row = get_project(context, project) if project else None
    asked_at = timezone.now()
    release_session()
    if not _turn.acquire(timeout=LONGEST_WAIT):
        raise Unavailable("Another audit takes too long. Try again in a moment.", retry_after=2)
    try:
        audit = _make_or_share(context, asked_at)
    finally:
        _turn.release()
    return _report_of(_Share(audit, context.caller.projects, project_row, context))


@operation(Role.VIEWER, "audit")
def _make_or_share(context: Context, asked_at: datetime) -> Audit:
    sql.wait_for_turn("audit", LONGEST_WAIT)  # callers who arrive meanwhile wait here, and share the audit
    # Recording a large audit takes longer than SHARED_FOR, and those who have waited for it need no other.
    is_recent = Q(finished_at__gt=Now() - SHARED_FOR) | Q(finished_at__gte=asked_at)
    recent = Audit.objects.of_everything().filter(is_recent).first()
    if recent is not None:
        return recent
    # It covers everything, whoever asks: what each caller may see is decided when they read it.
    report = run(Context(context.actor, context.source, Caller.trusted(context.actor)))
    return Audit.objects.get(pk=str(report.id))


@dataclass(frozen=True, slots=True)
class _Share:
    """What a caller sees of a recorded audit: equal for all who see the same projects."""

    audit: Audit
    projects: frozenset[UUID] | None
    project: Project | None
    context: Context = field(compare=False)


@functools.lru_cache(maxsize=MOST_SHARED)
def _report_of(share: _Share) -> AuditReport:
    """Return the report of a recorded audit, as far as the caller may see it. It is read once in each process."""
    audit, context = share.audit, share.context
    allocations = PortAllocation.objects.visible_to(context.caller)
    unallocated = Listener.objects.unallocated().visible_to(context.caller)
    if share.project:
        allocations, unallocated = allocations.filter(project=share.project), unallocated.in_ranges_of(share.project)
    checks = PortHealthCheck.objects.filter(audit=audit, port_allocation__in=allocations)
    order = ("port_allocation__port_number", "port_allocation__hostname", "port_allocation__protocol")
    visible = visible_project_names(context)
    findings = [
        Finding(
            check.port_allocation,
            check.status,
            check.check_type,
            redact(check.evidence, visible).get("reason", ""),
            check.response_time_ms,
            listens_on=check.evidence.get("listensOn"),
        )
        for check in checks.select_related("port_allocation__project").order_by(*order)
    ]
    sockets = {
        (row.hostname, row.protocol, row.port): UnallocatedListener(
            row.port, row.hostname, row.protocol, row.process, row.pid, row.range_project_name, row.range_project_id
        )
        for row in unallocated
    }
    return AuditReport(
        findings=findings,
        unallocated=list(sockets.values()),
        started_at=audit.started_at,
        finished_at=audit.finished_at,
        id=audit.pk,
    )


@operation(Role.ADMIN, "apply retention")
def prune(context: Context, *, checks: timedelta) -> int:
    """Delete checks and audits older than `checks`. Allocations and events are history and stay.

    Returns:
        How many checks were deleted.

    Raises:
        InvalidValue: the retention is not longer than zero.
        NotPermitted.
    """
    if checks <= timedelta(0):
        raise InvalidValue("The retention must be longer than zero: write 30d.", field="checks")
    sql.delete_old_requests(timezone.now() - timedelta(days=1))
    before: datetime = timezone.now() - checks
    return sql.delete_old_checks(before)
