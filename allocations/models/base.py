"""The base queryset of the models, and functions that several models use."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Self, TypeVar

from django.apps import apps
from django.db import models
from django.db.models import OuterRef, Subquery
from django.db.models.expressions import BaseExpression

from allocations.auth.roles import Caller

M = TypeVar("M", bound=models.Model)


class ProjectScopedQuerySet(models.QuerySet[M]):
    """A queryset of rows that each belong to a project, of which a caller sees those of their projects.

    Subclasses set `project_lookup` to the lookup that leads from a row to its project.
    """

    project_lookup = "project"

    def visible_to(self, caller: Caller) -> Self:
        """Return the rows that the caller may see."""
        if not caller.may_view:
            return self.none()
        return self if caller.projects is None else self.filter(**{f"{self.project_lookup}__in": caller.projects})

    def excluding(self, row: models.Model | None) -> Self:
        """Return the rows other than `row`, or all of them if it is None."""
        return self if row is None else self.exclude(pk=row.pk)


def rows_of(model: str) -> Any:
    """Return all rows of the model with that name. Importing the model would make the imports circular."""
    return apps.get_model("allocations", model)._default_manager.all()


def aggregate_per_row(rows: models.QuerySet[Any], lookup: str, value: BaseExpression) -> Subquery:
    """Return the aggregate `value` over those of `rows` whose `lookup` is the outer row.

    It is a subquery, because several joins would multiply one another's rows.
    """
    return Subquery(rows.filter(**{lookup: OuterRef("pk")}).order_by().values(lookup).annotate(n=value).values("n"))


def parse_port(text: str) -> int | None:
    """Return a search text as a port number, or None if it cannot be one."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else None


def version_of(*values: object) -> str:
    """Return a short fingerprint of the values that can be edited.

    It changes with every edit, but not when an audit records what it saw.
    """
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:20]
