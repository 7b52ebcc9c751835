"""Reservations: blocks of ports that are held for later."""

from __future__ import annotations

from django.contrib.postgres.functions import RandomUUID
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from allocations import validators

from .projects import Project


class Reservation(models.Model):
    """The ports from a start port to an end port, which a project has reserved on one host and protocol.

    Each port has a row in `port_allocations` too, with copies of the note and the expiry. When some of the ports are
    released, a trigger shrinks or splits the reservation.
    """

    id = models.UUIDField(primary_key=True, db_default=RandomUUID(), editable=False)
    project = models.ForeignKey(Project, models.DO_NOTHING, related_name="reservations", db_constraint=False)
    start_port = models.IntegerField()
    end_port = models.IntegerField()
    hostname = models.CharField(
        "host", max_length=255, default=validators.LOCALHOST, db_default=validators.LOCALHOST, db_collation="C"
    )
    protocol = models.CharField(max_length=10, default=validators.TCP, db_default=validators.TCP)
    description = models.TextField("note", blank=True, default="", db_default="")
    expires_at = models.DateTimeField("expires", null=True, blank=True)
    reserved_at = models.DateTimeField(db_default=Now(), editable=False)
    # Who reserved it. A trigger fills it in from a setting of the transaction.
    reserved_by = models.CharField(max_length=255, db_default="", editable=False)
    released_at = models.DateTimeField("released", null=True, editable=False)

    class Meta:
        db_table = "reservations"
        ordering = ("start_port", "hostname", "protocol", "pk")
        constraints = (
            models.CheckConstraint(
                name="reservations_bounds",
                condition=Q(
                    start_port__gte=validators.FIRST_PORT,
                    end_port__lte=validators.LAST_PORT,
                    start_port__lte=F("end_port"),
                ),
            ),
            models.CheckConstraint(name="reservations_protocol", condition=Q(protocol__in=validators.PROTOCOLS)),
        )

    def __str__(self) -> str:
        return f"{self.ports}/{self.protocol}"

    @property
    def ports(self) -> str:
        """Return `3150-3159`, or `3150` for one port."""
        return str(self.start_port) if self.start_port == self.end_port else f"{self.start_port}-{self.end_port}"
