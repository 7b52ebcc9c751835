"""Allocations: one (host, protocol, port) held by one service."""

from __future__ import annotations

from django.contrib.postgres.fields import IntegerRangeField
from django.contrib.postgres.functions import RandomUUID
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from allocations import hosts, words
from allocations.querysets import PortAllocationQuerySet

from .health import Health
from .projects import PortRange, Project
from .versions import version_of


class Status(models.TextChoices):
    """What an allocation is. `reserved` is held for later and never handed out by itself; `pending` is what an agent
    asked for in a project where a person decides."""

    ALLOCATED = "allocated"
    RESERVED = "reserved"
    PENDING = "pending"
    RELEASED = "released"


HELD = ~Q(status="released")


class PortAllocation(models.Model):
    """One (host, protocol, port), held by one service of a project, or released.

    Rows are made and changed by PortManager alone; the triggers of 0002_guards.sql keep identity columns and
    released rows as they are, whoever asks.
    """

    Status = Status

    id = models.UUIDField(primary_key=True, db_default=RandomUUID(), editable=False)
    project = models.ForeignKey(Project, models.DO_NOTHING, related_name="allocations", db_constraint=False)
    port_range = models.ForeignKey(PortRange, models.DO_NOTHING, related_name="allocations", db_constraint=False)
    port_number = models.IntegerField()
    # NULL: a reservation for which no service is named yet.
    service_name = models.CharField(max_length=255, null=True, blank=True, db_collation="C")
    instance = models.IntegerField(default=0, db_default=0)
    service_type = models.CharField(max_length=100, blank=True, default="", db_default="")
    description = models.TextField(blank=True, default="", db_default="")
    status = models.CharField(
        max_length=50, choices=Status, default=Status.ALLOCATED, db_default=Status.ALLOCATED.value
    )
    hostname = models.CharField(max_length=255, default=words.LOCALHOST, db_default=words.LOCALHOST, db_collation="C")
    protocol = models.CharField(max_length=10, default=words.TCP, db_default=words.TCP)
    cloudflare_hostname = models.CharField(max_length=253, null=True, blank=True, db_collation="C")
    metadata = models.JSONField(blank=True, default=dict, db_default={})
    allocated_at = models.DateTimeField(db_default=Now(), editable=False)
    last_used_at = models.DateTimeField(null=True, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    released_at = models.DateTimeField(null=True, editable=False)
    # What the last audit saw, a copy of its newest check so that lists need no join; NULL: never audited.
    health = models.CharField(max_length=50, null=True, choices=Health, editable=False)
    # Copies of the range while the allocation is held, kept equal by a composite foreign key (0002_guards.sql), so
    # that a CHECK can say: the port is inside, and the range is our own or shared. Filled in by a trigger.
    span = IntegerRangeField(null=True, editable=False)
    range_project_id = models.UUIDField(null=True, editable=False)
    range_is_shared = models.BooleanField(null=True, editable=False)

    # Who took it, and by which token; both from the transaction's settings, filled in by a trigger.
    allocated_by = models.CharField(max_length=255, db_default="", editable=False)
    token_id = models.UUIDField(null=True, editable=False)

    # Annotation of `with_response_time()`.
    response_time_ms: int | None
    # Whether the operation that returned this row made it; PortManager says so.
    created: bool = False

    objects = PortAllocationQuerySet.as_manager()

    class Meta:
        db_table = "port_allocations"
        # Total, so that pages and cursors never show a row twice.
        ordering = ("port_number", "hostname", "protocol", "-allocated_at", "pk")
        constraints = (
            models.UniqueConstraint(
                name="port_allocations_one_holder",
                fields=("hostname", "protocol", "port_number"),
                include=("expires_at",),  # the allocator's walk reads this index alone
                condition=HELD,
                violation_error_code="port_taken",
                violation_error_message="Another service holds this port.",
            ),
            models.UniqueConstraint(
                name="port_allocations_one_instance",
                fields=("project", "service_name", "hostname", "protocol", "instance"),
                condition=HELD,
                violation_error_code="name_taken",
                violation_error_message="The service already holds this instance.",
            ),
            models.UniqueConstraint(
                name="port_allocations_one_cloudflare",
                fields=("cloudflare_hostname",),
                condition=HELD,
                violation_error_code="hostname_taken",
                violation_error_message="The Cloudflare hostname points at another allocation.",
            ),
            models.CheckConstraint(
                name="port_allocations_port",
                condition=Q(port_number__range=(words.FIRST_PORT, words.LAST_PORT)),
            ),
            models.CheckConstraint(
                name="port_allocations_status", condition=Q(status__in=("allocated", "reserved", "pending", "released"))
            ),
            models.CheckConstraint(name="port_allocations_protocol", condition=Q(protocol__in=words.PROTOCOLS)),
            models.CheckConstraint(name="port_allocations_instance", condition=Q(instance__gte=0)),
            models.CheckConstraint(
                name="port_allocations_service",
                # Not null, said aloud: a CHECK that is NULL passes.
                condition=Q(service_name__isnull=False, service_name__regex=words.NAME_PATTERN)
                | (Q(service_name__isnull=True) & ~Q(status="allocated")),
            ),
            models.CheckConstraint(
                name="port_allocations_hostname", condition=Q(hostname__regex=hosts.HOST_DATABASE_PATTERN)
            ),
            models.CheckConstraint(
                name="port_allocations_cloudflare",
                condition=Q(cloudflare_hostname__isnull=True)
                | Q(cloudflare_hostname__regex=r"^(\*\.)?[a-z0-9]([a-z0-9.-]{0,249}[a-z0-9])?$"),
            ),
            models.CheckConstraint(
                name="port_allocations_health",
                condition=Q(health__isnull=True) | Q(health__in=("up", "down", "conflict", "unknown")),
            ),
            models.CheckConstraint(
                name="port_allocations_pending_expires", condition=Q(expires_at__isnull=False) | ~Q(status="pending")
            ),
            # A service's port does not expire: the allocator's walk takes an expiry in the past for a free port.
            models.CheckConstraint(
                name="port_allocations_expiry", condition=Q(expires_at__isnull=True) | ~Q(status="allocated")
            ),
            models.CheckConstraint(
                name="port_allocations_released_at",
                condition=Q(status="released", released_at__isnull=False) | (HELD & Q(released_at__isnull=True)),
            ),
            models.CheckConstraint(
                name="port_allocations_copies",
                condition=Q(
                    status="released",
                    span__isnull=True,
                    range_project_id__isnull=True,
                    range_is_shared__isnull=True,
                )
                | (HELD & Q(span__isnull=False, range_project_id__isnull=False, range_is_shared__isnull=False)),
            ),
            models.CheckConstraint(
                name="port_allocations_inside_range",
                condition=Q(status="released") | Q(span__contains=F("port_number")),
                violation_error_code="port_out_of_range",
                violation_error_message="The port lies outside the range.",
            ),
            models.CheckConstraint(
                name="port_allocations_own_or_shared",
                condition=Q(status="released") | Q(range_project_id=F("project_id")) | Q(range_is_shared=True),
                violation_error_code="not_permitted",
                violation_error_message="The range belongs to another project and is not shared.",
            ),
        )
        indexes = (
            models.Index(fields=("project", "service_name"), name="port_allocations_of_project"),
            models.Index(
                fields=("token_id",), name="port_allocations_of_token", condition=HELD & Q(token_id__isnull=False)
            ),
            models.Index(fields=("port_range",), name="port_allocations_of_range"),
            models.Index(fields=("expires_at",), name="port_allocations_expiring", condition=Q(status="reserved")),
        )

    def __str__(self) -> str:
        return f"{self.label} {self.address}"

    @property
    def label(self) -> str:
        """`consilio/api`, `consilio/api#2` for a further instance, `consilio/(reserved)` for a reservation."""
        name = self.service_name or "(reserved)"
        return f"{self.project.name}/{name}" + (f"#{self.instance}" if self.instance else "")

    @property
    def address(self) -> str:
        """`3100/tcp`, with the host where it is not this one."""
        where = "" if self.hostname == words.LOCALHOST else f" on {self.hostname}"
        return f"{self.port_number}/{self.protocol}{where}"

    @property
    def state(self) -> str:
        """What a person is shown: free is nobody's, so it is one of reserved, released, allocated (no audit has
        looked yet), listening, not-running, conflict, unknown."""
        if self.status != Status.ALLOCATED:
            return str(self.status)
        return {"up": "listening", "down": "not-running"}.get(self.health or "", self.health or "allocated")

    @property
    def version(self) -> str:
        """Changes with every edit and with the release, not with audits."""
        said = (self.service_type, self.description, self.cloudflare_hostname, self.metadata, self.expires_at)
        return version_of(self.pk, self.status, self.service_name, *said)

    @property
    def is_held(self) -> bool:
        """Neither released nor about to be: the port is this row's."""
        return self.status != Status.RELEASED
