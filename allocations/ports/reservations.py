"""Reserve ports for later."""

from __future__ import annotations

from datetime import datetime

from allocations import validators
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
    reserved = []
    for port_number in range(start_port, end_port + 1):
        spec = AllocationSpec(
            service_name=None,
            description=validators.text(description, "description"),
            hostname=validators.hostname(hostname),
            protocol=validators.protocol(protocol),
            port_number=port_number,
            expires_at=validators.expires_at(expires_at),
            status=Status.RESERVED,
        )
        reserved.append(allocator.take(context, project_row.name, spec))
    return reserved


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
    """Release the project's reservations from the start port to the end port.

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
