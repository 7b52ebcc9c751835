"""Projects and their ranges of ports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import IntegerRangeField, RangeOperators
from django.contrib.postgres.functions import RandomUUID
from django.db import models
from django.db.models import Count, Exists, F, Func, Max, Min, OuterRef, Q, Subquery, Sum, Value
from django.db.models.functions import Greatest, JSONObject, Least, Now

from allocations import validators
from allocations.auth.roles import Caller

from .base import ProjectScopedQuerySet, aggregate_per_row, rows_of, version_of


@dataclass(frozen=True, slots=True)
class Usage:
    """How full a span of ports is. A port number counts once, whatever hosts and protocols hold it."""

    total: int
    held: int
    allocated: int
    reserved: int
    occupied: int = 0  # by unallocated listeners; counted by `with_occupied()` only

    @classmethod
    def from_counts(cls, total: int, counts: dict[str, int] | None, occupied: int | None) -> Usage:
        """Return the usage for the counts that `with_usage()` adds; None means an unused span."""
        return cls(total, **(counts or {"held": 0, "allocated": 0, "reserved": 0}), occupied=occupied or 0)

    @property
    def available(self) -> int:
        """Return how many ports nothing holds and, after `with_occupied()`, nothing occupies."""
        return self.total - self.held - self.occupied

    @property
    def percent(self) -> int:
        """Return how much is held, in percent of the total, rounded half up; 0 for an empty span."""
        return (200 * self.held + self.total) // (2 * self.total) if self.total else 0


@dataclass(frozen=True, slots=True)
class States:
    """How many allocations of a project are in which state, according to the last audit."""

    allocated: int = 0
    reserved: int = 0
    up: int = 0
    down: int = 0
    conflict: int = 0
    unknown: int = 0

    @property
    def unaudited(self) -> int:
        """Return how many allocations have not been audited yet."""
        return self.allocated - self.up - self.down - self.conflict - self.unknown


class Mode(models.TextChoices):
    """Who decides about the ports that agents request."""

    AUTONOMOUS = "autonomous", "autonomous"
    ASK = "ask", "ask"


def _states() -> JSONObject:
    """Count the allocations in each state, in one pass over them."""
    allocated = Q(status="allocated")
    return JSONObject(
        allocated=Count("pk", filter=allocated),
        reserved=Count("pk", filter=Q(status__in=("reserved", "pending"))),
        up=Count("pk", filter=allocated & Q(health="up")),
        down=Count("pk", filter=allocated & Q(health="down")),
        conflict=Count("pk", filter=allocated & Q(health="conflict")),
        unknown=Count("pk", filter=allocated & Q(health="unknown")),
    )


def _held_ports() -> JSONObject:
    """Count the port numbers that are held, whatever hosts and protocols they are held on."""
    port = "port_number"
    return JSONObject(
        held=Count(port, distinct=True),
        allocated=Count(port, distinct=True, filter=Q(status="allocated")),
        reserved=Count(port, distinct=True, filter=Q(status__in=("reserved", "pending"))),
    )


def _occupied_ports() -> models.QuerySet[Any]:
    """Count the ports of the outer range that nothing holds, but on which something was seen listening."""
    held = rows_of("PortAllocation").held().filter(port_number=OuterRef("port"))
    seen = rows_of("Listener").filter(port__gte=OuterRef("start_port"), port__lte=OuterRef("end_port"))
    counts = seen.filter(~Exists(held)).order_by().values(span=Value(1)).annotate(n=Count("port", distinct=True))
    return counts.values("n")  # type: ignore[no-any-return]


class ProjectQuerySet(ProjectScopedQuerySet["Project"]):
    """A queryset of projects."""

    project_lookup = "pk"

    def matching(self, text: str) -> Self:
        """Return the projects whose name contains `text`."""
        return self.filter(name__icontains=text) if text else self

    def with_usage(self) -> Self:
        """Add what `Project.usage` and `Project.states` need, in one query for any number of projects."""
        active_ranges = rows_of("PortRange").filter(is_active=True)
        held = rows_of("PortAllocation").held()
        return self.annotate(
            range_totals=aggregate_per_row(
                active_ranges,
                "project",
                JSONObject(
                    first=Min("start_port"),
                    last=Max("end_port"),
                    ranges=Count("pk"),
                    ports=Sum(F("end_port") - F("start_port") + 1),
                ),
            ),
            port_counts=aggregate_per_row(
                held.filter(port_range__is_active=True), "port_range__project", _held_ports()
            ),
            state_counts=aggregate_per_row(held, "project", _states()),
        )

    def with_occupied(self) -> Self:
        """Let `Project.usage` also count the ports that unallocated listeners occupy."""
        ranges = rows_of("PortRange").filter(is_active=True).annotate(occupied_count=Subquery(_occupied_ports()))
        return self.annotate(occupied_count=aggregate_per_row(ranges, "project", Sum("occupied_count")))


class Project(models.Model):
    """A project, which has ranges of ports and services."""

    id = models.UUIDField(primary_key=True, db_default=RandomUUID(), editable=False)
    name = models.CharField(max_length=255, unique=True, db_collation="C")
    description = models.TextField(blank=True, default="", db_default="")
    mode = models.CharField(
        "agents", max_length=20, choices=Mode, default=Mode.AUTONOMOUS, db_default=Mode.AUTONOMOUS.value
    )
    # How many ports each token may hold in the project; NULL means no limit.
    agent_quota = models.IntegerField("ports per token", null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    # Annotated by `with_usage()`.
    range_totals: dict[str, int] | None
    port_counts: dict[str, int] | None
    state_counts: dict[str, int] | None
    # Annotated by `with_occupied()`.
    occupied_count: int | None = None

    objects = ProjectQuerySet.as_manager()

    class Meta:
        db_table = "projects"
        ordering = ("name", "pk")
        constraints = (
            models.CheckConstraint(
                name="projects_name",
                condition=Q(name__regex=validators.NAME_PATTERN),
                violation_error_code="invalid_name",
                violation_error_message="Use a-z 0-9 . _ -, starting with a letter or a digit.",
            ),
            models.CheckConstraint(name="projects_mode", condition=Q(mode__in=("autonomous", "ask"))),
            models.CheckConstraint(
                name="projects_quota", condition=Q(agent_quota__isnull=True) | Q(agent_quota__gte=0)
            ),
        )

    def __str__(self) -> str:
        return self.name

    @property
    def version(self) -> str:
        """Return a fingerprint that changes with every edit."""
        return version_of(self.pk, self.name, self.description, self.mode, self.agent_quota)

    # The properties below need `with_usage()`; without it they raise AttributeError.
    @property
    def usage(self) -> Usage:
        """Return how full the project's active ranges are."""
        totals: dict[str, int] | None = self.range_totals
        return Usage.from_counts(totals["ports"] if totals else 0, self.port_counts, self.occupied_count)

    @property
    def bounds(self) -> tuple[int, int] | None:
        """Return the first and the last port of the active ranges, or None if there are none."""
        totals: dict[str, int] | None = self.range_totals
        return (totals["first"], totals["last"]) if totals else None

    @property
    def states(self) -> States:
        """Return the states of the project's services."""
        return States(**(self.state_counts or {}))


