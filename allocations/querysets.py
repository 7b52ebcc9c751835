"""The read vocabulary: every page, command, API and export reads by these verbs, so a number is the same everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from django.apps import apps
from django.db import models
from django.db.models import Count, Exists, F, Max, Min, OuterRef, Q, Subquery, Sum
from django.db.models.expressions import BaseExpression
from django.db.models.functions import JSONObject, Now

if TYPE_CHECKING:
    from .access import Caller
    from .models import Audit, Event, Listener, PortAllocation, PortHealthCheck, PortRange, Project, Token  # noqa: F401 (in strings)

RELEASED, RESERVED, PENDING, ALLOCATED = "released", "reserved", "pending", "allocated"
KEPT = (RESERVED, PENDING)  # held, and no service has it yet


def _rows(name: str) -> Any:
    """The rows of another model of this app: looked up by name, because models import this module."""
    return apps.get_model("allocations", name)._default_manager.all()


def _one_per(rows: models.QuerySet[Any], by: str, value: BaseExpression) -> Subquery:
    """`value` over those of `rows` whose `by` is the outer row, as a subquery: joins would multiply one another."""
    return Subquery(rows.filter(**{by: OuterRef("pk")}).order_by().values(by).annotate(n=value).values("n"))


def _states() -> JSONObject:
    """How many allocations are in which state, in one pass over them."""
    allocated = Q(status=ALLOCATED)
    return JSONObject(
        allocated=Count("pk", filter=allocated),
        reserved=Count("pk", filter=Q(status__in=KEPT)),
        up=Count("pk", filter=allocated & Q(health="up")),
        down=Count("pk", filter=allocated & Q(health="down")),
        conflict=Count("pk", filter=allocated & Q(health="conflict")),
        unknown=Count("pk", filter=allocated & Q(health="unknown")),
    )


def _held_ports() -> JSONObject:
    """How many port numbers are held, whatever hosts and protocols they are held on."""
    number = "port_number"
    return JSONObject(
        held=Count(number, distinct=True),
        allocated=Count(number, distinct=True, filter=Q(status=ALLOCATED)),
        reserved=Count(number, distinct=True, filter=Q(status__in=KEPT)),
    )


@dataclass(frozen=True, slots=True)
class Uptime:
    """What checks say. `percentage` leaves out those that could not tell; None: none could."""

    checks: int
    up: int
    percentage: float | None


class ProjectQuerySet(models.QuerySet["Project"]):
    """Projects."""

    def visible_to(self, caller: Caller) -> Self:
        """Those the caller may see."""
        if not caller.may_look:
            return self.none()
        return self if caller.projects is None else self.filter(pk__in=caller.projects)

    def named(self, text: str) -> Self:
        """Those whose name contains `text`."""
        return self.filter(name__icontains=text) if text else self

    def with_usage(self) -> Self:
        """With what `Project.usage` and `Project.states` tell, in the same query however many projects there are."""
        active = _rows("PortRange").filter(is_active=True)
        held = _rows("PortAllocation").held()
        in_own_ranges = held.filter(port_range__is_active=True)
        return self.annotate(
            range_facts=_one_per(
                active,
                "project",
                JSONObject(
                    first=Min("start_port"),
                    last=Max("end_port"),
                    ranges=Count("pk"),
                    ports=Sum(F("end_port") - F("start_port") + 1),
                ),
            ),
            port_facts=_one_per(in_own_ranges, "port_range__project", _held_ports()),
            state_facts=_one_per(held, "project", _states()),
        )


class PortRangeQuerySet(models.QuerySet["PortRange"]):
    """Ranges of ports."""

    def visible_to(self, caller: Caller) -> Self:
        """Those of the projects the caller may see, and the shared ones."""
        if not caller.may_look:
            return self.none()
        if caller.projects is None:
            return self
        return self.filter(Q(project__in=caller.projects) | Q(is_shared=True))

    def active(self) -> Self:
        """Those from which ports are given out."""
        return self.filter(is_active=True)

    def but(self, port_range: PortRange | None) -> Self:
        """All but that one."""
        return self if port_range is None else self.exclude(pk=port_range.pk)

    def with_usage(self) -> Self:
        """With what `PortRange.usage` tells, in the same query however many ranges there are."""
        return self.annotate(port_facts=_one_per(_rows("PortAllocation").held(), "port_range", _held_ports()))

    def holding(self, port: int) -> Self:
        """The range in which the port lies, if there is one: ranges never overlap."""
        return self.filter(start_port__lte=port, end_port__gte=port)


class PortAllocationQuerySet(models.QuerySet["PortAllocation"]):
    """Allocations."""

    def visible_to(self, caller: Caller) -> Self:
        """Those of the projects the caller may see."""
        if not caller.may_look:
            return self.none()
        return self if caller.projects is None else self.filter(project__in=caller.projects)

    def but(self, allocation: PortAllocation | None) -> Self:
        """All but that one."""
        return self if allocation is None else self.exclude(pk=allocation.pk)

    def held(self) -> Self:
        """Those that hold their port now: not released, and no reservation that has expired."""
        return self.exclude(status=RELEASED).exclude(status__in=KEPT, expires_at__lte=Now())

    def expired(self) -> Self:
        """Those whose time is over, and that nobody has released yet."""
        return self.filter(status__in=KEPT, expires_at__lte=Now())

    def allocated(self) -> Self:
        """Those that a service holds; an audit counts these."""
        return self.filter(status=ALLOCATED)

    def pending(self) -> Self:
        """Those that an agent asked for and nobody has decided."""
        return self.filter(status=PENDING, expires_at__gt=Now())

    def for_project(self, name: str) -> Self:
        """Those of one project, by its name."""
        return self.filter(project__name=name)

    def with_response_time(self) -> Self:
        """With `response_time_ms` of the newest check; NULL where that measured none."""
        newest = _rows("PortHealthCheck").filter(port_allocation=OuterRef("pk")).order_by("-checked_at")
        return self.annotate(response_time_ms=Subquery(newest.values("response_time_ms")[:1]))

    def at(self, port: int, hostname: str, protocol: str) -> Self:
        """Those of one port of one host."""
        return self.filter(port_number=port, hostname=hostname, protocol=protocol)

    def matching(self, text: str) -> Self:
        """Those in which a person would find `text`: service, hostname, project, description, or the port."""
        if not text:
            return self
        found = (
            Q(service_name__icontains=text)
            | Q(project__name__icontains=text)
            | Q(hostname__icontains=text)
            | Q(cloudflare_hostname__icontains=text)
            | Q(description__icontains=text)
        )
        if text.isascii() and text.isdigit() and len(text) <= 5:
            found |= Q(port_number=int(text))
        if "/" in text:  # consilio/api
            project, _, service = text.partition("/")
            found |= Q(project__name__icontains=project, service_name__icontains=service)
        return self.filter(found)


class AuditQuerySet(models.QuerySet["Audit"]):
    """Recorded audits."""

    def visible_to(self, caller: Caller) -> Self:
        """Those whose numbers are of what the caller may see: of everything, or of one of the caller's projects."""
        if not caller.may_look:
            return self.none()
        return self if caller.projects is None else self.filter(project__in=caller.projects)

    def of_everything(self) -> Self:
        """Those that left nothing out."""
        return self.filter(project=None, hostname=None)


