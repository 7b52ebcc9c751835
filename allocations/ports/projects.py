"""Add, change and delete projects."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any

from allocations import validators
from allocations.auth.roles import Role
from allocations.errors import NameTaken, NotPermitted, ProjectInUse
from allocations.models import PortAllocation, Project
from allocations.validators import DEFAULT_RANGE_SIZE

from . import ranges
from .allocator import release_expired
from .operations import Context, operation
from .queries import MOST_LISTED, get_project, list_holders, refuse_stale

VALIDATORS: dict[str, Callable[[object], Any]] = {
    "description": validators.description,
    "mode": validators.mode,
    "agent_quota": lambda value: None if value is None else validators.agent_quota(value),
}


@operation(Role.ADMIN, "add projects")
def add(
    context: Context,
    name: str,
    *,
    description: str = "",
    size: int = DEFAULT_RANGE_SIZE,
    start_port: int | None = None,
    is_shared: bool = False,
    with_range: bool = True,
) -> Project:
    """Add a project, by default with a range of its own.

    Args:
        size: how many ports the range has.
        start_port: its first port; None means the lowest free block, aligned to its size, from 3000 on.
        is_shared: whether other projects may use the range by naming it.
        with_range: whether to add a range.

    Raises:
        InvalidName, NameTaken, PortOutOfRange, RangeOverlap, NotPermitted.
        RangeExhausted: no block of that size is free.
    """
    validators.project_name(name, "name")
    validators.size(size)
    if context.caller.projects is not None:
        raise NotPermitted("You are limited to some projects, so you cannot add others: ask an admin.")
    _refuse_taken_name(name)
    project = Project.objects.create(name=name, description=validators.description(description))
    if with_range:
        start = ranges.free_block(size) if start_port is None else validators.port_number(start_port, "start_port")
        ranges.create(context, project, name, start, start + size - 1, is_shared=is_shared)
    return project


@operation(Role.ADMIN, "change projects")
def update(context: Context, project: str, /, *, expected: Container[str] | None = None, **changes: Any) -> Project:
    """Rename a project or change its details. Its ranges and ports stay as they are.

    Args:
        project: its current name.
        expected: the versions that the caller may have read; None means any.
        **changes: any of name, description, mode (`autonomous`, or `ask`: a person approves the ports that agents
            request) and agent_quota (how many ports each token may hold in it; None means no limit).

    Raises:
        UnknownProject, InvalidName, InvalidValue, NameTaken, Stale, NotPermitted.
    """
    row = get_project(context, project)
    refuse_stale(row, expected)
    values: dict[str, Any] = {field: VALIDATORS[field](value) for field, value in changes.items() if field != "name"}
    if changes.get("name", project) != project:
        values["name"] = validators.project_name(changes["name"], "name")
        if context.caller.projects is not None:  # a refusal would reveal that another project has the name
            raise NotPermitted("You are limited to some projects, so you cannot rename one: ask an admin who is not.")
        _refuse_taken_name(values["name"])
    if values:
        Project.objects.filter(pk=row.pk).update(**values)
    return Project.objects.get(pk=row.pk)


@operation(Role.ADMIN, "delete projects")
def delete(context: Context, name: str, *, expected: Container[str] | None = None) -> None:
    """Delete a project with its ranges, if it holds no ports and has none in its history.

    Raises:
        UnknownProject, Stale, NotPermitted.
        ProjectInUse: it holds ports, or other projects hold ports in its ranges; the sentence lists them.
    """
    project = get_project(context, name)
    refuse_stale(project, expected)
    release_expired(PortAllocation.objects.filter(port_range__project=project))
    held = PortAllocation.objects.held()
    held = held.filter(project=project) | held.filter(port_range__project=project)
    if count := held.count():
        holders = list_holders(context, list(held.select_related("project")[:MOST_LISTED]))
        raise ProjectInUse(
            f"{name} cannot be deleted: {count} {'port is' if count == 1 else 'ports are'} held in it ({holders}). "
            "Release them first.",
            project=name,
            held=count,
        )
    project.ranges.all().delete()
    project.delete()


def _refuse_taken_name(name: str) -> None:
    """Refuse a name that is taken. A constraint would refuse it too, but this check can repeat the name."""
    if Project.objects.filter(name=name).exists():
        raise NameTaken(f"A project named {name} already exists: choose another name.", field="name")
