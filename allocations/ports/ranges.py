"""Add, change and delete ranges of ports."""

from __future__ import annotations

from collections.abc import Container
from typing import Any
from uuid import UUID

from allocations import sql, validators
from allocations.auth.roles import Role
from allocations.errors import NameTaken, NotPermitted, RangeExhausted, RangeInUse, RangeOverlap, UnknownRange
from allocations.models import PortAllocation, PortRange, Project

from .allocator import release_expired
from .operations import Context, operation
from .queries import MOST_LISTED, get_project, list_holders, refuse_stale


def get(context: Context, pk: UUID) -> PortRange:
    """Return a range by its id.

    Raises:
        UnknownRange, NotPermitted.
    """
    context.caller.require(Role.VIEWER, "look at ranges")
    port_range = PortRange.objects.visible_to(context.caller).select_related("project").filter(pk=pk).first()
    if port_range is None:
        raise UnknownRange("There is no such range.", range=str(pk))
    return port_range


@operation(Role.ADMIN, "add ranges")
def add(
    context: Context,
    project: str,
    range_name: str,
    start_port: int,
    end_port: int,
    *,
    description: str = "",
    is_shared: bool = False,
    is_active: bool = True,
) -> PortRange:
    """Add a range to a project: the ports from the start port to the end port.

    Raises:
        UnknownProject, InvalidName, NameTaken, PortOutOfRange, NotPermitted.
        RangeOverlap: it shares ports with another range; the sentence names it.
    """
    return create(
        context,
        get_project(context, project),
        range_name,
        start_port,
        end_port,
        description=description,
        is_shared=is_shared,
        is_active=is_active,
    )


@operation(Role.ADMIN, "change ranges")
def update(
    context: Context,
    pk: UUID,
    *,
    project: str | None = None,
    range_name: str | None = None,
    start_port: int | None = None,
    end_port: int | None = None,
    description: str | None = None,
    is_shared: bool | None = None,
    is_active: bool | None = None,
    expected: Container[str] | None = None,
) -> PortRange:
    """Change a range. An argument that is None leaves its value as it is.

    Raises:
        UnknownRange, UnknownProject, InvalidName, NameTaken, PortOutOfRange, NotPermitted.
        RangeOverlap: it would share ports with another range; the sentence names it.
        RangeInUse: held ports would lie outside the range, or other projects would hold ports in a range that is no
            longer shared; the sentence lists them.
    """
    port_range = _get_own(context, pk)
    refuse_stale(port_range, expected)
    release_expired(PortAllocation.objects.filter(port_range=port_range))
    start, end = validators.port_span(
        port_range.start_port if start_port is None else start_port,
        port_range.end_port if end_port is None else end_port,
    )
    values: dict[str, Any] = {"start_port": start, "end_port": end}
    if range_name is not None:
        values["range_name"] = validators.range_name(range_name)
        _refuse_taken_name(range_name, excluding=port_range)
    if description is not None:
        values["description"] = validators.description(description)
    if is_shared is not None:
        values["is_shared"] = is_shared
    if is_active is not None:
        values["is_active"] = is_active
    if project is not None:
        values["project"] = get_project(context, project)
    _refuse_overlap(context, start, end, excluding=port_range)
    new_project, shared = values.get("project", port_range.project), values.get("is_shared", port_range.is_shared)
    _refuse_stranding(context, port_range, start, end, new_project, is_shared=shared)
    PortRange.objects.filter(pk=port_range.pk).update(**values)
    return _get_own(context, pk)


@operation(Role.ADMIN, "delete ranges")
def delete(context: Context, pk: UUID, *, expected: Container[str] | None = None) -> None:
    """Delete a range that has no ports, neither held nor in the history.

    Raises:
        UnknownRange, Stale, NotPermitted.
        RangeInUse: the sentence lists what is held.
    """
    port_range = _get_own(context, pk)
    refuse_stale(port_range, expected)
    held = PortAllocation.objects.held().filter(port_range=port_range).select_related("project")
    if count := held.count():
        raise RangeInUse(
            f"{port_range.range_name} cannot be deleted: {count} of its ports {'is' if count == 1 else 'are'} held "
            f"({list_holders(context, list(held[:MOST_LISTED]))}). Release them first, or deactivate the range.",
            held=count,
        )
    port_range.delete()


