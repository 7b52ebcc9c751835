"""Lists and summaries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from allocations import errors, words
from allocations.access import Role
from allocations.models import PortAllocation, PortRange, Project, Status

from .base import Operations


@dataclass(frozen=True, slots=True)
class RangeSummary:
    """How full one range is."""

    range_name: str
    range_start: int
    range_end: int
    total_ports: int
    allocated_ports: int
    reserved_ports: int
    available_ports: int
    utilization_percent: int


@dataclass(frozen=True, slots=True)
class PortSummary:
    """How full a project's active ranges are. range_start and range_end are 0 where it has none."""

    project: str
    range_start: int
    range_end: int
    total_ports: int
    allocated_ports: int
    reserved_ports: int
    available_ports: int
    utilization_percent: int
    ranges: tuple[RangeSummary, ...]


class Looking(Operations):
    """list, project, held, summary."""

    def list(
        self,
        project: str | None = None,
        *,
        status: str | None = None,
        hostname: str | None = None,
        protocol: str | None = None,
        service: str | None = None,
        text: str = "",
    ) -> Any:
        """Allocations as a queryset: what is held, unless a status is named.

        Args:
            status: allocated, reserved, released, or all.
            text: what a person would search for: see `PortAllocationQuerySet.matching`.

        Raises:
            UnknownProject, InvalidValue, InvalidName, NotPermitted.
        """
        self.caller.require(Role.VIEWER, "look at ports")
        rows = PortAllocation.objects.visible_to(self.caller).select_related("project", "port_range")
        if project:
            rows = rows.filter(project=self._project(project))
        if status == "all":
            pass
        elif status:
            if status not in Status.values:
                raise errors.InvalidValue(
                    f"status {status} is unknown: use {words.either([*Status.values, 'all'])}.", field="status"
                )
            rows = (rows if status == Status.RELEASED else rows.held()).filter(status=status)
        else:
            rows = rows.held()
        if hostname:
            rows = rows.filter(hostname=words.host(hostname))
        if protocol:
            rows = rows.filter(protocol=words.protocol(protocol))
        if service:
            rows = rows.filter(service_name=words.service_name(service))
        return rows.matching(words.text(text, "search").strip())

    def project(self, name: str) -> Project:
        """A project by its name.

        Raises:
            UnknownProject: with the nearest names; InvalidName, NotPermitted.
        """
        self.caller.require(Role.VIEWER, "look at projects")
        return self._project(name)

    def held(self, pk: UUID) -> PortAllocation:
        """One that is held, by its id.

        Raises:
            UnknownAllocation, AlreadyReleased, NotPermitted.
        """
        self.caller.require(Role.VIEWER, "look at ports")
        found = self._allocation(pk)
        self._refuse_released(found)
        return found

    def summary(self, project: str) -> PortSummary:
        """How full the project's ranges are.

        Raises:
            UnknownProject, NotPermitted.
        """
        self.caller.require(Role.VIEWER, "look at ports")
        found = self._project(project)
        ranges = tuple(
            RangeSummary(
                range_name=r.range_name,
                range_start=r.start_port,
                range_end=r.end_port,
                total_ports=r.size,
                allocated_ports=r.usage.allocated,
                reserved_ports=r.usage.reserved,
                available_ports=r.usage.available,
                utilization_percent=r.usage.percent,
            )
            for r in PortRange.objects.active().filter(project=found).with_usage()
        )
        total = sum(r.total_ports for r in ranges)
        available = sum(r.available_ports for r in ranges)
        held = total - available
        return PortSummary(
            project=found.name,
            range_start=min((r.range_start for r in ranges), default=0),
            range_end=max((r.range_end for r in ranges), default=0),
            total_ports=total,
            allocated_ports=sum(r.allocated_ports for r in ranges),
            reserved_ports=sum(r.reserved_ports for r in ranges),
            available_ports=available,
            utilization_percent=(200 * held + total) // (2 * total) if total else 0,
            ranges=ranges,
        )
