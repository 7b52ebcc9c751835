"""Projects and their ranges."""

from __future__ import annotations

from collections.abc import Container
from typing import Any, Literal
from uuid import UUID

from allocations import errors, sql, words
from allocations.access import Role
from allocations.models import PortAllocation, PortRange, Project

from .base import Operations, operation

MOST_LISTED = 10


class Owning(Operations):
    """add_project, update_project, delete_project, add_range, update_range, delete_range."""

    @operation(Role.ADMIN, "add projects")
    def add_project(
        self,
        name: str,
        *,
        description: str = "",
        size: int = words.DEFAULT_RANGE_SIZE,
        start: int | None = None,
        shared: bool = False,
        with_range: bool = True,
    ) -> Project:
        """A new project with a range of its own.

        Args:
            size: how many ports the range has.
            start: its first port; None finds the lowest free block, aligned to its size, from 3000 on.
            shared: whether other projects may name the range.
            with_range: False for a project without a range.

        Raises:
            InvalidName, NameTaken, PortOutOfRange, RangeOverlap, NotPermitted.
            RangeExhausted: no block of that size is free.
        """
        words.project_name(name)
        words.size(size)
        if self.caller.projects is not None:
            raise errors.NotPermitted("You are limited to some projects, and may not add others: ask an admin.")
        self._refuse_taken_name(name)
        project = Project.objects.create(name=name, description=words.text(description, "description"))
        if with_range:
            first = self._free_block(size) if start is None else words.port(start, "start port")
            self._create_range(project, name, first, first + size - 1, shared=shared)
        return project

    @operation(Role.ADMIN, "change projects")
    def update_project(
        self,
        name: str,
        *,
        new_name: str | None = None,
        description: str | None = None,
        mode: str | None = None,
        agent_quota: int | Literal["keep"] | None = "keep",
        expecting: Container[str] | None = None,
    ) -> Project:
        """Rename a project or change what it says; its ranges and ports stay as they are.

        Args:
            mode: `autonomous`, or `ask`: a person approves the ports that agents ask for.
            agent_quota: how many ports each token may hold in it; None: as many as there are.
            expecting: the versions in which the caller may have seen it; None: any.
        """
        project = self._project(name)
        self._refuse_stale(project, expecting)
        changes: dict[str, Any] = {}
        if new_name is not None and new_name != name:
            changes["name"] = words.project_name(new_name)
            self._refuse_taken_name(new_name)
        if description is not None:
            changes["description"] = words.text(description, "description")
        if mode is not None:
            changes["mode"] = words.mode(mode)
        if agent_quota != "keep":
            changes["agent_quota"] = None if agent_quota is None else words.quota(agent_quota)
        if changes:
            Project.objects.filter(pk=project.pk).update(**changes)
        return Project.objects.get(pk=project.pk)

    @operation(Role.ADMIN, "delete projects")
    def delete_project(self, name: str, *, expecting: Container[str] | None = None) -> None:
        """Delete a project that holds no ports and has none in its history, with its ranges.

        Raises:
            ProjectInUse: it has ports, or others have some in its ranges; the sentence lists them.
        """
        project = self._project(name)
        self._refuse_stale(project, expecting)
        self._let_go(PortAllocation.objects.filter(port_range__project=project))
        held = PortAllocation.objects.held().filter(project=project) | PortAllocation.objects.held().filter(
            port_range__project=project
        )
        if count := held.count():
            listed = self._listed(list(held.select_related("project")[:MOST_LISTED]))
            raise errors.ProjectInUse(
                f"{name} cannot be deleted: {count} {'port is' if count == 1 else 'ports are'} held in it ({listed}). "
                "Release them first.",
                project=name,
                held=count,
            )
        project.ranges.all().delete()
        project.delete()

    @operation(Role.ADMIN, "add ranges")
    def add_range(
        self,
        project: str,
        range_name: str,
        start: int,
        end: int,
        *,
        description: str = "",
        shared: bool = False,
        active: bool = True,
    ) -> PortRange:
        """A further range of a project: the ports from start to end.

        Raises:
            UnknownProject, InvalidName, NameTaken, PortOutOfRange, NotPermitted.
            RangeOverlap: it shares ports with another range; the sentence names it.
        """
        return self._create_range(
            self._project(project), range_name, start, end, description=description, shared=shared, active=active
        )

    @operation(Role.ADMIN, "change ranges")
    def update_range(
        self,
        pk: UUID,
        *,
        range_name: str | None = None,
        start: int | None = None,
        end: int | None = None,
        description: str | None = None,
        shared: bool | None = None,
        active: bool | None = None,
        project: str | None = None,
        expecting: Container[str] | None = None,
    ) -> PortRange:
        """Change a range; what is None stays.

        Raises:
            UnknownRange, UnknownProject, InvalidName, NameTaken, PortOutOfRange, NotPermitted.
            RangeOverlap: it would share ports with another range; the sentence names it.
            RangeInUse: held ports would lie outside, or others' ports in a range that is not shared any more; the
                sentence lists them.
        """
        found = self._range(pk)
        self._refuse_stale(found, expecting)
        self._let_go(PortAllocation.objects.filter(port_range=found))
        first, last = words.span(found.start_port if start is None else start, found.end_port if end is None else end)
        changes: dict[str, Any] = {"start_port": first, "end_port": last}
        if range_name is not None:
            changes["range_name"] = words.range_name(range_name)
            self._refuse_taken_range_name(range_name, but=found)
        if description is not None:
            changes["description"] = words.text(description, "description")
        if shared is not None:
            changes["is_shared"] = shared
        if active is not None:
            changes["is_active"] = active
        if project is not None:
            changes["project"] = self._project(project)
        self._refuse_overlap(first, last, but=found)
        self._refuse_stranding(
            found, first, last, changes.get("project", found.project), changes.get("is_shared", found.is_shared)
        )
        PortRange.objects.filter(pk=found.pk).update(**changes)
        return self._range(pk)

    @operation(Role.ADMIN, "delete ranges")
    def delete_range(self, pk: UUID, *, expecting: Container[str] | None = None) -> None:
        """Delete a range in which no port is held nor in the history.

        Raises:
            UnknownRange, NotPermitted.
            RangeInUse: the sentence lists what is held.
        """
        found = self._range(pk)
        self._refuse_stale(found, expecting)
        held = PortAllocation.objects.held().filter(port_range=found).select_related("project")
        if count := held.count():
            raise errors.RangeInUse(
                f"{found.range_name} cannot be deleted: {count} of its ports {'is' if count == 1 else 'are'} held "
                f"({self._listed(list(held[:MOST_LISTED]))}). Release them first, or deactivate the range.",
                held=count,
            )
        found.delete()

    # How it is done

    def _range(self, pk: UUID) -> PortRange:
        found = PortRange.objects.visible_to(self.caller).select_related("project").filter(pk=pk).first()
        if found is not None and self.caller.projects is not None and found.project_id not in self.caller.projects:
            raise errors.NotPermitted(f"{found.range_name} is another project's: it is not yours to change.")
        if found is None:
            raise errors.UnknownRange("There is no such range.", range=str(pk))
        return found

    def _create_range(
        self,
        project: Project,
        range_name: str,
        start: int,
        end: int,
        *,
        description: str = "",
        shared: bool = False,
        active: bool = True,
    ) -> PortRange:
        words.range_name(range_name)
        first, last = words.span(start, end)
        self._refuse_taken_range_name(range_name)
        self._refuse_overlap(first, last)
        return PortRange.objects.create(
            project=project,
            range_name=range_name,
            start_port=first,
            end_port=last,
            description=words.text(description, "description"),
            is_shared=shared,
            is_active=active,
        )

    def _free_block(self, size: int) -> int:
        first = sql.next_free_block(size)
        if first is None:
            raise errors.RangeExhausted(
                f"There is no free block of {size} ports from 3000 on: ask for a smaller one, or name its start.",
                field="size",
                size=size,
            )
        return first

    # The constraints have the last word; these looks before the leap only know more to say.

    def _refuse_taken_name(self, name: str) -> None:
        if Project.objects.filter(name=name).exists():
            raise errors.NameTaken(f"A project named {name} exists: choose another name.", field="project")

    def _refuse_taken_range_name(self, name: str, but: PortRange | None = None) -> None:
        if PortRange.objects.filter(range_name=name).but(but).exists():
            raise errors.NameTaken(f"A range named {name} exists: choose another name.", field="range")

    def _refuse_overlap(self, first: int, last: int, but: PortRange | None = None) -> None:
        other = (
            PortRange.objects.filter(start_port__lte=last, end_port__gte=first)
            .but(but)
            .select_related("project")
            .first()
        )
        if other is None:
            return
        shared = (max(first, other.start_port), min(last, other.end_port))
        visible = self.caller.projects is None or other.project_id in self.caller.projects
        whose = f"{other.range_name} ({other.start_port}-{other.end_port}) of {other.project.name}"
        block = sql.next_free_block(last - first + 1)
        hint = f" {block}-{block + last - first} is free." if block is not None else ""
        raise errors.RangeOverlap(
            f"{first}-{last} overlaps {whose if visible else 'another range'} in {shared[0]}-{shared[1]}.{hint}",
            field="start port",
            overlap=list(shared),
        )

    def _refuse_stranding(self, found: PortRange, first: int, last: int, owner: Project, shared: bool) -> None:
        held = PortAllocation.objects.held().filter(port_range=found).select_related("project")
        outside = list(held.exclude(port_number__range=(first, last))[:MOST_LISTED])
        if outside:
            raise errors.RangeInUse(
                f"{found.range_name} cannot become {first}-{last}: {self._listed(outside)} would lie outside. "
                "Release them first, or keep them inside.",
                field="start port",
                ports=[a.port_number for a in outside],
            )
        strangers = [] if shared else list(held.exclude(project=owner)[:MOST_LISTED])
        if strangers:
            moves = owner != found.project
            wanted = f"become {owner.name}'s alone" if moves else "stop being shared"
            raise errors.RangeInUse(
                f"{found.range_name} cannot {wanted}: {self._listed(strangers)} are held in it. Release them first.",
                field="project" if moves else "shared",
                ports=[a.port_number for a in strangers],
            )

    def _listed(self, held: list[PortAllocation]) -> str:
        return ", ".join(f"{a.port_number}/{a.protocol} ({self._name_of_holder(a)})" for a in held)
