"""What audits observe: listeners and checks. Observations never change an allocation's status."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self
from uuid import UUID

from django.contrib.postgres.functions import RandomUUID
from django.db import models
from django.db.models import Count, Exists, OuterRef, Q, Subquery
from django.db.models.functions import Now

from .base import ProjectScopedQuerySet, parse_port, rows_of
from .projects import Project


class Health(models.TextChoices):
    """The verdict of a check."""

    UP = "up"
    DOWN = "down"
    CONFLICT = "conflict"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Uptime:
    """How often checks found a service up.

    `percentage` leaves out the checks whose verdict is unknown; it is None if there are no others.
    """

    checks: int
    up: int
    percentage: float | None


class AuditQuerySet(ProjectScopedQuerySet["Audit"]):
    """A queryset of recorded audits. A limited caller sees those that covered only one of their projects."""

    def of_everything(self) -> Self:
        """Return the audits that covered every project and host."""
        return self.filter(project=None, hostname=None)


class Audit(models.Model):
    """One recorded comparison of allocations and listeners."""

    id = models.UUIDField(primary_key=True, db_default=RandomUUID(), editable=False)
    started_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(db_default=Now())
    actor = models.CharField(max_length=255, db_default="")
    source = models.CharField(max_length=50, db_default="")
    # What the audit was limited to; NULL means no limit.
    project = models.ForeignKey(Project, models.CASCADE, null=True, related_name="audits")
    hostname = models.CharField(max_length=255, null=True)
    allocated = models.IntegerField(db_default=0)
    in_use = models.IntegerField(db_default=0)
    not_running = models.IntegerField(db_default=0)
    conflicts = models.IntegerField(db_default=0)
    unknown = models.IntegerField(db_default=0)
    unallocated = models.IntegerField(db_default=0)

    objects = AuditQuerySet.as_manager()

    class Meta:
        db_table = "audits"
        ordering = ("-finished_at", "pk")
        indexes = (models.Index(fields=("-finished_at",), name="audits_newest_first"),)

    def __str__(self) -> str:
        return f"audit of {self.finished_at:%Y-%m-%d %H:%M:%S}"


class PortHealthCheckQuerySet(ProjectScopedQuerySet["PortHealthCheck"]):
    """A queryset of checks."""

    project_lookup = "port_allocation__project"

    def uptime(self) -> Uptime:
        """Return how many checks there are, and how many of them found the service up."""
        counts = dict(self.order_by().values_list("status").annotate(n=Count("pk")))
        up, total = counts.get("up", 0), sum(counts.values())
        decided = total - counts.get("unknown", 0)
        return Uptime(checks=total, up=up, percentage=round(100 * up / decided, 1) if decided else None)


class PortHealthCheck(models.Model):
    """One check of one allocation by one audit, with its evidence."""

    id = models.UUIDField(primary_key=True, db_default=RandomUUID(), editable=False)
    port_allocation = models.ForeignKey("PortAllocation", models.CASCADE, related_name="checks")
    audit = models.ForeignKey(Audit, models.CASCADE, null=True, related_name="checks")
    # The method: `kernel` on this host, `connect` on another.
    check_type = models.CharField(max_length=50)
    status = models.CharField(max_length=50, choices=Health)
    response_time_ms = models.IntegerField(null=True)
    checked_at = models.DateTimeField(db_default=Now())
    # Why the verdict is what it is: reason, process, pid, address.
    evidence = models.JSONField(db_default={})

    objects = PortHealthCheckQuerySet.as_manager()

    class Meta:
        db_table = "port_health_checks"
        ordering = ("-checked_at", "pk")
        indexes = (
            models.Index(fields=("port_allocation", "-checked_at"), name="port_health_checks_newest"),
            models.Index(fields=("checked_at",), name="port_health_checks_age"),
        )
        constraints = (
            models.CheckConstraint(
                name="port_health_checks_status",
                condition=Q(status__in=("up", "down", "conflict", "unknown")),
            ),
            models.CheckConstraint(
                name="port_health_checks_time",
                condition=Q(response_time_ms__isnull=True) | Q(response_time_ms__gte=0),
            ),
        )

    def __str__(self) -> str:
        return f"{self.status} by {self.check_type} at {self.checked_at:%Y-%m-%d %H:%M:%S}"


class ListenerQuerySet(ProjectScopedQuerySet["Listener"]):
    """A queryset of the sockets that were listening at the last audit.

    A listener belongs to the project whose range it is in, so `visible_to()` and `in_ranges_of()` need `unallocated()`.
    """

    project_lookup = "range_project_id"

    def unallocated(self) -> Self:
        """Return the listeners on ports inside an active range that no allocation covers.

        `range_project_id` and `range_project_name` are the project that has the range.
        """
        ranges = rows_of("PortRange").active().filter(start_port__lte=OuterRef("port"), end_port__gte=OuterRef("port"))
        allocations = rows_of("PortAllocation").held()
        covering = allocations.at(OuterRef("port"), OuterRef("hostname"), OuterRef("protocol"))
        return (
            self.filter(~Exists(covering))
            .annotate(
                range_project_id=Subquery(ranges.values("project_id")[:1]),
                range_project_name=Subquery(ranges.values("project__name")[:1]),
            )
            .filter(range_project_id__isnull=False)
        )

    def in_ranges_of(self, project: Project) -> Self:
        """Return the listeners in ranges of the project."""
        return self.filter(range_project_id=project.pk)

    def matching(self, text: str) -> Self:
        """Return the listeners whose process, host, address or port matches `text`."""
        matches = Q(process__icontains=text) | Q(hostname__icontains=text) | Q(address__icontains=text)
        if (port := parse_port(text)) is not None:
            matches |= Q(port=port)
        return self.filter(matches)


class Listener(models.Model):
    """A socket that was listening at the last audit. The next audit removes it if it is gone."""

    id = models.UUIDField(primary_key=True, db_default=RandomUUID(), editable=False)
    hostname = models.CharField(max_length=255, db_collation="C")
    protocol = models.CharField(max_length=10)
    address = models.CharField(max_length=100)
    port = models.IntegerField()
    process = models.CharField(max_length=255, db_default="")
    pid = models.IntegerField(null=True)
    container = models.CharField(max_length=255, db_default="")
    # The working directory of the process, which callers who are limited to some projects may not see.
    cwd = models.TextField(db_default="")
    first_seen_at = models.DateTimeField(db_default=Now())
    last_seen_at = models.DateTimeField(db_default=Now())

    # Annotated by `unallocated()`.
    range_project_id: UUID
    range_project_name: str

    objects = ListenerQuerySet.as_manager()

    class Meta:
        db_table = "listeners"
        ordering = ("port", "hostname", "protocol", "address", "pk")
        constraints = (
            # In this order it is also the index that the allocator reads.
            models.UniqueConstraint(name="listeners_one_socket", fields=("hostname", "protocol", "port", "address")),
            models.CheckConstraint(name="listeners_port", condition=Q(port__range=(1, 65535))),
        )

    def __str__(self) -> str:
        return f"{self.process or 'unknown process'} on {self.hostname} {self.port}/{self.protocol}"
