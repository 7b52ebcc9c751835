"""Hold ports. Every allocation and reservation goes through here."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import nsmallest

from django.db import transaction

from allocations import listeners, sql, validators
from allocations.allocation_spec import AllocationSpec
from allocations.auth.roles import Role
from allocations.errors import (
    AlreadyAllocated,
    Conflict,
    HostnameTaken,
    NotPermitted,
    PortError,
    PortOutOfRange,
    PortTaken,
    RangeExhausted,
    Unavailable,
    UnknownRange,
)
from allocations.models import Listener, PortAllocation, PortRange, Project, Status
from allocations.models.allocations import PortAllocationQuerySet
from allocations.text import did_you_mean, join_and, nearest, process_name

from .operations import Context, operation
from .queries import get_project, holder_name

MOST_SUGGESTED = 3


class ListenerInTheWay(Exception):
    """Raised if an unallocated listener occupies the chosen port, so that it is recorded and another port is chosen."""

    def __init__(self, hostname: str, socket: listeners.Socket) -> None:
        super().__init__(hostname, socket)
        self.hostname = hostname
        self.socket = socket


def find_held(context: Context, project: str, spec: AllocationSpec) -> PortAllocation | None:
    """Return the port that the service already holds as its instance 0, in one query.

    Raises:
        AlreadyAllocated: the spec names another port.
    """
    allocation = sql.find_held(project, spec, context.caller.projects)
    if allocation is not None:
        _refuse_other_port(allocation, spec)
    return allocation


def hold(
    context: Context, project: str, spec: AllocationSpec, *, reuse: bool, is_adopted: bool = False
) -> PortAllocation:
    """Hold a port, skipping every port of this host that an unallocated listener occupies.

    Args:
        reuse: whether the service's instance 0 is returned if it exists.
        is_adopted: whether the service already listens on the port.

    Raises:
        UnknownProject, UnknownRange, PortOutOfRange, PortTaken, RangeExhausted, HostnameTaken, AlreadyAllocated,
        NotPermitted, Unavailable.
    """
    validators.project_name(project)
    skipped: set[int] = set()
    while True:
        try:
            return _hold(context, project, spec, reuse=reuse, is_adopted=is_adopted)
        except ListenerInTheWay as error:
            port = error.socket.port
            _record_listener(error)
            if spec.port_number is not None:
                raise _listener_refusal(context, project, spec, error.socket) from None
            if port in skipped:  # an audit has removed the listener since, so it comes and goes
                raise Unavailable(
                    f"A process keeps starting and stopping to listen on {port}: try again in a moment.",
                    retry_after=2,
                ) from None
            skipped.add(port)


@operation(Role.OPERATOR, "allocate ports")
def _hold(context: Context, project: str, spec: AllocationSpec, *, reuse: bool, is_adopted: bool) -> PortAllocation:
    allocation = take(context, project, spec, reuse=reuse)
    if allocation.created and not is_adopted and listeners.is_this_host(allocation.hostname):
        socket = listeners.is_listening(allocation.port_number, allocation.protocol)
        if socket is not None:
            raise ListenerInTheWay(allocation.hostname, socket)
    return allocation


def take(context: Context, project: str, spec: AllocationSpec, *, reuse: bool = False) -> PortAllocation:
    """Hold a port in the registry with one statement, whatever is listening on it. Call this inside an operation.

    Raises:
        The errors of `hold`.
    """
    if spec.cloudflare_hostname:
        refuse_taken_hostname(context, spec.cloudflare_hostname)
    allocation = sql.hold_port(project, spec, context.caller.projects, reuse=reuse)
    if allocation is None:
        raise refusal(context, project, spec)
    if not allocation.created:
        _refuse_other_port(allocation, spec)
    return allocation


def decided(context: Context, allocation: PortAllocation) -> PortAllocation:
    """Return the allocation, unless it is pending and the caller is a person. An agent reads that from its status.

    Raises:
        Conflict: nobody has decided about the request yet.
    """
    if allocation.status == Status.PENDING and not context.is_agent:
        raise Conflict(
            f"An agent has requested {allocation.address} for {allocation.label}, and nobody has decided yet: approve "
            "or refuse the request on the dashboard.",
            port=allocation.port_number,
        )
    return allocation


def refuse_taken_hostname(context: Context, name: str, excluding: PortAllocation | None = None) -> None:
    """Refuse a Cloudflare hostname that points at another allocation.

    A constraint would refuse it too, but this check can name the holder.

    Raises:
        HostnameTaken.
    """
    release_expired(PortAllocation.objects.filter(cloudflare_hostname=name))
    rows = PortAllocation.objects.exclude(status=Status.RELEASED).filter(cloudflare_hostname=name)
    other = rows.excluding(excluding).select_related("project").first()
    if other is not None:
        holder = holder_name(context, other)
        raise HostnameTaken(
            f"{name} already points at {holder}: remove it there first, or choose another.",
            field="cloudflare_hostname",
            holder=holder,
        )


def release_expired(rows: PortAllocationQuerySet) -> None:
    """Release the rows that have expired, so that they are not in the way."""
    rows.expired().update(status=Status.RELEASED)


# The ranges that a port may come from


def usable_ranges(
    context: Context, project: Project, range_name: str | None = None, port_number: int | None = None
) -> Sequence[PortRange]:
    """Return the ranges that a port may come from: the named one, else the project's own active ones in port order.

    Raises:
        UnknownRange, PortOutOfRange, NotPermitted.
    """
    if range_name:
        port_range = _named_range(context, project, range_name)
        if port_number is not None and not port_range.start_port <= port_number <= port_range.end_port:
            raise PortOutOfRange(
                f"Port {port_number} lies outside {range_name} ({port_range.start_port}-{port_range.end_port}).",
                field="port_number",
                port=port_number,
            )
        return [port_range]
    ranges = [r for r in project.ranges.all() if r.is_active]
    if port_number is not None:
        containing = [r for r in ranges if r.start_port <= port_number <= r.end_port]
        return containing or [range_containing(context, project, port_number)]
    if not ranges:
        raise UnknownRange(
            f"{project.name} has no active range. Add one, or name a shared range.",
            field="range_name",
            project=project.name,
        )
    return ranges


def _named_range(context: Context, project: Project, range_name: str) -> PortRange:
    validators.range_name(range_name)
    rows = PortRange.objects.visible_to(context.caller).select_related("project")
    port_range = rows.filter(range_name=range_name).first()
    if port_range is None:
        names = list(rows.values_list("range_name", flat=True))
        raise UnknownRange(
            f"There is no range {range_name}. {did_you_mean(range_name, names)}".rstrip(),
            field="range_name",
            nearest=nearest(range_name, names),
        )
    if port_range.project_id != project.pk and not port_range.is_shared:
        raise NotPermitted(
            f"Range {range_name} belongs to {port_range.project.name} and is not shared: name a range of "
            f"{project.name} or a shared one.",
            field="range_name",
        )
    if not port_range.is_active:
        raise UnknownRange(f"Range {range_name} is not active: no ports are allocated from it.", field="range_name")
    return port_range


def range_containing(context: Context, project: Project, port_number: int) -> PortRange:
    """Return the range that contains the port, if the project may use it.

    Raises:
        PortOutOfRange.
    """
    port_range = PortRange.objects.active().containing(port_number).select_related("project").first()
    if port_range and (port_range.project_id == project.pk or port_range.is_shared):
        return port_range
    own = ", ".join(f"{r.start_port}-{r.end_port}" for r in project.ranges.all() if r.is_active) or "none"
    whose = ""
    if port_range and Project.objects.visible_to(context.caller).filter(pk=port_range.project_id).exists():
        whose = f" It lies in {port_range.range_name} of {port_range.project.name}."
    raise PortOutOfRange(
        f"Port {port_number} lies outside the ranges of {project.name} ({own}).{whose} "
        "Take a port of its own ranges, or extend them.",
        field="port_number",
        port=port_number,
    )


# Refusals


def _refuse_other_port(allocation: PortAllocation, spec: AllocationSpec) -> None:
    if spec.port_number is not None and spec.port_number != allocation.port_number:
        raise AlreadyAllocated(
            f"{allocation.label} already holds {allocation.address}. Keep it, release it first, or request a new "
            f"instance on {spec.port_number}.",
            field="port_number",
            port=allocation.port_number,
        )


def refusal(context: Context, project: str, spec: AllocationSpec) -> PortError:
    """Return why no port could be held: an unknown name, a port that is taken, or ranges that are full."""
    project_row = get_project(context, project)
    ranges = usable_ranges(context, project_row, spec.range_name, spec.port_number)
    if spec.port_number is not None:
        return _port_taken(context, ranges, spec, spec.port_number)
    spans = ", ".join(f"{r.range_name} {r.start_port}-{r.end_port}" for r in ranges)
    size = sum(r.size for r in ranges)
    return RangeExhausted(
        f"{project} has no free port left on {spec.hostname}/{spec.protocol}: all {size} of {spans} are held "
        "or occupied by listeners. Release a service that is gone, name a shared range, or have an admin extend the "
        "range.",
        project=project,
        size=size,
        ranges=[r.range_name for r in ranges],
    )


def _port_taken(context: Context, ranges: Sequence[PortRange], spec: AllocationSpec, port_number: int) -> PortTaken:
    rows = PortAllocation.objects.held().at(port_number, **spec.socket).select_related("project")
    allocation = rows.first()
    holder = holder_name(context, allocation) if allocation else "another service"
    free = _free_near(ranges, spec, port_number)
    return PortTaken(
        f"{port_number}/{spec.protocol} on {spec.hostname} is held by {holder}. {_suggest(free, spec)}",
        field="port_number",
        port=port_number,
        holder=holder,
        free=free[0] if free else None,
    )


def _listener_refusal(context: Context, project: str, spec: AllocationSpec, socket: listeners.Socket) -> PortTaken:
    port_range = range_containing(context, get_project(context, project), socket.port)
    free = _free_near([port_range], spec, socket.port)
    return PortTaken(
        f"{process_name(socket.process)} listens on {socket.port}/{spec.protocol} without an allocation. If it is this "
        f"very service, adopt it on the dashboard or in the shell. Otherwise: {_suggest(free, spec)}",
        field="port_number",
        port=socket.port,
        process=socket.process,
        free=free[0] if free else None,
    )


def _free_near(ranges: Sequence[PortRange], spec: AllocationSpec, port_number: int) -> list[int]:
    """Return the free ports nearest to one that is taken, in its range."""
    port_range = next((r for r in ranges if r.start_port <= port_number <= r.end_port), ranges[0])
    span = (port_range.start_port, port_range.end_port)
    held = PortAllocation.objects.held().filter(port_range=port_range, **spec.socket)
    occupied = Listener.objects.filter(port__range=span, **spec.socket)
    taken = {*held.values_list("port_number", flat=True), *occupied.values_list("port", flat=True), port_number}
    free = (port for port in range(span[0], span[1] + 1) if port not in taken)
    return sorted(nsmallest(MOST_SUGGESTED, free, key=lambda port: abs(port - port_number)))


def _suggest(free: list[int], spec: AllocationSpec) -> str:
    """Return a sentence about the ports to take instead. A reservation always names its port."""
    is_reservation = spec.status == Status.RESERVED
    if not free:
        return "Its range is full: " + ("reserve in another." if is_reservation else "ask without naming a port.")
    ports = f"{join_and([str(port) for port in free])} {'is' if len(free) == 1 else 'are'} free nearby"
    return f"{ports}: take one." if is_reservation else f"{ports}: take one, or ask without naming a port."


def _record_listener(error: ListenerInTheWay) -> None:
    """Record an unallocated listener, so that the allocator skips its port."""
    socket = error.socket
    listener = Listener(
        hostname=error.hostname,
        protocol=socket.protocol,
        address=socket.address,
        port=socket.port,
        process=socket.process,
        pid=socket.pid,
        container=socket.container,
        cwd=socket.cwd,
    )
    with transaction.atomic():
        Listener.objects.bulk_create(
            [listener],
            update_conflicts=True,
            unique_fields=["hostname", "protocol", "port", "address"],
            update_fields=["process", "pid", "container", "cwd", "last_seen_at"],
        )
