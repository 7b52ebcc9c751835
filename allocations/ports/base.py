"""What every operation of PortManager shares: the transaction, the retries, and finding things by name."""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable, Container, Sequence
from typing import Any, TypeVar, cast
from uuid import UUID

from django.core.exceptions import ImproperlyConfigured
from django.db import Error as DatabaseFault
from django.db import connection, transaction

from allocations import errors, sql, words
from allocations.access import Caller, Role, trusted
from allocations.models import PortAllocation, PortRange, Project, Status
from allocations.querysets import PortAllocationQuerySet

from . import refusals

F = TypeVar("F", bound=Callable[..., Any])

ATTEMPTS = 6
LONGEST_PAUSE = 0.05  # seconds, doubled with each attempt


def operation(role: Role, doing: str) -> Callable[[F], F]:
    """Make a method one operation: rights, one transaction, the actor's name, retries, refusals as PortError.

    Lost races, deadlocks and serialization failures are retried from the start with jitter; a connection that turns
    out to be dead at the very first statement, before anything was asked of it, is opened again once.

    Args:
        role: the least role that may.
        doing: what the operation does, as the refusal says it: "release ports".
    """

    def decorate(method: F) -> F:
        @functools.wraps(method)
        def run(self: Operations, *args: Any, **kwargs: Any) -> Any:
            self.caller.require(role, doing)
            inner = connection.in_atomic_block
            for attempt in range(1, ATTEMPTS + 1):
                begun = False
                try:
                    with transaction.atomic():
                        sql.name_actor(self.actor, self.source, is_agent=self.is_agent, token=self.caller.token)
                        begun = True
                        return method(self, *args, **kwargs)
                except DatabaseFault as error:
                    if not inner and attempt < ATTEMPTS and refusals.is_passing(error):
                        time.sleep(random.uniform(0, LONGEST_PAUSE * 2**attempt / 4))  # noqa: S311 jitter, no secret
                        continue
                    if not inner and attempt == 1 and not begun and refusals.is_lost(error):
                        connection.close()
                        continue
                    refusal = refusals.refusal_of(error)
                    if refusal is None:
                        raise
                    raise refusal from error
                except ImproperlyConfigured as error:  # the embedded PostgreSQL cannot be started
                    raise errors.Unavailable(f"The database cannot be reached: {error}", retry_after=5) from error
            raise AssertionError("unreachable: the last attempt returns or raises")

        return cast(F, run)

    return decorate


