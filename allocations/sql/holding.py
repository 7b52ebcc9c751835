"""Ports that are taken."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from django.db import connection

from allocations.models import PortAllocation, PortRange, Project

if TYPE_CHECKING:
    from allocations.ports.wishes import Wish


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
        SELECT held.*, held.allocated_at = statement_timestamp() AS created, p.name AS its_project,
               (SELECT r.range_name FROM port_ranges r WHERE r.id = held.port_range_id) AS its_range
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
    return _named(rows)


def held_by(project: str, visible: Iterable[UUID] | None, *, asked: Wish) -> PortAllocation | None:
    """What the service holds already as its instance 0: the hot path of get-or-allocate.

    Args:
        visible: the projects that the caller may see; None is all.
    """
    rows = PortAllocation.objects.raw(
        """
        SELECT a.*, false AS created, p.name AS its_project, r.range_name AS its_range
          FROM projects p JOIN port_allocations a ON a.project_id = p.id JOIN port_ranges r ON r.id = a.port_range_id
         WHERE p.name = %s AND a.service_name = %s AND a.hostname = %s AND a.protocol = %s AND a.instance = 0
           AND a.status = 'allocated' AND (%s::uuid[] IS NULL OR p.id = ANY (%s))
        """,
        (
            *(project, asked.service, asked.hostname, asked.protocol),
            *([None if visible is None else list(visible)] * 2),
        ),
    )
    return _named(rows)


def _named(rows: Iterable[PortAllocation]) -> PortAllocation | None:
    """The first row, with its project and range, of which only the names are loaded: that is what answers show."""
    for row in rows:
        row.project = Project.from_db("default", ["id", "name"], [row.project_id, row.its_project])  # type: ignore[attr-defined]
        range_ = [row.port_range_id, row.its_range]  # type: ignore[attr-defined]
        row.port_range = PortRange.from_db("default", ["id", "range_name"], range_)
        return row
    return None


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
    """The lowest start of `size` ports that no range touches, a multiple of `size`, from 3000 on; None: no room.

    Of two at once, the second looks when the first has taken its block, or has given up.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended('portal blocks', 0))")
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