def create(
    context: Context,
    project: Project,
    range_name: str,
    start_port: int,
    end_port: int,
    *,
    description: str = "",
    is_shared: bool = False,
    is_active: bool = True,
) -> PortRange:
    """Create a range. Call this inside an operation. The errors are those of `add()`."""
    validators.range_name(range_name)
    start, end = validators.port_span(start_port, end_port)
    _refuse_taken_name(range_name)
    _refuse_overlap(context, start, end)
    return PortRange.objects.create(
        project=project,
        range_name=range_name,
        start_port=start,
        end_port=end,
        description=validators.description(description),
        is_shared=is_shared,
        is_active=is_active,
    )


def free_block(size: int) -> int:
    """Return the start port of the lowest free block of that size.

    Raises:
        RangeExhausted: there is none.
    """
    start = sql.next_free_block(size)
    if start is None:
        raise RangeExhausted(
            f"There is no free block of {size} ports from 3000 on: ask for a smaller one, or name its start port.",
            field="size",
            size=size,
        )
    return start


def _get_own(context: Context, pk: UUID) -> PortRange:
    """Return a range that the caller may change, which a shared range of another project is not."""
    port_range = get(context, pk)
    if not context.caller.sees_project(port_range.project_id):
        raise NotPermitted(f"{port_range.range_name} belongs to another project: you cannot change it.")
    return port_range


# Constraints would refuse these changes too, but these checks can say more.


def _refuse_taken_name(range_name: str, excluding: PortRange | None = None) -> None:
    if PortRange.objects.filter(range_name=range_name).excluding(excluding).exists():
        raise NameTaken(f"A range named {range_name} already exists: choose another name.", field="range_name")


def _refuse_overlap(context: Context, start: int, end: int, excluding: PortRange | None = None) -> None:
    rows = PortRange.objects.filter(start_port__lte=end, end_port__gte=start).excluding(excluding)
    other = rows.select_related("project").first()
    if other is None:
        return
    overlap = (max(start, other.start_port), min(end, other.end_port))
    name = f"{other.range_name} ({other.start_port}-{other.end_port}) of {other.project.name}"
    if not context.caller.sees_project(other.project_id):
        name = "another range"
    block = sql.next_free_block(end - start + 1)
    hint = f" {block}-{block + end - start} is free." if block is not None else ""
    raise RangeOverlap(
        f"{start}-{end} overlaps {name} in {overlap[0]}-{overlap[1]}.{hint}",
        field="start_port",
        overlap=list(overlap),
    )


def _refuse_stranding(
    context: Context, port_range: PortRange, start: int, end: int, project: Project, *, is_shared: bool
) -> None:
    """Refuse a change after which held ports would lie outside the range, or in one that their project may not use."""
    held = PortAllocation.objects.held().filter(port_range=port_range).select_related("project")
    outside = list(held.exclude(port_number__range=(start, end))[:MOST_LISTED])
    if outside:
        raise RangeInUse(
            f"{port_range.range_name} cannot become {start}-{end}: {list_holders(context, outside)} would lie outside. "
            "Release them first, or keep them inside.",
            field="start_port",
            ports=[a.port_number for a in outside],
        )
    foreign = [] if is_shared else list(held.exclude(project=project)[:MOST_LISTED])
    if foreign:
        is_moved = project != port_range.project
        change = f"become {project.name}'s alone" if is_moved else "stop being shared"
        raise RangeInUse(
            f"{port_range.range_name} cannot {change}: {list_holders(context, foreign)} are held in it. Release them "
            "first.",
            field="project" if is_moved else "is_shared",
            ports=[a.port_number for a in foreign],
        )