class PortRangeQuerySet(ProjectScopedQuerySet["PortRange"]):
    """A queryset of ranges."""

    def visible_to(self, caller: Caller) -> Self:
        """Return the ranges of the projects that the caller may see, and the shared ones."""
        if not caller.may_view:
            return self.none()
        if caller.projects is None:
            return self
        return self.filter(Q(project__in=caller.projects) | Q(is_shared=True))

    def active(self) -> Self:
        """Return the ranges from which ports are allocated."""
        return self.filter(is_active=True)

    def with_usage(self) -> Self:
        """Add what `PortRange.usage` needs, in one query for any number of ranges."""
        return self.annotate(
            port_counts=aggregate_per_row(rows_of("PortAllocation").held(), "port_range", _held_ports())
        )

    def with_occupied(self) -> Self:
        """Let `PortRange.usage` also count the ports that unallocated listeners occupy."""
        return self.annotate(occupied_count=Subquery(_occupied_ports()))

    def containing(self, port_number: int) -> Self:
        """Return the range that the port lies in, if there is one: ranges never overlap."""
        return self.filter(start_port__lte=port_number, end_port__gte=port_number)


class PortRange(models.Model):
    """An inclusive span of ports of one project. Other projects may take ports from a shared range by naming it."""

    id = models.UUIDField(primary_key=True, db_default=RandomUUID(), editable=False)
    # The foreign key is created in SQL, where it is immediate and has a readable name.
    project = models.ForeignKey(Project, models.DO_NOTHING, related_name="ranges", db_constraint=False)
    range_name = models.CharField("name", max_length=255, unique=True, db_collation="C")
    start_port = models.IntegerField("start port")
    end_port = models.IntegerField("end port")
    description = models.TextField(blank=True, default="", db_default="")
    is_active = models.BooleanField("active", default=True, db_default=True)
    is_shared = models.BooleanField("shared", default=False, db_default=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    span = models.GeneratedField(
        # Least and greatest, so that a reversed span reaches port_ranges_bounds, which says what is wrong.
        expression=Func(
            Least("start_port", "end_port"), Greatest("start_port", "end_port"), Value("[]"), function="int4range"
        ),
        output_field=IntegerRangeField(),
        db_persist=True,
    )

    # Annotated by `with_usage()` and `with_occupied()`.
    port_counts: dict[str, int] | None
    occupied_count: int | None = None

    objects = PortRangeQuerySet.as_manager()

    class Meta:
        db_table = "port_ranges"
        ordering = ("start_port", "pk")
        constraints = (
            models.CheckConstraint(
                name="port_ranges_name",
                condition=Q(range_name__regex=validators.NAME_PATTERN),
                violation_error_code="invalid_name",
                violation_error_message="Use a-z 0-9 . _ -, starting with a letter or a digit.",
            ),
            models.CheckConstraint(
                name="port_ranges_bounds",
                condition=Q(
                    start_port__gte=validators.FIRST_PORT,
                    end_port__lte=validators.LAST_PORT,
                    start_port__lte=F("end_port"),
                ),
                violation_error_code="port_out_of_range",
                violation_error_message="A range lies within 1 to 65535, and its start port comes first.",
            ),
            ExclusionConstraint(
                name="port_ranges_no_overlap",
                expressions=(("span", RangeOperators.OVERLAPS),),
                violation_error_code="range_overlap",
                violation_error_message="This span shares ports with another range.",
            ),
        )

    def __str__(self) -> str:
        return f"{self.range_name} {self.start_port}-{self.end_port}"

    @property
    def version(self) -> str:
        """Return a fingerprint that changes with every edit."""
        span = (self.range_name, self.start_port, self.end_port)
        return version_of(self.pk, self.project_id, *span, self.description, self.is_active, self.is_shared)

    @property
    def size(self) -> int:
        """Return how many ports the range has."""
        return self.end_port - self.start_port + 1

    @property
    def usage(self) -> Usage:
        """Return how full the range is; needs `with_usage()`."""
        return Usage.from_counts(self.size, self.port_counts, self.occupied_count)
