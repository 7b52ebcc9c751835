"""Allocate, release and change ports, and decide about the requests of agents."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

from allocations import listeners, sql, validators
from allocations.allocation_spec import DETAILS, AllocationSpec, allocation_spec, validated_changes
from allocations.audit import IMPORTED_FROM
from allocations.auth.roles import Role
from allocations.errors import Conflict, InvalidValue, NotPermitted, PortError
from allocations.models import Listener, PortAllocation, PortRange, Project, Reservation, Status

from . import allocator
from .operations import Context, operation
from .queries import get_allocation, get_project, get_service_allocations, only_one, refuse_released, refuse_stale

MOST_AT_ONCE = 500


def get_or_allocate(context: Context, project: str, service_name: str, **spec: Any) -> PortAllocation:
    """Return the service's port (its instance 0 on that host and protocol), allocated if it has none.

    It is safe to repeat under any concurrency: every caller gets the same row. The arguments do not change an existing
    allocation. `created` on the result says whether it is new.

    Args:
        project: the project's name.
        service_name: the service's name.
        **spec: see `allocation_spec()`: hostname, protocol, port_number, range_name, service_type, description, owner,
            cloudflare_hostname, metadata.

    Raises:
        UnknownProject, InvalidName, InvalidValue, PortOutOfRange, UnknownRange, RangeExhausted, PortTaken,
        HostnameTaken, AlreadyAllocated (another port was named), NotPermitted, Unavailable.
        Conflict: an agent has requested it, and nobody has decided yet.
    """
    full_spec = allocation_spec(service_name, **spec)
    validators.project_name(project)
    context.caller.require(Role.OPERATOR, "allocate ports")
    allocation = allocator.find_held(context, project, full_spec)
    if allocation is None:
        allocation = allocator.hold(context, project, full_spec, reuse=True)
    return allocator.decided(context, allocation)


def allocate(context: Context, project: str, service_name: str, **spec: Any) -> PortAllocation:
    """Allocate a new port for the service, whatever it holds already.

    The arguments and errors are those of `get_or_allocate()`.
    """
    return allocator.hold(context, project, allocation_spec(service_name, **spec), reuse=False)


def adopt(context: Context, project: str, service_name: str, *, port_number: int, **spec: Any) -> PortAllocation:
    """Register a port on which the service already listens. It works like `allocate()`, but ignores that listener."""
    full_spec = allocation_spec(service_name, port_number=port_number, **spec)
    return allocator.hold(context, project, full_spec, reuse=False, is_adopted=True)


@operation(Role.OPERATOR, "allocate ports")
def allocate_many(
    context: Context, project: str, services: Sequence[str | AllocationSpec], *, new: bool = True
) -> list[PortAllocation]:
    """Allocate a port for each service, all or none, and return them in the same order.

    Args:
        project: the project's name.
        services: names, or specs from `allocation_spec()`; at most 500.
        new: whether to allocate a new port for a service that already has one.
    """
    if len(services) > MOST_AT_ONCE:
        raise InvalidValue(f"{len(services)} services are too many at once: use at most {MOST_AT_ONCE}.")
    specs = [allocation_spec(s) if isinstance(s, str) else s for s in services]
    # Two callers that each hold some ports and wait for the other's last one would deadlock, so they take turns.
    sql.lock_ranges(_range_ids(context, get_project(context, project), specs))
    allocations = []
    for index, spec in enumerate(specs):
        with _with_index(index):
            allocation = allocator.hold(context, project, spec, reuse=not new)
            allocations.append(allocator.decided(context, allocation))
    return allocations


def allocate_copies(context: Context, project: str, service_name: str, count: int, **spec: Any) -> list[PortAllocation]:
    """Allocate `count` new ports for one service, all or none; see `allocation_spec()` for `spec`."""
    return allocate_many(context, project, [allocation_spec(service_name, **spec)] * count)


def _range_ids(context: Context, project: Project, specs: Sequence[AllocationSpec]) -> set[UUID]:
    ranges: dict[tuple[str | None, int | None], Sequence[PortRange]] = {}
    for index, spec in enumerate(specs):
        key = spec.range_name, spec.port_number
        if key not in ranges:
            with _with_index(index):
                ranges[key] = allocator.usable_ranges(context, project, *key)
    return {r.pk for usable in ranges.values() for r in usable}


@contextmanager
def _with_index(index: int) -> Iterator[None]:
    """Add to a refusal the index of the service that it is about."""
    try:
        yield
    except PortError as error:
        error.details["index"] = index
        raise


# Release


@operation(Role.OPERATOR, "release ports")
def release(
    context: Context,
    project: str,
    service_name: str,
    *,
    instance: int | None = None,
    hostname: str | None = None,
    protocol: str | None = None,
    every: bool = False,
) -> list[PortAllocation]:
    """Release what a service holds, and return it.

    Args:
        instance, hostname, protocol: which of its ports, if it holds several.
        every: whether to release all that match.

    Raises:
        UnknownProject, UnknownService, NotPermitted.
        Ambiguous: several match, and `every` is not set.
    """
    project_row = get_project(context, project)
    allocations = get_service_allocations(context, project_row, service_name, instance, hostname, protocol)
    return release_rows(allocations if every else [only_one(allocations)])


@operation(Role.OPERATOR, "release ports")
def release_by_id(
    context: Context, pk: UUID, *, expected: Container[str] | None = None, ports: str = ""
) -> PortAllocation:
    """Release one allocation by its id. Of a reserved port, the whole block is released.

    Args:
        expected: the versions that the caller may have read; None means any.
        ports: the part of the block to release, such as `3152` or `3152-3154`; empty means all of it.

    Raises:
        UnknownAllocation, AlreadyReleased, Stale, NotPermitted.
        InvalidValue: `ports` is not a part of the block.
    """
    allocation = get_allocation(context, pk)
    refuse_stale(allocation, expected)
    refuse_released(allocation)
    start_port, end_port = validators.parse_port_span(ports or allocation.ports, "ports")
    if allocation.reservation is None:
        held = range(allocation.port_number, allocation.port_number + 1)
        rows = [allocation]
    else:
        held = range(allocation.reservation.start_port, allocation.reservation.end_port + 1)
        block = PortAllocation.objects.filter(reservation=allocation.reservation, status=Status.RESERVED)
        rows = list(block.filter(port_number__range=(start_port, end_port)))
    if start_port not in held or end_port not in held:
        raise InvalidValue(f"{ports} is no part of {allocation.address}: name ports of it.", field="ports")
    return release_rows(rows)[0]


def release_rows(allocations: Sequence[PortAllocation]) -> list[PortAllocation]:
    """Release these allocations, inside an operation, and return them as they are now."""
    ids = [a.pk for a in allocations]
    PortAllocation.objects.filter(pk__in=ids).exclude(status=Status.RELEASED).update(status=Status.RELEASED)
    _forget_listeners(allocations)
    released = PortAllocation.objects.select_related("project", "port_range", "reservation").in_bulk(ids)
    return [released[pk] for pk in ids]


def _forget_listeners(allocations: Sequence[PortAllocation]) -> None:
    """Delete recorded listeners of this host that have stopped, so that their ports can be allocated again."""
    ports: dict[tuple[str, str], set[int]] = defaultdict(set)
    for allocation in allocations:
        if listeners.is_this_host(allocation.hostname):
            ports[allocation.hostname, allocation.protocol].add(allocation.port_number)
    for (hostname, protocol), stopped in ports.items():
        stopped -= {socket.port for socket in listeners.listening(min(stopped), max(stopped), protocol)}
        Listener.objects.filter(hostname=hostname, protocol=protocol, port__in=stopped).delete()


# Change


@operation(Role.OPERATOR, "change allocations")
def update(
    context: Context,
    project: str,
    service: str,
    /,
    *,
    instance: int | None = None,
    hostname: str | None = None,
    protocol: str | None = None,
    **changes: Any,
) -> PortAllocation:
    """Change the details of what a service holds; see `update_by_id` for the changes.

    Raises:
        UnknownProject, UnknownService, Ambiguous, and the errors of `update_by_id`.
    """
    project_row = get_project(context, project)
    allocation = only_one(get_service_allocations(context, project_row, service, instance, hostname, protocol))
    return _update(context, allocation, changes)


@operation(Role.OPERATOR, "change allocations")
def update_by_id(
    context: Context, pk: UUID, *, expected: Container[str] | None = None, **changes: Any
) -> PortAllocation:
    """Change the details of an allocation.

    Args:
        pk: its id.
        expected: the versions that the caller may have read; None is any.
        **changes: any of service_name (renames the service), service_type, description, owner, cloudflare_hostname
            (None removes it), metadata (replaces the whole object), expires_at (of a reservation).

    Raises:
        UnknownAllocation, AlreadyReleased, Stale, HostnameTaken, NameTaken, InvalidName, InvalidValue, NotPermitted.
    """
    allocation = get_allocation(context, pk)
    refuse_stale(allocation, expected)
    return _update(context, allocation, changes)


def _update(context: Context, allocation: PortAllocation, changes: dict[str, Any]) -> PortAllocation:
    values = validated_changes(changes)
    refuse_released(allocation)
    if "expires_at" in values and allocation.status != Status.RESERVED:
        raise InvalidValue("Only a reservation expires: release the port instead.", field="expires_at")
    if "service_name" in values and allocation.status == Status.RESERVED:
        raise InvalidValue(
            f"A reservation has no service: allocate {allocation.port_number} for it.", field="service_name"
        )
    if values.get("cloudflare_hostname"):
        allocator.refuse_taken_hostname(context, values["cloudflare_hostname"], excluding=allocation)
    if allocation.reservation is not None:  # its ports follow
        shared = {name: values.pop(name) for name in ("description", "expires_at") if name in values}
        if shared:
            Reservation.objects.filter(pk=allocation.reservation.pk).update(**shared)
    if values:
        PortAllocation.objects.filter(pk=allocation.pk).update(**values)
    return get_allocation(context, allocation.pk)


@operation(Role.OPERATOR, "move services")
def move(
    context: Context,
    project: str,
    service: str,
    /,
    *,
    instance: int | None = None,
    hostname: str | None = None,
    protocol: str | None = None,
    to_hostname: str | None = None,
    to_range: str | None = None,
    to_port: int | None = None,
) -> tuple[PortAllocation, PortAllocation]:
    """Release what a service holds, and allocate a port on another host or in another range, both or neither.

    The details stay. On another host, so does the port if it is free there. Until the service has been seen on a new
    port of this host, audits and explanations know the old one as its own.

    Args:
        instance, hostname, protocol: which of its ports, if it holds several.
        to_hostname, to_range, to_port: where it is moved to. None keeps the host, and takes the lowest free port of the
            project's own ranges.

    Returns:
        the released allocation and the new one.

    Raises:
        UnknownProject, UnknownService, Ambiguous, UnknownRange, PortOutOfRange, PortTaken, RangeExhausted,
        NotPermitted, Unavailable.
    """
    project_row = get_project(context, project)
    held = only_one(get_service_allocations(context, project_row, service, instance, hostname, protocol))
    (old,) = release_rows([held])
    details = {name: getattr(old, name) for name in DETAILS}
    spec = allocation_spec(
        service, **details, hostname=to_hostname or old.hostname, protocol=old.protocol, range_name=to_range
    )
    if to_port is None and to_range is None and spec.hostname != old.hostname:
        taken = PortAllocation.objects.held().at(old.port_number, **spec.socket).exists()
        to_port = None if taken else old.port_number
    if spec.hostname == old.hostname:
        spec = replace(spec, metadata={**spec.metadata, IMPORTED_FROM: old.port_number})
    new = allocator.hold(context, project, replace(spec, port_number=to_port), reuse=False)
    return old, allocator.decided(context, new)


# Requests of agents


@operation(Role.OPERATOR, "approve requests")
def approve_request(context: Context, pk: UUID) -> PortAllocation:
    """Let a service use the port that an agent requested.

    Raises:
        UnknownAllocation.
        NotPermitted: the caller is an agent, but a person has to decide.
        Conflict: it is not a pending request.
    """
    request = _locked_request(context, pk)
    PortAllocation.objects.filter(pk=request.pk).update(status=Status.ALLOCATED)
    return get_allocation(context, pk)


@operation(Role.OPERATOR, "refuse requests")
def refuse_request(context: Context, pk: UUID) -> PortAllocation:
    """Release the port that an agent requested. The errors are those of `approve_request()`."""
    return release_rows([_locked_request(context, pk)])[0]


def _locked_request(context: Context, pk: UUID) -> PortAllocation:
    """Return a request that the caller may decide about, locked until the transaction ends."""
    if context.is_agent:
        raise NotPermitted("A person decides about requests, on the dashboard. An agent cannot.")
    allocation = get_allocation(context, pk)
    rows = PortAllocation.objects.pending().select_for_update(no_key=True, of=("self",))
    if not rows.filter(pk=pk).exists():
        state = "expired" if allocation.status == Status.PENDING else allocation.state
        raise Conflict(f"{allocation.label} on {allocation.address} is {state}: there is no request to decide about.")
    return allocation
