"""The only module with SQL text at run time. Values travel as parameters, never in the text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from django.db import connection

from .models import Audit, PortAllocation

if TYPE_CHECKING:
    from .audit import AuditReport, Finding
    from .listeners import Socket
    from .ports.wishes import Wish


def name_actor(actor: str, source: str) -> None:
    """Tell the event triggers who acts and by which door, until the transaction ends.

    Never for the session: a connection pool would hand the name on to the next caller.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT set_config('portal.actor', %s, true), set_config('portal.source', %s, true)", (actor, source)
        )


def hold_port(
    project: UUID, ranges: Sequence[UUID], *, asked: Wish, wanted: int | None, reuse: bool
) -> PortAllocation | None:
    """Hold one port with the SQL function of that name; None where the ranges are full or `wanted` is held."""
    rows = PortAllocation.objects.raw(
        # Both are the start of this statement for a row that it made itself.
        "SELECT *, allocated_at = statement_timestamp() AS created "
        "FROM hold_port(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) WHERE id IS NOT NULL",
        (
            project,
            list(ranges),
            asked.service,
            asked.service_type,
            asked.hostname,
            asked.protocol,
            wanted,
            asked.status,
            asked.description,
            asked.cloudflare_hostname,
            json.dumps(asked.metadata),
            asked.expires_at,
            reuse,
        ),
    )
    return next(iter(rows), None)


def hold_in_own_ranges(
    project: str, visible: Iterable[UUID] | None, *, asked: Wish, reuse: bool
) -> PortAllocation | None:
    """The usual wish in one statement: a port of the project's own active ranges, in port order.

    Args:
        visible: the projects that the caller may see; None is all.

    Returns:
        None where that cannot be: there is no such project, it has no active range, or they are full.
    """
    rows = PortAllocation.objects.raw(
        """
        SELECT held.*, held.allocated_at = statement_timestamp() AS created
          FROM projects p,
               LATERAL (SELECT array_agg(r.id ORDER BY r.start_port) AS ids
                          FROM port_ranges r WHERE r.project_id = p.id AND r.is_active) own,
               LATERAL hold_port(p.id, own.ids, %s, %s, %s, %s, extra => %s, note => %s, tunnel => %s, reuse => %s) held
         WHERE p.name = %s AND own.ids IS NOT NULL AND (%s::uuid[] IS NULL OR p.id = ANY (%s)) AND held.id IS NOT NULL
        """,
        (
            asked.service,
            asked.service_type,
            asked.hostname,
            asked.protocol,
            json.dumps(asked.metadata),
            asked.description,
            asked.cloudflare_hostname,
            reuse,
            project,
            *([None if visible is None else list(visible)] * 2),
        ),
    )
    return next(iter(rows), None)


def take_turns(ranges: Iterable[UUID]) -> None:
    """Wait for every other transaction that takes many ports of these ranges; single allocations are not held up."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended('many of ' || id, 0)) FROM unnest(%s::text[]) AS given (id)",
            (sorted(str(pk) for pk in ranges),),
        )


def find_available_port(port_range: UUID, hostname: str, protocol: str) -> int | None:
    """The lowest free port of a range, or None where it is full; a look, not a promise."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT find_available_port(%s, %s, %s)", (port_range, hostname, protocol))
        row = cursor.fetchone()
    return row[0] if row else None


def next_free_block(size: int) -> int | None:
    """The lowest start of `size` ports that no range touches, a multiple of `size`, from 3000 on; None: no room."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT start
              FROM generate_series(((2999 + %(size)s) / %(size)s) * %(size)s, 65536 - %(size)s, %(size)s) start
             WHERE NOT EXISTS (SELECT FROM port_ranges WHERE span && int4range(start, start + %(size)s))
             ORDER BY start LIMIT 1
            """,
            {"size": size},
        )
        row = cursor.fetchone()
    return row[0] if row else None


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


def count_request(limits: Mapping[str, int]) -> float:
    """Count one request against each key; how many seconds the caller must wait, 0 to go on.

    Args:
        limits: how many requests per minute each key may make.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT count_request(%s, %s)", (list(limits), list(limits.values())))
        (wait,) = cursor.fetchone()
    return float(wait)


def one_at_a_time(what: str) -> None:
    """Wait until nobody else does the same, until the transaction ends."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"portal {what}",))


def forget_requests(before: datetime) -> None:
    """Delete what is remembered of requests: settled limits, and answers older than a day."""
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM rate_limits WHERE settled_at < clock_timestamp()")
        cursor.execute("DELETE FROM idempotent_answers WHERE created_at < %s", (before,))


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
