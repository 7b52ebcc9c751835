"""Statements that record audits and delete old records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from django.db import connection

from allocations.audit import AuditReport, Finding
from allocations.listeners import Socket
from allocations.models import Audit


def record_audit(report: AuditReport, actor: str, source: str, project: UUID | None, hostname: str | None) -> UUID:
    """Record an audit: its counts, one check per allocation, whose verdict is copied to it, and the listeners."""
    summary = report.summary
    recorded = Audit.objects.create(
        started_at=report.started_at,
        finished_at=report.finished_at,
        actor=actor,
        source=source,
        project_id=project,
        hostname=hostname,
        allocated=summary.allocated,
        in_use=summary.in_use,
        not_running=summary.not_running,
        conflicts=summary.conflicts,
        unknown=summary.unknown,
        unallocated=summary.unallocated,
    )
    if report.findings:
        _record_checks(recorded, report.findings)
    if report.sockets is not None:
        _record_listeners(recorded, report.sockets)
    return recorded.pk


def _record_checks(recorded: Audit, findings: Sequence[Finding]) -> None:
    """Insert all checks in one statement, and copy their verdicts to the allocations in another."""
    ids = [f.allocation.pk for f in findings]
    statuses = [str(f.status) for f in findings]
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO port_health_checks
                (port_allocation_id, audit_id, check_type, status, response_time_ms, checked_at, evidence)
            SELECT id, %s, check_type, status, took, %s, evidence
              FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::int[], %s::jsonb[])
                   AS findings (id, check_type, status, took, evidence)
            """,
            (
                recorded.pk,
                recorded.finished_at,
                ids,
                [f.check_type for f in findings],
                statuses,
                [f.response_time_ms for f in findings],
                [json.dumps(f.evidence) for f in findings],
            ),
        )
        # In key order, so that two concurrent audits lock the rows in the same order.
        cursor.execute(
            """
            WITH verdicts AS MATERIALIZED (
                SELECT a.id, findings.status
                  FROM unnest(%s::uuid[], %s::text[]) AS findings (id, status) JOIN port_allocations a USING (id)
                 WHERE a.status <> 'released'
                 ORDER BY a.id FOR NO KEY UPDATE OF a
            )
            UPDATE port_allocations a
               SET health = verdicts.status,
                   last_used_at = CASE WHEN verdicts.status = 'up' THEN %s ELSE a.last_used_at END
              FROM verdicts
             WHERE a.id = verdicts.id AND (verdicts.status = 'up' OR a.health IS DISTINCT FROM verdicts.status)
            """,
            (ids, statuses, recorded.finished_at),
        )


def _record_listeners(recorded: Audit, sockets: Iterable[Socket]) -> None:
    """Replace this host's listeners with the current ones."""
    unique = {(s.protocol, s.port, s.address): s for s in sockets}.values()
    with connection.cursor() as cursor:
        # One writer at a time, so that after two concurrent audits all rows are those of the later one.
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended('portal listeners', 0))")
        cursor.execute(
            """
            WITH seen AS (
                SELECT * FROM unnest(%s::text[], %s::text[], %s::int[], %s::text[], %s::int[], %s::text[],
                                     %s::text[])
                    AS seen (protocol, address, port, process, pid, container, cwd)
            ), gone AS (
                DELETE FROM listeners l
                 WHERE l.hostname = 'localhost' AND l.last_seen_at < %s
                   AND NOT EXISTS (SELECT FROM seen s WHERE (s.protocol, s.port, s.address) =
                                                           (l.protocol, l.port, l.address))
            )
            INSERT INTO listeners (hostname, protocol, address, port, process, pid, container, cwd, last_seen_at)
            SELECT 'localhost', protocol, address, port, process, pid, container, cwd, %s FROM seen
            ON CONFLICT (hostname, protocol, port, address) DO UPDATE
               SET process = EXCLUDED.process, pid = EXCLUDED.pid, container = EXCLUDED.container,
                   cwd = EXCLUDED.cwd, last_seen_at = EXCLUDED.last_seen_at
            """,
            (
                [s.protocol for s in unique],
                [s.address for s in unique],
                [s.port for s in unique],
                [s.process for s in unique],
                [s.pid for s in unique],
                [s.container for s in unique],
                [s.cwd for s in unique],
                recorded.finished_at,
                recorded.finished_at,
            ),
        )


def exchange_problems(filters: str, problems: Mapping[str, str]) -> dict[str, str]:
    """Store what a quiet audit with these filters has found, and return what the one before found."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT problems FROM quiet_audits WHERE filters = %s FOR UPDATE", (filters,))
        row = cursor.fetchone()
        cursor.execute(
            "INSERT INTO quiet_audits VALUES (%s, %s) ON CONFLICT (filters) DO UPDATE SET problems = EXCLUDED.problems",
            (filters, json.dumps(problems)),
        )
    return dict(json.loads(row[0])) if row else {}


def delete_old_checks(before: datetime) -> int:
    """Delete the checks from before that time and the audits that have none left; return the number of checks."""
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM port_health_checks WHERE checked_at < %s", (before,))
        deleted = cursor.rowcount
        cursor.execute(
            "DELETE FROM audits a WHERE a.finished_at < %s "
            "AND NOT EXISTS (SELECT FROM port_health_checks c WHERE c.audit_id = a.id)",
            (before,),
        )
    return int(deleted)


def delete_old_requests(before: datetime) -> None:
    """Delete rate limits that are no longer in effect, and answers to idempotent requests from before that time."""
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM rate_limits WHERE settled_at < clock_timestamp()")
        cursor.execute("DELETE FROM idempotent_answers WHERE created_at < %s", (before,))
