"""Allocations: one (host, protocol, port) held by one service."""

from __future__ import annotations

from collections import Counter
from typing import Any, Self

from django.contrib.postgres.fields import IntegerRangeField
from django.contrib.postgres.functions import RandomUUID
from django.db import models
from django.db.models import Count, F, OuterRef, Q, Subquery
from django.db.models.functions import Now

from allocations import validators

from .base import ProjectScopedQuerySet, parse_port, rows_of, version_of
from .health import Health
from .projects import PortRange, Project
from .reservations import Reservation


class Status(models.TextChoices):
    """The status of an allocation.

    A `reserved` port is held for later and never allocated automatically. A `pending` one was requested by an agent in
    a project where a person decides.
    """

    ALLOCATED = "allocated"
    RESERVED = "reserved"
    PENDING = "pending"
    RELEASED = "released"


HELD = ~Q(status="released")
# Held, but not by a service yet. Only these expire.
EXPIRING = ("reserved", "pending")


class PortAllocationQuerySet(ProjectScopedQuerySet["PortAllocation"]):
    """A queryset of allocations."""

    def held(self) -> Self:
        """Return the allocations that hold their port now: neither released nor expired."""
        return self.exclude(status="released").exclude(status__in=EXPIRING, expires_at__lte=Now())

    def expired(self) -> Self:
        """Return the reservations and requests that have expired and have not been released yet."""
        return self.filter(status__in=EXPIRING, expires_at__lte=Now())

    def allocated(self) -> Self:
        """Return the allocations that a service holds, which are the ones that an audit checks."""
        return self.filter(status="allocated")

    def pending(self) -> Self:
        """Return the requests of agents that nobody has decided about yet."""
        return self.filter(status="pending", expires_at__gt=Now())

    def blocks(self) -> Self:
        """Return one allocation for each block of reserved ports: that of its first port."""
        return self.filter(Q(reservation__isnull=True) | Q(port_number=F("reservation__start_port")))

    def at(self, port_number: int, hostname: str, protocol: str) -> Self:
        """Return the allocations of one port on one host and protocol."""
        return self.filter(port_number=port_number, hostname=hostname, protocol=protocol)

    def count_states(self, *fields: str) -> Counter[tuple[Any, ...]]:
        """Count the ports in each state, for each value of `fields`, in one pass over them.

        Returns:
            counts by the values of the fields, followed by the state: reserved (which includes pending), up, down,
            conflict, unknown or unaudited.
        """
        counts = Counter[tuple[Any, ...]]()
        rows = self.order_by().values_list(*fields, "status", "health").annotate(count=Count("*"))
        for *values, status, health, count in rows:
            state = (health or "unaudited") if status == Status.ALLOCATED else "reserved"
            counts[*values, state] += count
        return counts

    def with_response_time(self) -> Self:
        """Add `response_time_ms`, the response time in the newest check; NULL if it measured none."""
        newest = rows_of("PortHealthCheck").filter(port_allocation=OuterRef("pk")).order_by("-checked_at")
        return self.annotate(response_time_ms=Subquery(newest.values("response_time_ms")[:1]))

    def matching(self, text: str) -> Self:
        """Return the allocations whose service, project, hostname, description, owner or port matches `text`."""
        if not text:
            return self
        matches = (
            Q(service_name__icontains=text)
            | Q(project__name__icontains=text)
            | Q(hostname__icontains=text)
            | Q(cloudflare_hostname__icontains=text)
            | Q(description__icontains=text)
            | Q(owner__icontains=text)
        )
        if (port_number := parse_port(text)) is not None:
            matches |= Q(port_number=port_number)
            matches |= Q(reservation__start_port__lte=port_number, reservation__end_port__gte=port_number)
        if "/" in text:  # consilio/api
            project, _, service = text.partition("/")
            matches |= Q(project__name__icontains=project, service_name__icontains=service)
        return self.filter(matches)


