"""Statements that hold ports."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from django.db import connection

from allocations.allocation_spec import AllocationSpec
from allocations.models import PortAllocation, PortRange, Project

# The parameters of the SQL function hold_port are named like the fields of AllocationSpec.
_SPEC_PARAMETERS = ", ".join(f"{name} => %({name})s" for name in AllocationSpec(service_name=None).columns)

_HOLD = f"""
    SELECT held.*, held.allocated_at = statement_timestamp() AS created, p.name AS project_name,
           (SELECT r.range_name FROM port_ranges r WHERE r.id = held.port_range_id) AS range_name
      FROM projects p,
           LATERAL (
               SELECT array_agg(r.id ORDER BY r.start_port) AS ids
                 FROM port_ranges r
                WHERE r.is_active AND (r.project_id = p.id OR (r.is_shared AND (
                          r.range_name = %(range_name)s OR %(port_number)s BETWEEN r.start_port AND r.end_port)))
                  AND (%(range_name)s::text IS NULL OR r.range_name = %(range_name)s)
                  AND (%(port_number)s::int IS NULL OR %(port_number)s BETWEEN r.start_port AND r.end_port)
           ) ranges,
           LATERAL hold_port(project_id => p.id, range_ids => ranges.ids, reuse => %(reuse)s, {_SPEC_PARAMETERS}) held
     WHERE p.name = %(project)s AND (%(visible)s::uuid[] IS NULL OR p.id = ANY (%(visible)s))
       AND ranges.ids IS NOT NULL AND held.id IS NOT NULL
"""  # noqa: S608 built from the names of a class, not from values

_FIND_HELD = """
    SELECT a.*, false AS created, p.name AS project_name, r.range_name
      FROM projects p JOIN port_allocations a ON a.project_id = p.id JOIN port_ranges r ON r.id = a.port_range_id
     WHERE p.name = %(project)s AND (%(visible)s::uuid[] IS NULL OR p.id = ANY (%(visible)s))
       AND a.service_name = %(service_name)s AND a.hostname = %(hostname)s AND a.protocol = %(protocol)s
       AND a.instance = 0 AND a.status = 'allocated'
"""


def find_held(project: str, spec: AllocationSpec, visible: Iterable[UUID] | None) -> PortAllocation | None:
    """Return the port that the service already holds as its instance 0: the hot path of get-or-allocate.

    Args:
        visible: ids of the projects that the caller may see; None means all.
    """
    return _first(_FIND_HELD, _parameters(project, spec, visible))


def hold_port(
    project: str, spec: AllocationSpec, visible: Iterable[UUID] | None, *, reuse: bool
) -> PortAllocation | None:
    """Hold a port with the SQL function of that name, in one statement.

    It comes from the project's own active ranges in port order, unless the spec names a range or a port.

    Args:
        project: the project's name.
        visible: ids of the projects that the caller may see; None means all.
        reuse: whether the service's instance 0 is returned if it exists.

    Returns:
        None if it cannot be held: there is no such project or range, the range is full, or the port is taken.
    """
    return _first(_HOLD, {**_parameters(project, spec, visible), "reuse": reuse})


def reserve_ports(project: Project, spec: AllocationSpec, start_port: int, end_port: int) -> tuple[UUID | None, int]:
    """Reserve a block of ports with the SQL function of that name, in one statement, all or none.

    Returns:
        the id of the reservation and 0, or None and the lowest port that cannot be reserved.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT reservation_id, coalesce(refused_port, 0) FROM reserve_ports(%s, %s, %s, %s, %s, %s, %s)",
            (project.pk, start_port, end_port, spec.hostname, spec.protocol, spec.description, spec.expires_at),
        )
        reservation, refused = cursor.fetchone()
    return reservation, refused


def _parameters(project: str, spec: AllocationSpec, visible: Iterable[UUID] | None) -> dict[str, Any]:
    return {
        **spec.columns,
        "metadata": json.dumps(spec.metadata),
        "range_name": spec.range_name,
        "project": project,
        "visible": None if visible is None else list(visible),
    }


def _first(statement: str, parameters: dict[str, Any]) -> PortAllocation | None:
    """Return the first row with its project and its range, of which only the names are loaded."""
    for row in PortAllocation.objects.raw(statement, parameters):
        names: Any = row  # annotations of the statement
        row.project = Project.from_db("default", ["id", "name"], [row.project_id, names.project_name])
        row.port_range = PortRange.from_db("default", ["id", "range_name"], [row.port_range_id, names.range_name])
        return row
    return None


def lock_ranges(ranges: Iterable[UUID]) -> None:
    """Wait for every other transaction that takes many ports of these ranges. Single allocations do not wait."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended('many of ' || id, 0)) FROM unnest(%s::text[]) AS r (id)",
            (sorted(str(pk) for pk in ranges),),
        )


def next_free_block(size: int) -> int | None:
    """Return the lowest start port, a multiple of `size` from 3000 on, of a block that no range touches.

    Return None if there is no room. Concurrent callers take turns: each looks after the one before it has committed or
    rolled back.
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