class PortHealthCheckQuerySet(models.QuerySet["PortHealthCheck"]):
    """Checks of allocations."""

    def visible_to(self, caller: Caller) -> Self:
        """Those of allocations the caller may see."""
        if not caller.may_look:
            return self.none()
        return self if caller.projects is None else self.filter(port_allocation__project__in=caller.projects)

    def older_than(self, moment: object) -> Self:
        """Those checked before `moment`."""
        return self.filter(checked_at__lt=moment)

    def uptime(self) -> Uptime:
        """How many checks there are, and how many found the service up."""
        by_verdict = dict(self.order_by().values_list("status").annotate(n=Count("pk")))
        up, total = by_verdict.get("up", 0), sum(by_verdict.values())
        known = total - by_verdict.get("unknown", 0)
        return Uptime(checks=total, up=up, percentage=round(100 * up / known, 1) if known else None)


class ListenerQuerySet(models.QuerySet["Listener"]):
    """What was seen listening."""

    def unallocated(self) -> Self:
        """Those on a port inside an active range that no allocation covers; `range_project_name` says whose range."""
        around = _rows("PortRange").active().filter(start_port__lte=OuterRef("port"), end_port__gte=OuterRef("port"))
        covering = (
            _rows("PortAllocation")
            .held()
            .filter(port_number=OuterRef("port"), hostname=OuterRef("hostname"), protocol=OuterRef("protocol"))
        )
        return (
            self.filter(~Exists(covering))
            .annotate(
                range_project_id=Subquery(around.values("project_id")[:1]),
                range_project_name=Subquery(around.values("project__name")[:1]),
            )
            .filter(range_project_id__isnull=False)
        )

    def in_ranges_of(self, project: Project) -> Self:
        """Those of `unallocated()` that lie in ranges of the project."""
        return self.filter(range_project_id=project.pk)

    def matching(self, text: str) -> Self:
        """Those in which a person would find `text`: the process, the host, the address, or the port."""
        found = Q(process__icontains=text) | Q(hostname__icontains=text) | Q(address__icontains=text)
        if text.isascii() and text.isdigit() and len(text) <= 5:
            found |= Q(port=int(text))
        return self.filter(found)

    def visible_to(self, caller: Caller) -> Self:
        """Those of `unallocated()` that lie in ranges of projects the caller may see."""
        if not caller.may_look:
            return self.none()
        return self if caller.projects is None else self.filter(range_project_id__in=caller.projects)


class EventQuerySet(models.QuerySet["Event"]):
    """The history."""

    def visible_to(self, caller: Caller) -> Self:
        """That of the projects the caller may see."""
        if not caller.may_look:
            return self.none()
        return self if caller.projects is None else self.filter(project_id__in=caller.projects)

    def with_project_name(self) -> Self:
        """With `project_name`, what the project is called now; NULL where it is gone."""
        named = _rows("Project").filter(pk=OuterRef("project_id")).values("name")
        return self.annotate(project_name=Subquery(named[:1]))

    def of(self, subject: models.Model) -> Self:
        """That of one project, range or allocation."""
        return self.filter(subject_id=subject.pk)


class TokenQuerySet(models.QuerySet["Token"]):
    """Tokens of programs."""

    def visible_to(self, caller: Caller) -> Self:
        """One's own; an admin who is not limited sees all."""
        if caller.may_administer and caller.projects is None:
            return self
        return self.filter(user_id=caller.user, user__isnull=False) if caller.may_look else self.none()

    def of_user(self, caller: Caller) -> Self:
        """A person's own."""
        return self.filter(user_id=caller.user, user__isnull=False)
