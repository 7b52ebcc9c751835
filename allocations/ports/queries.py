"""Look things up by name or id, list allocations, and summarize projects.

Only what the caller may see can be looked up: for them, the rest does not exist.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import QuerySet

from allocations import validators
from allocations.auth.roles import Role
from allocations.errors import (
    AlreadyReleased,
    Ambiguous,
    InvalidValue,
    Stale,
    UnknownAllocation,
    UnknownProject,
    UnknownService,
)
from allocations.models import PortAllocation, PortRange, Project, Status
from allocations.text import did_you_mean_one_of, join_or, nearest

from .operations import Context

MOST_LISTED = 10
MOST_COMPARED = 1000  # names


@dataclass(frozen=True, slots=True)
class RangeSummary:
    """How full one range is."""

    range_name: str
    range_start: int
    range_end: int
    total_ports: int
    held_ports: int
    allocated_ports: int
    reserved_ports: int
    available_ports: int
    utilization_percent: int


@dataclass(frozen=True, slots=True)
class PortSummary:
    """How full the active ranges of a project are. `range_start` and `range_end` are 0 if it has none."""

    project: str
    range_start: int
    range_end: int
    total_ports: int
    allocated_ports: int
    reserved_ports: int
    available_ports: int
    utilization_percent: int
    ranges: tuple[RangeSummary, ...]


# Lists and summaries


def list_allocations(
    context: Context,
    project: str | None = None,
    *,
    status: str | None = None,
    hostname: str | None = None,
    protocol: str | None = None,
    service_name: str | None = None,
    text: str = "",
) -> Any:
    """Return allocations as a queryset: those that are held, unless a status is given. A reserved block is one row.

    Args:
        status: allocated, reserved, pending, released, or all.
        text: what to search for: see `PortAllocationQuerySet.matching`.

    Raises:
        UnknownProject, InvalidValue, InvalidName, NotPermitted.
    """
    context.caller.require(Role.VIEWER, "look at ports")
    rows = PortAllocation.objects.visible_to(context.caller).blocks()
    rows = rows.select_related("project", "port_range", "reservation")
    if project:
        rows = rows.filter(project=get_project(context, project))
    if status and status != "all":
        if status not in Status.values:
            raise InvalidValue(f"Status {status} is unknown: use {join_or([*Status.values, 'all'])}.", field="status")
        rows = (rows if status == Status.RELEASED else rows.held()).filter(status=status)
    elif not status:
        rows = rows.held()
    if hostname:
        rows = rows.filter(hostname=validators.hostname(hostname))
    if protocol:
        rows = rows.filter(protocol=validators.protocol(protocol))
    if service_name:
        rows = rows.filter(service_name=validators.service_name(service_name))
    return rows.matching(validators.text(text, "search").strip())


def summary(context: Context, project: str) -> PortSummary:
    """Return how full the ranges of a project are.

    Raises:
        UnknownProject, NotPermitted.
    """
    row = get_project(context, project)
    ranges = tuple(
        RangeSummary(
            range_name=r.range_name,
            range_start=r.start_port,
            range_end=r.end_port,
            total_ports=r.size,
            held_ports=r.usage.held,
            allocated_ports=r.usage.allocated,
            reserved_ports=r.usage.reserved,
            available_ports=r.usage.available,
            utilization_percent=r.usage.percent,
        )
        for r in PortRange.objects.active().filter(project=row).with_usage().with_occupied()
    )
    total = sum(r.total_ports for r in ranges)
    available = sum(r.available_ports for r in ranges)
    held = sum(r.held_ports for r in ranges)
    return PortSummary(
        project=row.name,
        range_start=min((r.range_start for r in ranges), default=0),
        range_end=max((r.range_end for r in ranges), default=0),
        total_ports=total,
        allocated_ports=sum(r.allocated_ports for r in ranges),
        reserved_ports=sum(r.reserved_ports for r in ranges),
        available_ports=available,
        utilization_percent=(200 * held + total) // (2 * total) if total else 0,
        ranges=ranges,
    )


def visible_project_names(context: Context) -> frozenset[str] | None:
    """Return the names of the projects that the caller is limited to, or None if there is no limit."""
    if context.caller.projects is None:
        return None
    return frozenset(Project.objects.visible_to(context.caller).values_list("name", flat=True))


# Single objects, by name or id


def get_project(context: Context, name: str) -> Project:
    """Return a project by its name.

    Raises:
        UnknownProject: there is none; the details list similar names.
        InvalidName, NotPermitted.
    """
    context.caller.require(Role.VIEWER, "look at projects")
    projects = Project.objects.visible_to(context.caller)
    project = projects.filter(name=validators.project_name(name)).first()
    if project is not None:
        return project
    near = _nearest(name, projects, "name")
    hint = did_you_mean_one_of(near) or "List the projects, or add it first."
    raise UnknownProject(f"There is no project {name}. {hint}", field="project", project=name, nearest=near)


def _nearest(name: str, rows: QuerySet[Any], column: str) -> list[str]:
    """Return up to three names that resemble `name`.

    Comparing takes 10 µs for each name. If there are many, only those that sort next to it are compared, and a mistake
    in the first letters is not recognized.
    """
    names = rows.order_by(column).values_list(column, flat=True).distinct()
    some = list(names[: MOST_COMPARED + 1])
    if len(some) > MOST_COMPARED:
        above = names.filter(**{f"{column}__gt": name})[: MOST_COMPARED // 2]
        below = names.order_by(f"-{column}").filter(**{f"{column}__lt": name})[: MOST_COMPARED // 2]
        some = [*above, *below]
    return nearest(name, some)


def get_allocation(context: Context, pk: UUID) -> PortAllocation:
    """Return an allocation by its id, held or released.

    Raises:
        UnknownAllocation, NotPermitted.
    """
    context.caller.require(Role.VIEWER, "look at ports")
    rows = PortAllocation.objects.visible_to(context.caller).select_related("project", "port_range", "reservation")
    allocation = rows.filter(pk=pk).first()
    if allocation is None:
        raise UnknownAllocation("There is no such allocation.", allocation=str(pk))
    return allocation


def get_held(context: Context, pk: UUID) -> PortAllocation:
    """Return an allocation by its id if it has not been released.

    Raises:
        UnknownAllocation, AlreadyReleased, NotPermitted.
    """
    allocation = get_allocation(context, pk)
    refuse_released(allocation)
    return allocation


def get_service_allocations(
    context: Context,
    project: Project,
    service_name: str,
    instance: int | None = None,
    hostname: str | None = None,
    protocol: str | None = None,
) -> list[PortAllocation]:
    """Return what a service holds, narrowed by the arguments that are given.

    Raises:
        UnknownService: it holds nothing that matches; the sentence says what it holds, or suggests similar names.
    """
    validators.service_name(service_name)
    rows = PortAllocation.objects.held().filter(project=project, service_name=service_name)
    filters: dict[str, Any] = {}
    if instance is not None:
        filters["instance"] = instance
    if hostname:
        filters["hostname"] = validators.hostname(hostname)
    if protocol:
        filters["protocol"] = validators.protocol(protocol)
    allocations = list(rows.filter(**filters).select_related("project", "port_range").order_by("instance", "pk"))
    if allocations:
        return allocations
    if filters and rows.exists():
        held = ", ".join(f"#{a.instance} {a.address}" for a in rows.order_by("instance")[:MOST_LISTED])
        raise UnknownService(
            f"{project.name}/{service_name} holds no port that matches. It holds {held}.", field="service_name"
        )
    services = PortAllocation.objects.held().filter(project=project, service_name__isnull=False)
    near = _nearest(service_name, services, "service_name")
    hint = did_you_mean_one_of(near) or "It never had one, or has released it: see the history."
    raise UnknownService(
        f"{project.name}/{service_name} holds no port. {hint}",
        field="service_name",
        project=project.name,
        nearest=near,
    )


def only_one(allocations: Sequence[PortAllocation]) -> PortAllocation:
    """Return the only allocation in a list of a service's allocations.

    Raises:
        Ambiguous: there are several; the sentence lists them.
    """
    if len(allocations) == 1:
        return allocations[0]
    held = ", ".join(f"instance {a.instance}: {a.address}" for a in allocations)
    has_one_instance = len({a.instance for a in allocations}) == 1
    hint = (
        "name the protocol or the host, in the shell, in the API or on the dashboard"
        if has_one_instance
        else "name the instance"
    )
    first = allocations[0]
    raise Ambiguous(
        f"{first.project.name}/{first.service_name} holds {len(allocations)} ports ({held}): {hint}.",
        field="protocol" if has_one_instance else "instance",
        candidates=[{"instance": a.instance, "port": a.port_number, "hostname": a.hostname} for a in allocations],
    )


def holder_name(context: Context, allocation: PortAllocation) -> str:
    """Return who holds a port, as far as the caller may know."""
    if not context.caller.sees_project(allocation.project_id):
        return "another project"
    return allocation.label if allocation.service_name else f"a reservation of {allocation.project.name}"


def list_holders(context: Context, allocations: Sequence[PortAllocation]) -> str:
    """Return the ports with their holders, separated by commas."""
    return ", ".join(f"{a.port_number}/{a.protocol} ({holder_name(context, a)})" for a in allocations)


# Checks before a change


def refuse_released(allocation: PortAllocation) -> None:
    """Refuse to change an allocation that has been released.

    Raises:
        AlreadyReleased.
    """
    if not allocation.is_held:
        raise AlreadyReleased(
            f"{allocation.label} released {allocation.address} on {allocation.released_at:%Y-%m-%d %H:%M}, and a "
            "released allocation never changes. Allocate a new one.",
        )


def refuse_stale(row: Project | PortRange | PortAllocation, expected: Container[str] | None) -> None:
    """Lock a row, and refuse a caller who has read another version of it.

    Args:
        expected: the versions that the caller may have read; None means any.

    Raises:
        Stale: somebody has changed the row in the meantime.
    """
    if expected is None:
        return
    rows = type(row)._default_manager.select_for_update(no_key=True, of=("self",))
    current = rows.filter(pk=row.pk).first()
    if current is None or current.version not in expected:
        raise Stale(
            "Somebody has changed it since you read it: read it again, then decide.",
            field="If-Match",
            version=current.version if current else None,
        )
