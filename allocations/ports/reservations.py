"""Reserve ports for later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from allocations import listeners, sql, validators
from allocations.allocation_spec import AllocationSpec
from allocations.auth.roles import Role
from allocations.errors import UnknownAllocation
from allocations.models import PortAllocation, Status

from . import allocations, allocator
from .operations import Context, operation
from .queries import get_project


def reserve(
    context: Context,
    project: str,
    port_number: int,
    *,
    description: str = "",
    expires_at: datetime | None = None,
    hostname: str | None = None,
    protocol: str | None = None,
) -> PortAllocation:
    """Reserve one port; see `reserve_block()`."""
    validators.port_number(port_number)  # reserve_block() would report it as the start port
    return reserve_block(
        context,
        project,
        port_number,
        port_number,
        description=description,
        expires_at=expires_at,
        hostname=hostname,
        protocol=protocol,
    )[0]


@operation(Role.OPERATOR, "reserve ports")
def reserve_block(
    context: Context,
    project: str,
    start_port: int,
    end_port: int,
    *,
    description: str = "",
    expires_at: datetime | None = None,
    hostname: str | None = None,
    protocol: str | None = None,
) -> list[PortAllocation]:
    """Reserve the ports from the start port to the end port, all or none.

    A reserved port is never allocated automatically. It is free again once it expires.

    Args:
        expires_at: when the reservation ends; None means never.

    Raises:
        UnknownProject, PortOutOfRange, PortTaken, InvalidValue, InvalidName, NotPermitted, Unavailable.
    """
    start_port, end_port = validators.port_span(start_port, end_port)
    project_row = get_project(context, project)
    spec = AllocationSpec(
        service_name=None,
        description=validators.text(description, "description"),
        hostname=validators.hostname(hostname),
        protocol=validators.protocol(protocol),
        expires_at=validators.expires_at(expires_at),
        status=Status.RESERVED,
    )
    reservation, refused = sql.reserve_ports(project_row, spec, start_port, end_port)
    if reservation is None:
        raise allocator.refusal(context, project_row.name, replace(spec, port_number=refused))
    rows = PortAllocation.objects.filter(reservation=reservation)
    return list(rows.select_related("project", "port_range", "reservation"))


def listening_on(reserved: Sequence[PortAllocation]) -> list[listeners.Socket]:
    """Return what listens on ports of a block on this host. Reserving a port stops nothing."""
    first, last = reserved[0], reserved[-1]
    if not listeners.is_this_host(first.hostname):
        return []
    return listeners.listening(first.port_number, last.port_number, first.protocol)


@operation(Role.OPERATOR, "release ports")
def release(
    context: Context,
    project: str,
    start_port: int,
    end_port: int | None = None,
    *,
    hostname: str | None = None,
    protocol: str | None = None,
) -> list[PortAllocation]:
    """Release the project's reserved ports from the start port to the end port. Blocks shrink or split.

    Raises:
        UnknownProject, NotPermitted.
        UnknownAllocation: the project has no reservation there.
    """
    start_port, end_port = validators.port_span(start_port, start_port if end_port is None else end_port)
    rows = PortAllocation.objects.filter(
        project=get_project(context, project),
        status=Status.RESERVED,
        port_number__range=(start_port, end_port),
        hostname=validators.hostname(hostname),
        protocol=validators.protocol(protocol),
    )
    reserved = list(rows.select_related("project", "port_range"))
    if not reserved:
        raise UnknownAllocation(
            f"{project} has no reservation on {start_port}-{end_port}. List its reservations to find it.",
            field="port_number",
        )
    return allocations.release_rows(reserved)
