"""Who is limited to which projects, and the tokens of programs."""

from __future__ import annotations

from django.conf import settings
from django.contrib.postgres.functions import RandomUUID
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Length, Now
from django.utils import timezone

from allocations.querysets import TokenQuerySet

from .projects import Project

models.BinaryField.register_lookup(Length)


class UserLimit(models.Model):
    """That a user sees and changes some projects alone. No project in it is none, not all: that is no row."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, models.CASCADE, primary_key=True, related_name="port_limit", db_column="user_id"
    )
    projects = models.ManyToManyField(Project, blank=True, related_name="+", db_table="user_limit_projects")

    class Meta:
        db_table = "user_limits"

    def __str__(self) -> str:
        return f"limit of user {self.user_id}"


class Token(models.Model):
    """A program's key. Of the secret there is only a hash; who it belongs to, and its role, never change."""

    id = models.UUIDField(primary_key=True, db_default=RandomUUID(), editable=False)
    # The part of the token that is no secret: what it is found, and told of, by.
    public_id = models.CharField(max_length=8, unique=True, db_collation="C", editable=False)
    secret_hash = models.BinaryField(editable=False)
    name = models.CharField(max_length=100, db_collation="C")
    # Whose rights it can never exceed; NULL: made in the shell, which has all.
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
        """Whether its time is over."""
        return self.expires_at <= timezone.now()

    @property
    def label(self) -> str:
        """Whom the history names: `anna/deploy`, or `deploy` where nobody owns it."""
        return f"{self.user.get_username()}/{self.name}" if self.user else self.name


class IdempotentAnswer(models.Model):
    """What was answered to a request with an Idempotency-Key, so that its repetition gets the same."""

    id = models.BigAutoField(primary_key=True)
    principal = models.CharField(max_length=300, db_collation="C")
    key = models.CharField(max_length=255, db_collation="C")
    # SHA-256 of the request: the same key with another request is a mistake.
    fingerprint = models.BinaryField()
    answer = models.JSONField(null=True)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "idempotent_answers"
        constraints = (models.UniqueConstraint(name="idempotent_answers_key", fields=("principal", "key")),)
        indexes = (models.Index(fields=("created_at",), name="idempotent_answers_age"),)

    def __str__(self) -> str:
        return f"answer to {self.key}"