class Operations:
    """Who acts, by which door, and with which rights.

    Args:
        actor: whom the history names.
        source: the door: python, shell, web, admin, api, mcp, import.
        caller: whose rights apply; without one the code that runs is trusted, as the shell is.
    """

    def __init__(self, actor: str, source: str = "python", caller: Caller | None = None) -> None:
        self.actor = actor
        self.source = source
        self.caller = caller or trusted(actor)

    @property
    def is_agent(self) -> bool:
        """Whether a program asks, by a token or over MCP: projects may want a person to decide about its ports."""
        return self.caller.token is not None or self.source == "mcp"

    def visible_names(self) -> frozenset[str] | None:
        """The names of the projects that the caller is limited to; None: of none."""
        if self.caller.projects is None:
            return None
        return frozenset(Project.objects.visible_to(self.caller).values_list("name", flat=True))

    # Finding things. Everything is looked up among what the caller may see: the rest does not exist.

    def _project(self, name: str) -> Project:
        found = Project.objects.visible_to(self.caller).filter(name=words.project_name(name)).first()
        if found:
            return found
        names = list(Project.objects.visible_to(self.caller).values_list("name", flat=True))
        near = words.nearest(name, names)
        hint = f"Did you mean {words.either(near)}?" if near else "List the projects, or add it first."
        raise errors.UnknownProject(f"There is no project {name}. {hint}", field="project", project=name, nearest=near)

    def _ranges_for(self, project: Project, range_name: str | None, port: int | None) -> Sequence[PortRange]:
        """The ranges a port may come from: the named one, else the project's own active ones, in port order."""
        if range_name:
            named = self._named_range(project, range_name)
            if port is not None and not named.start_port <= port <= named.end_port:
                raise errors.PortOutOfRange(
                    f"Port {port} lies outside {named.range_name} ({named.start_port}-{named.end_port}).",
                    field="port",
                    port=port,
                )
            return [named]
        own = [r for r in project.ranges.all() if r.is_active]
        if port is not None:
            own = [r for r in own if r.start_port <= port <= r.end_port] or [self._range_around(project, port)]
        if not own:
            raise errors.UnknownRange(
                f"{project.name} has no active range. Add one, or name a shared range.",
                field="range",
                project=project.name,
            )
        return own

    def _named_range(self, project: Project, range_name: str) -> PortRange:
        words.range_name(range_name)
        usable = PortRange.objects.visible_to(self.caller).select_related("project")
        found = usable.filter(range_name=range_name).first()
        if found is None:
            near = words.nearest(range_name, list(usable.values_list("range_name", flat=True)))
            hint = f" Did you mean {words.either(near)}?" if near else ""
            raise errors.UnknownRange(f"There is no range {range_name}.{hint}", field="range", nearest=near)
        if found.project_id != project.pk and not found.is_shared:
            raise errors.NotPermitted(
                f"Range {range_name} belongs to {found.project.name} and is not shared: name a range of "
                f"{project.name} or a shared one.",
                field="range",
            )
        if not found.is_active:
            raise errors.UnknownRange(
                f"Range {range_name} is not active: no ports are given out from it.", field="range"
            )
        return found

    def _range_around(self, project: Project, port: int) -> PortRange:
        """The range that holds the port, if the project may use it."""
        around = PortRange.objects.holding(port).filter(is_active=True).select_related("project").first()
        if around and (around.project_id == project.pk or around.is_shared):
            return around
        own = ", ".join(f"{r.start_port}-{r.end_port}" for r in project.ranges.all() if r.is_active) or "none"
        whose = ""
        if around and Project.objects.visible_to(self.caller).filter(pk=around.project_id).exists():
            whose = f" It lies in {around.range_name} of {around.project.name}."
        raise errors.PortOutOfRange(
            f"Port {port} lies outside the ranges of {project.name} ({own}).{whose} "
            "Take a port of its own ranges, or extend them.",
            field="port",
            port=port,
        )

    def _allocation(self, pk: UUID) -> PortAllocation:
        found = PortAllocation.objects.visible_to(self.caller).select_related("project", "port_range").filter(pk=pk)
        allocation = found.first()
        if allocation is None:
            raise errors.UnknownAllocation("There is no such allocation.", allocation=str(pk))
        return allocation

    def _of_service(
        self, project: Project, service: str, instance: int | None, hostname: str | None, protocol: str | None
    ) -> list[PortAllocation]:
        """What a service holds, narrowed by what is given.

        Raises:
            UnknownService: nothing; with the nearest names.
        """
        words.service_name(service)
        rows = PortAllocation.objects.held().filter(project=project, service_name=service)
        narrowed: dict[str, Any] = {}
        if instance is not None:
            narrowed["instance"] = instance
        if hostname:
            narrowed["hostname"] = words.host(hostname)
        if protocol:
            narrowed["protocol"] = words.protocol(protocol)
        found = list(rows.filter(**narrowed).select_related("project", "port_range").order_by("instance", "pk"))
        if found:
            return found
        if narrowed and rows.exists():
            held = ", ".join(f"#{a.instance} {a.address}" for a in rows.order_by("instance")[:10])
            raise errors.UnknownService(
                f"{project.name}/{service} holds nothing that fits; it holds {held}.", field="service"
            )
        names = PortAllocation.objects.held().filter(project=project, service_name__isnull=False)
        near = words.nearest(service, [n for n in names.values_list("service_name", flat=True).distinct() if n])
        hint = (
            f"Did you mean {words.either(near)}?"
            if near
            else "It was never allocated one, or has released it: the history tells."
        )
        raise errors.UnknownService(
            f"{project.name}/{service} holds no port. {hint}", field="service", project=project.name, nearest=near
        )

    def _only(self, found: list[PortAllocation]) -> PortAllocation:
        """The one of `found`.

        Raises:
            Ambiguous: there are several; the sentence lists them.
        """
        if len(found) == 1:
            return found[0]
        listed = ", ".join(f"instance {a.instance}: {a.address}" for a in found)
        same = len({a.instance for a in found}) == 1
        which = (
            "say which protocol or host, in the shell, by the API or in the dashboard" if same else "say which instance"
        )
        raise errors.Ambiguous(
            f"{found[0].project.name}/{found[0].service_name} holds {len(found)} ports ({listed}): {which}.",
            field="protocol" if same else "instance",
            candidates=[{"instance": a.instance, "port": a.port_number, "hostname": a.hostname} for a in found],
        )

    @staticmethod
    def _let_go(rows: PortAllocationQuerySet) -> None:
        """Release what has expired of those, so that it stands in nobody's way."""
        rows.expired().update(status=Status.RELEASED)

    def _refuse_released(self, allocation: PortAllocation) -> None:
        if not allocation.is_held:
            raise errors.AlreadyReleased(
                f"{allocation.label} released {allocation.address} on {allocation.released_at:%Y-%m-%d %H:%M}: "
                "a released allocation never changes. Allocate a new one.",
            )

    def _refuse_stale(self, found: Project | PortRange | PortAllocation, expecting: Container[str] | None) -> None:
        """Lock the row, and refuse a caller who has seen it otherwise; None expects nothing."""
        if expecting is None:
            return
        rows = type(found)._default_manager.select_for_update(no_key=True, of=("self",))
        now = rows.filter(pk=found.pk).first()
        if now is None or now.version not in expecting:
            raise errors.Stale(
                "Somebody changed it since you looked: look again, and decide anew.",
                field="If-Match",
                version=now.version if now else None,
            )

    def _name_of_holder(self, allocation: PortAllocation) -> str:
        """Who holds a port, as far as the caller may know."""
        if self.caller.projects is not None and allocation.project_id not in self.caller.projects:
            return "another project"
        return allocation.label if allocation.service_name else f"a reservation of {allocation.project.name}"
