"""The history: who did what, when, through which door, and what changed. Only triggers write it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self
from uuid import UUID

from django.apps import apps
from django.db import models
from django.db.models import OuterRef, Q, Subquery
from django.db.models.functions import Now

from .base import ProjectScopedQuerySet, rows_of

SUBJECTS = {"project": "Project", "range": "PortRange", "allocation": "PortAllocation", "reservation": "Reservation"}


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field that an update changed."""

    name: str
    before: Any
    after: Any


class EventQuerySet(ProjectScopedQuerySet["Event"]):
    """A queryset of events."""

    project_lookup = "project_id"

    def with_project_name(self) -> Self:
        """Add `project_name`, the current name of the project; NULL if it was deleted."""
        projects = rows_of("Project").filter(pk=OuterRef("project_id"))
        return self.annotate(project_name=Subquery(projects.values("name")[:1]))

    def about(self, subject: UUID) -> Self:
        """Return the history of the project, range or allocation with this id. A reserved port has its block's."""
        block = rows_of("PortAllocation").filter(pk=subject, reservation__isnull=False).values("reservation_id")
        return self.filter(Q(subject_id=subject) | Q(subject_id__in=block))


class Event(models.Model):
    """One entry of the history. The database refuses to change or delete it.

    There are no foreign keys, because the history outlives its subjects.
    """

    id = models.BigAutoField(primary_key=True)
    at = models.DateTimeField(db_default=Now())
    actor = models.CharField(max_length=255)
    source = models.CharField(max_length=50)
    # created, updated, deleted; for allocations allocated, reserved, updated, released
    verb = models.CharField(max_length=20)
    # project, range, allocation or reservation
    subject = models.CharField(max_length=20)
    subject_id = models.UUIDField()
    project_id = models.UUIDField()
    # The name of the subject at that time: `consilio`, `consilio 3100-3199`, `api 3100/tcp`.
    label = models.TextField()
    # New values, or {field: [before, after]} for an update.
    changes = models.JSONField(db_default={})

    # Annotated by `with_project_name()`.
    project_name: str | None

    objects = EventQuerySet.as_manager()

    class Meta:
        db_table = "events"
        ordering = ("-id",)
        indexes = (
            models.Index(fields=("project_id", "-id"), name="events_of_project"),
            models.Index(fields=("subject_id", "-id"), name="events_of_subject"),
        )

    def __str__(self) -> str:
        return f"{self.actor} {self.verb} {self.subject} {self.label}"

    @property
    def field_changes(self) -> list[FieldChange]:
        """Return what an update changed, with the names that forms use for the fields."""
        if self.verb != "updated":
            return []
        fields = {
            f.name: str(f.verbose_name) for f in apps.get_model("allocations", SUBJECTS[self.subject])._meta.fields
        }
        return [
            FieldChange(fields.get(column, column.replace("_", " ")), before, after)
            for column, (before, after) in self.changes.items()
        ]
