"""What was seen, and what is forgotten."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from django.db import connection

from allocations.models import Audit

if TYPE_CHECKING:
    from allocations.audit import AuditReport, Finding
    from allocations.listeners import Socket


def record_audit(report: AuditReport, actor: str, source: str, project: UUID | None, hostname: str | None) -> UUID:
    """Keep an audit: its numbers, one check per allocation, what was last seen of each, and this host's listeners."""
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
    """One statement for all checks, and one for what the allocations remember of them."""
    ids = [f.allocation.pk for f in findings]
    statuses = [str(f.status) for f in findings]
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO port_health_checks
                (port_allocation_id, audit_id, check_type, status, response_time_ms, checked_at, evidence)
            SELECT id, %s, check_type, status, took, %s, evidence
              FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::int[], %s::jsonb[])
                   AS found (id, check_type, status, took, evidence)
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
        # In key order, so that two audits at once lock the rows in the same order.
        cursor.execute(
            """
            WITH found AS MATERIALIZED (
                SELECT a.id, seen.status
                  FROM unnest(%s::uuid[], %s::text[]) AS seen (id, status) JOIN port_allocations a USING (id)
                 WHERE a.status <> 'released'
                 ORDER BY a.id FOR NO KEY UPDATE OF a
            )
            UPDATE port_allocations a
               SET health = found.status,
                   last_used_at = CASE WHEN found.status = 'up' THEN %s ELSE a.last_used_at END
              FROM found
             WHERE a.id = found.id AND (found.status = 'up' OR a.health IS DISTINCT FROM found.status)
            """,
            (ids, statuses, recorded.finished_at),
        )


def _record_listeners(recorded: Audit, sockets: Iterable[Socket]) -> None:
    """This host's listeners as they are now: new ones come, seen ones stay, the rest go."""
    unique = {(s.protocol, s.port, s.address): s for s in sockets}.values()
    with connection.cursor() as cursor:
        # One writer at a time: of two audits, the later look wins as a whole.
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended('portal listeners', 0))")
        cursor.execute(
            """
            WITH seen AS (
                SELECT * FROM unnest(%s::text[], %s::text[], %s::int[], %s::text[], %s::int[], %s::text[])
                    AS seen (protocol, address, port, process, pid, container)
            ), gone AS (
                DELETE FROM listeners l
                 WHERE l.hostname = 'localhost' AND l.last_seen_at < %s
                   AND NOT EXISTS (SELECT FROM seen s WHERE (s.protocol, s.port, s.address) =
                                                           (l.protocol, l.port, l.address))
            )
            INSERT INTO listeners (hostname, protocol, address, port, process, pid, container, last_seen_at)
            SELECT 'localhost', protocol, address, port, process, pid, container, %s FROM seen
            ON CONFLICT (hostname, protocol, port, address) DO UPDATE
               SET process = EXCLUDED.process, pid = EXCLUDED.pid, container = EXCLUDED.container,
                   last_seen_at = EXCLUDED.last_seen_at
            """,
            (
                [s.protocol for s in unique],
                [s.address for s in unique],
                [s.port for s in unique],
                [s.process for s in unique],
                [s.pid for s in unique],
                [s.container for s in unique],
                recorded.finished_at,
                recorded.finished_at,
            ),
        )


def prune(before: datetime) -> int:
    """Delete checks before that moment, and the audits that have none left; returns how many checks."""
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM port_health_checks WHERE checked_at < %s", (before,))
        deleted = cursor.rowcount
        cursor.execute(
            "DELETE FROM audits a WHERE a.finished_at < %s "
            "AND NOT EXISTS (SELECT FROM port_health_checks c WHERE c.audit_id = a.id)",
            (before,),
        )
    return int(deleted)


def forget_requests(before: datetime) -> None:
    """Delete what is remembered of requests: settled limits, and answers older than a day."""
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM rate_limits WHERE settled_at < clock_timestamp()")
        cursor.execute("DELETE FROM idempotent_answers WHERE created_at < %s", (before,))


@contextmanager
def alone(what: str) -> Iterator[None]:
    """Wait until nobody else does the same, and keep them waiting, over as many transactions as it takes.

    On a session of its own: a lock of the working session would end with its first transaction.
    """
    other = connection.copy()
    try:
        other.set_autocommit(False)
        with other.cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = 0")
            cursor.execute("SET LOCAL statement_timeout = 0")
            cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"portal {what}",))
        yield
    finally:
        other.close()


def one_at_a_time(what: str) -> None:
    """Wait until nobody else does the same, until the transaction ends; longer than an audit's probes take."""
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL lock_timeout = '25s'")
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"portal {what}",))
