"""The hosts that audits may connect to."""

from __future__ import annotations

from typing import Self

from django.db import models
from django.db.models.functions import Now

from allocations.auth.roles import Caller
from allocations.hosts import LOCALHOST


class HostQuerySet(models.QuerySet["Host"]):
    """A queryset of approved hosts."""

    def visible_to(self, caller: Caller) -> Self:
        """Return all hosts for an admin who is not limited, and none for others."""
        return self if caller.may_administer and caller.projects is None else self.none()


class Host(models.Model):
    """This machine, or another host that an admin has approved.

    Portal opens connections to approved hosts only, so that nobody can use audits to scan a network. Services on other
    hosts can hold ports too, but whether they are listening is unknown.
    """

    # As the registry writes it: the database has the rule (hosts_canonical), which needs the function canonical_host().
    name = models.CharField(max_length=255, primary_key=True, db_collation="C")
    approved_by = models.CharField(max_length=255, editable=False)
    approved_at = models.DateTimeField(db_default=Now(), editable=False)

    objects = HostQuerySet.as_manager()

    class Meta:
        db_table = "hosts"
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name

    @property
    def is_this_machine(self) -> bool:
        """Return whether it is the machine that Portal runs on, which needs no connection."""
        return self.name == LOCALHOST
