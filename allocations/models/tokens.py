"""Limits of users to projects, and the tokens of programs."""

from __future__ import annotations

from typing import Self

from django.conf import settings
from django.contrib.postgres.functions import RandomUUID
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Length, Now
from django.utils import timezone

from allocations.auth.roles import Caller

from .projects import Project

models.BinaryField.register_lookup(Length)


class UserLimit(models.Model):
    """The projects that a user is limited to. An empty list means no projects; no row means unlimited."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, models.CASCADE, primary_key=True, related_name="port_limit", db_column="user_id"
    )
    projects = models.ManyToManyField(Project, blank=True, related_name="+", db_table="user_limit_projects")

    class Meta:
        db_table = "user_limits"

    def __str__(self) -> str:
        return f"limit of user {self.user_id}"


class TokenQuerySet(models.QuerySet["Token"]):
    """A queryset of tokens."""

    def visible_to(self, caller: Caller) -> Self:
        """Return the caller's own tokens, or all of them for an admin who is not limited."""
        if caller.may_administer and caller.projects is None:
            return self
        return self.belonging_to(caller) if caller.may_view else self.none()

    def belonging_to(self, caller: Caller) -> Self:
        """Return the tokens that belong to the caller's user."""
        return self.filter(user_id=caller.user, user__isnull=False)


class Token(models.Model):
    """A program's key. Only a hash of its secret is stored; its user and its role never change."""

    id = models.UUIDField(primary_key=True, db_default=RandomUUID(), editable=False)
    # The part of the token that is not secret, by which it is found and shown.
    public_id = models.CharField(max_length=8, unique=True, db_collation="C", editable=False)
    secret_hash = models.BinaryField(editable=False)
    name = models.CharField(max_length=100, db_collation="C")
    # The user it belongs to, whose rights it can never exceed; NULL for a token made in the shell.
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.CASCADE, null=True, blank=True, related_name="port_tokens"
    )
    role = models.CharField(max_length=20)
    is_limited = models.BooleanField(default=False, db_default=False)
    projects = models.ManyToManyField(Project, blank=True, related_name="+", db_table="api_token_projects")
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    created_by = models.CharField(max_length=255, editable=False)
    expires_at = models.DateTimeField()
    last_used_at = models.DateTimeField(null=True, editable=False)
    revoked_at = models.DateTimeField(null=True, editable=False)

    objects = TokenQuerySet.as_manager()

    class Meta:
        db_table = "api_tokens"
        ordering = ("-created_at", "pk")
        constraints = (
            models.CheckConstraint(name="api_tokens_public", condition=Q(public_id__regex=r"^[0-9A-Za-z]{8}$")),
            models.CheckConstraint(name="api_tokens_hash", condition=Q(secret_hash__length=32)),
            models.CheckConstraint(
                name="api_tokens_role", condition=Q(role__in=("scraper", "viewer", "operator", "admin"))
            ),
            models.CheckConstraint(
                name="api_tokens_expiry",
                condition=Q(expires_at__gt=F("created_at"))
                & Q(expires_at__lte=F("created_at") + models.Value("366 days", models.DurationField())),
            ),
        )

    def __str__(self) -> str:
        return f"{self.name} (ptl_{self.public_id}_…)"

    @property
    def is_expired(self) -> bool:
        """Return whether the token has expired."""
        return self.expires_at <= timezone.now()


class IdempotentAnswer(models.Model):
    """The answer to a request with an Idempotency-Key, kept for its repetitions."""

    id = models.BigAutoField(primary_key=True)
    principal = models.CharField(max_length=300, db_collation="C")
    key = models.CharField(max_length=255, db_collation="C")
    # SHA-256 of the request: the same key with a different request is a mistake.
    fingerprint = models.BinaryField()
    answer = models.JSONField(null=True)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "idempotent_answers"
        constraints = (models.UniqueConstraint(name="idempotent_answers_key", fields=("principal", "key")),)
        indexes = (models.Index(fields=("created_at",), name="idempotent_answers_age"),)

    def __str__(self) -> str:
        return f"answer to {self.key}"
