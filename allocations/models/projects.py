"""Projects and the ranges of ports they own."""

from __future__ import annotations

from dataclasses import dataclass

from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import IntegerRangeField, RangeOperators
from django.contrib.postgres.functions import RandomUUID
from django.db import models
from django.db.models import F, Func, Q, Value
from django.db.models.functions import Greatest, Least, Now

from allocations import words
from allocations.querysets import PortRangeQuerySet, ProjectQuerySet

from .versions import version_of


@dataclass(frozen=True, slots=True)
class Usage:
    """How full a span of ports is. Port numbers are counted once, whatever hosts and protocols hold them."""

    total: int
    held: int
    allocated: int
    reserved: int

    @classmethod
    def of(cls, total: int, facts: dict[str, int] | None) -> Usage:
        """From what `with_usage()` annotated."""
        return cls(total, **(facts or {"held": 0, "allocated": 0, "reserved": 0}))

    @property
    def available(self) -> int:
        """Ports that nothing holds: reservations are not available."""
        return self.total - self.held

    @property
    def percent(self) -> int:
        """What is held, in percent of the total, rounded half up; 0 of an empty span."""
        return (200 * self.held + self.total) // (2 * self.total) if self.total else 0


@dataclass(frozen=True, slots=True)
class States:
    """How many allocations of a project are in which state, as the last audit saw them."""

    allocated: int = 0
    reserved: int = 0
    up: int = 0
    down: int = 0
    conflict: int = 0
    unknown: int = 0

    @property
    def unaudited(self) -> int:
        """Allocated, and no audit has looked yet."""
        return self.allocated - self.up - self.down - self.conflict - self.unknown


class Mode(models.TextChoices):
    """Who decides about ports that agents ask for."""

    AUTONOMOUS = "autonomous", "autonomous"
    ASK = "ask", "ask"


class Project(models.Model):
    """Owner of ranges and services."""

    id = models.UUIDField(primary_key=True, db_default=RandomUUID(), editable=False)
    name = models.CharField(max_length=255, unique=True, db_collation="C")
    description = models.TextField(blank=True, default="", db_default="")
    mode = models.CharField(max_length=20, choices=Mode, default=Mode.AUTONOMOUS, db_default=Mode.AUTONOMOUS.value)
    # How many ports each token may hold in it; NULL: as many as there are.
    agent_quota = models.IntegerField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    range_facts: dict[str, int] | None
    port_facts: dict[str, int] | None
    state_facts: dict[str, int] | None

    objects = ProjectQuerySet.as_manager()

    class Meta:
        db_table = "projects"
        ordering = ("name", "pk")
        constraints = (
            models.CheckConstraint(
                name="projects_name",
                condition=Q(name__regex=words.NAME_PATTERN),
                violation_error_code="invalid_name",
                violation_error_message="Use a-z 0-9 . _ -, beginning with a letter or a digit.",
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
        """Changes with every edit."""
        return version_of(self.pk, self.name, self.description, self.mode, self.agent_quota)

    # The facts below are annotations of `with_usage()`; without it these raise AttributeError.
    @property
    def usage(self) -> Usage:
        """How full the project's active ranges are."""
        facts: dict[str, int] | None = self.range_facts
        return Usage.of(facts["ports"] if facts else 0, self.port_facts)

    @property
    def bounds(self) -> tuple[int, int] | None:
        """The first and last port of its active ranges, or None where it has none."""
        facts: dict[str, int] | None = self.range_facts
        return (facts["first"], facts["last"]) if facts else None

    @property
    def states(self) -> States:
        """The states of its services."""
        return States(**(self.state_facts or {}))


class PortRange(models.Model):
    """An inclusive span of ports owned by one project. A shared one also serves projects that name it."""

    id = models.UUIDField(primary_key=True, db_default=RandomUUID(), editable=False)
    # The foreign key stands in SQL (0002_guards.sql): immediate, and with a name that the database can say.
    project = models.ForeignKey(Project, models.DO_NOTHING, related_name="ranges", db_constraint=False)
    range_name = models.CharField(max_length=255, unique=True, db_collation="C")
    start_port = models.IntegerField()
    end_port = models.IntegerField()
    description = models.TextField(blank=True, default="", db_default="")
    is_active = models.BooleanField(default=True, db_default=True)
    is_shared = models.BooleanField(default=False, db_default=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    span = models.GeneratedField(
        # Least and greatest, so that an upside-down span reaches port_ranges_bounds, which says what is wrong.
        expression=Func(
            Least("start_port", "end_port"), Greatest("start_port", "end_port"), Value("[]"), function="int4range"
        ),
        output_field=IntegerRangeField(),
        db_persist=True,
    )

    port_facts: dict[str, int] | None

    objects = PortRangeQuerySet.as_manager()

    class Meta:
        db_table = "port_ranges"
        ordering = ("start_port", "pk")
        constraints = (
            models.CheckConstraint(
                name="port_ranges_name",
                condition=Q(range_name__regex=words.NAME_PATTERN),
                violation_error_code="invalid_name",
                violation_error_message="Use a-z 0-9 . _ -, beginning with a letter or a digit.",
            ),
            models.CheckConstraint(
                name="port_ranges_bounds",
                condition=Q(
                    start_port__gte=words.FIRST_PORT,
                    end_port__lte=words.LAST_PORT,
                    start_port__lte=F("end_port"),
                ),
                violation_error_code="port_out_of_range",
                violation_error_message="A range lies in 1 to 65535 and its start port comes first.",
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
        """Changes with every edit."""
        said = (self.range_name, self.start_port, self.end_port, self.description, self.is_active, self.is_shared)
        return version_of(self.pk, self.project_id, *said)

    @property
    def size(self) -> int:
        """How many ports the range has."""
        return self.end_port - self.start_port + 1

    @property
    def usage(self) -> Usage:
        """How full the range is; needs `with_usage()`."""
        return Usage.of(self.size, self.port_facts)
