"""What was seen: listeners, audits and their checks. Observations never change an allocation's status."""

from __future__ import annotations

from uuid import UUID

from django.contrib.postgres.functions import RandomUUID
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from allocations.querysets import AuditQuerySet, ListenerQuerySet, PortHealthCheckQuerySet

from .projects import Project


class Health(models.TextChoices):
    """The verdict of a check."""

    UP = "up"
    DOWN = "down"
    CONFLICT = "conflict"
    UNKNOWN = "unknown"


class Audit(models.Model):
    """One comparison of allocations and listeners, as it was recorded."""

    id = models.UUIDField(primary_key=True, db_default=RandomUUID(), editable=False)
    started_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(db_default=Now())
    actor = models.CharField(max_length=255, db_default="")
    source = models.CharField(max_length=50, db_default="")
    # What it was limited to; NULL is everything.
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


class PortHealthCheck(models.Model):
    """One probe of one allocation by one audit, with its evidence."""

    Status = Health

    id = models.UUIDField(primary_key=True, db_default=RandomUUID(), editable=False)
    port_allocation = models.ForeignKey("PortAllocation", models.CASCADE, related_name="checks")
    audit = models.ForeignKey(Audit, models.CASCADE, null=True, related_name="checks")
    # How it was looked at: `kernel` on this host, `connect` on another.
    check_type = models.CharField(max_length=50)
    status = models.CharField(max_length=50, choices=Health)
    response_time_ms = models.IntegerField(null=True)
    checked_at = models.DateTimeField(db_default=Now())
    # Why this verdict: reason, process, pid, address, from which host.
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


class Listener(models.Model):
    """A socket that was listening when somebody last looked. The next look removes it if it is gone."""

    id = models.UUIDField(primary_key=True, db_default=RandomUUID(), editable=False)
    hostname = models.CharField(max_length=255, db_collation="C")
    protocol = models.CharField(max_length=10)
    address = models.CharField(max_length=100)
    port = models.IntegerField()
    process = models.CharField(max_length=255, db_default="")
    pid = models.IntegerField(null=True)
    container = models.CharField(max_length=255, db_default="")
    first_seen_at = models.DateTimeField(db_default=Now())
    last_seen_at = models.DateTimeField(db_default=Now())

    # Annotations of `unallocated()`.
    range_project_id: UUID
    range_project_name: str

    objects = ListenerQuerySet.as_manager()

    class Meta:
        db_table = "listeners"
        ordering = ("port", "hostname", "protocol", "address", "pk")
        constraints = (
            # In this order it is also the index of the allocator's walk.
            models.UniqueConstraint(name="listeners_one_socket", fields=("hostname", "protocol", "port", "address")),
            models.CheckConstraint(name="listeners_port", condition=Q(port__range=(1, 65535))),
        )

    def __str__(self) -> str:
        return f"{self.process or 'unknown process'} on {self.hostname} {self.port}/{self.protocol}"