class PortAllocation(models.Model):
    """One (host, protocol, port), held by one service of a project, or released.

    Only the operations in `allocations/ports` create and change rows. The trigger `port_allocations_guard` protects
    identity columns and released rows from everybody else.
    """

    Status = Status

    id = models.UUIDField(primary_key=True, db_default=RandomUUID(), editable=False)
    # Indexes below begin with these two.
    project = models.ForeignKey(
        Project, models.DO_NOTHING, related_name="allocations", db_constraint=False, db_index=False
    )
    port_range = models.ForeignKey(
        PortRange, models.DO_NOTHING, related_name="allocations", db_constraint=False, db_index=False
    )
    # The block of a reserved port. A released one keeps it.
    reservation = models.ForeignKey(
        Reservation,
        models.DO_NOTHING,
        related_name="allocations",
        null=True,
        editable=False,
        db_constraint=False,
        db_index=False,
    )
    port_number = models.IntegerField("port")
    # NULL for a reservation, which has no service.
    service_name = models.CharField("service", max_length=255, null=True, blank=True, db_collation="C")
    instance = models.IntegerField(default=0, db_default=0)
    service_type = models.CharField("type", max_length=100, blank=True, default="", db_default="")
    description = models.TextField(blank=True, default="", db_default="")
    # The person or team to ask about it.
    owner = models.CharField(max_length=255, blank=True, default="", db_default="")
    status = models.CharField(
        max_length=50, choices=Status, default=Status.ALLOCATED, db_default=Status.ALLOCATED.value
    )
    hostname = models.CharField(
        "host", max_length=255, default=validators.LOCALHOST, db_default=validators.LOCALHOST, db_collation="C"
    )
    protocol = models.CharField(max_length=10, default=validators.TCP, db_default=validators.TCP)
    cloudflare_hostname = models.CharField(
        "Cloudflare hostname", max_length=253, null=True, blank=True, db_collation="C"
    )
    metadata = models.JSONField(blank=True, default=dict, db_default={})
    allocated_at = models.DateTimeField(db_default=Now(), editable=False)
    last_used_at = models.DateTimeField(null=True, editable=False)
    expires_at = models.DateTimeField("expires", null=True, blank=True)
    released_at = models.DateTimeField("released", null=True, editable=False)
    # A copy of the newest check, so that lists need no join; NULL means never audited.
    health = models.CharField(max_length=50, null=True, choices=Health, editable=False)
    # Copies of the range's columns while the allocation is held. A composite foreign key keeps them equal to the range,
    # so that a CHECK can require that the port lies inside it and that it is the project's own or shared. A trigger
    # fills them in.
    span = IntegerRangeField(null=True, editable=False)
    range_project_id = models.UUIDField(null=True, editable=False)
    range_is_shared = models.BooleanField(null=True, editable=False)

    # Who allocated it, and with which token. A trigger fills both in from settings of the transaction.
    allocated_by = models.CharField(max_length=255, db_default="", editable=False)
    token_id = models.UUIDField(null=True, editable=False)

    # Annotated by `with_response_time()`.
    response_time_ms: int | None
    # Whether the operation that returned this row created it.
    created: bool = False

    objects = PortAllocationQuerySet.as_manager()

    class Meta:
        db_table = "port_allocations"
        # A total order, so that pages and cursors never show a row twice.
        ordering = ("port_number", "hostname", "protocol", "-allocated_at", "pk")
        constraints = (
            models.UniqueConstraint(
                name="port_allocations_one_holder",
                fields=("hostname", "protocol", "port_number"),
                include=("expires_at",),  # so that the allocator reads this index alone
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
                condition=Q(port_number__range=(validators.FIRST_PORT, validators.LAST_PORT)),
            ),
            models.CheckConstraint(
                name="port_allocations_status", condition=Q(status__in=("allocated", "reserved", "pending", "released"))
            ),
            models.CheckConstraint(name="port_allocations_protocol", condition=Q(protocol__in=validators.PROTOCOLS)),
            models.CheckConstraint(name="port_allocations_instance", condition=Q(instance__gte=0)),
            models.CheckConstraint(
                name="port_allocations_service",
                # NOT NULL is spelled out, because a CHECK that evaluates to NULL passes.
                condition=Q(service_name__isnull=False, service_name__regex=validators.NAME_PATTERN)
                | (Q(service_name__isnull=True) & ~Q(status="allocated")),
            ),
            models.CheckConstraint(
                name="port_allocations_hostname", condition=Q(hostname__regex=validators.HOST_DATABASE_PATTERN)
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
            # A service's port does not expire: to the allocator a port with a past expiry is free.
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
            models.Index(fields=("expires_at",), name="port_allocations_pending", condition=Q(status="pending")),
            # For lists, in their order.
            models.Index(
                fields=("port_number", "hostname", "protocol", "id"), name="port_allocations_listed", condition=HELD
            ),
            # To count the held ports of a range without reading the table, in which there may be far more history.
            models.Index(
                fields=("port_range",),
                include=("port_number", "status", "expires_at"),
                name="port_allocations_held_in_range",
                condition=HELD,
            ),
            models.Index(
                fields=("reservation", "port_number"),
                name="port_allocations_of_block",
                condition=Q(reservation__isnull=False),
            ),
        )

    def __str__(self) -> str:
        return f"{self.label} {self.address}"

    @property
    def label(self) -> str:
        """Return `consilio/api`, `consilio/api#2` for a further instance, `consilio/(reserved)` for a reservation."""
        name = self.service_name or "(reserved)"
        return f"{self.project.name}/{name}" + (f"#{self.instance}" if self.instance else "")

    @property
    def ports(self) -> str:
        """Return `3100`, or `3150-3159` for a block of reserved ports."""
        return self.reservation.ports if self.reservation else str(self.port_number)

    @property
    def stands_for_block(self) -> bool:
        """Return whether lists show this allocation: it is not a further port of a block of reserved ports."""
        return self.reservation is None or self.port_number == self.reservation.start_port

    @property
    def last_port(self) -> int | None:
        """Return the last port of the block of reserved ports that begins here, or None if there is none."""
        block = self.reservation
        is_first = block is not None and block.start_port == self.port_number
        return block.end_port if block and is_first and block.end_port != block.start_port else None

    @property
    def address(self) -> str:
        """Return `3100/tcp` or, for a block, `3150-3159/tcp`, followed by the host if it is not this one."""
        where = "" if self.hostname == validators.LOCALHOST else f" on {self.hostname}"
        return f"{self.ports}/{self.protocol}{where}"

    @property
    def state(self) -> str:
        """Return the state that the dashboard shows.

        It is reserved, pending, released, allocated (not audited yet), listening, not-running, conflict or unknown.
        """
        if self.status != Status.ALLOCATED:
            return str(self.status)
        return {"up": "listening", "down": "not-running"}.get(self.health or "", self.health or "allocated")

    @property
    def version(self) -> str:
        """Return a fingerprint that changes with every edit and with the release, but not with audits."""
        details = (self.service_type, self.description, self.owner, self.cloudflare_hostname, self.metadata)
        block = () if self.reservation is None else (self.ports,)
        return version_of(self.pk, self.status, self.service_name, *details, self.expires_at, *block)

    @property
    def is_held(self) -> bool:
        """Return whether the allocation has not been released."""
        return self.status != Status.RELEASED
