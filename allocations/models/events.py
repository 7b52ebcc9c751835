"""The history: who did what, when, by which interface, and what changed. Written by triggers alone."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now

from allocations.querysets import EventQuerySet


class Event(models.Model):
    """One entry of the history. Append-only: the database refuses to change or remove one.

    No foreign keys: the history outlives what it tells of.
    """

    id = models.BigAutoField(primary_key=True)
    at = models.DateTimeField(db_default=Now())
    actor = models.CharField(max_length=255)
    source = models.CharField(max_length=50)
    # created, updated, deleted; for allocations allocated, reserved, updated, released
    verb = models.CharField(max_length=20)
    # project, range or allocation
    subject = models.CharField(max_length=20)
    subject_id = models.UUIDField()
    project_id = models.UUIDField()
    # What the subject was called then: `consilio`, `consilio 3100-3199`, `api 3100/tcp`.
    label = models.TextField()
    # New values, or {field: [before, after]} for an update.
    changes = models.JSONField(db_default={})

    # Annotation of `with_project_name()`.
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
