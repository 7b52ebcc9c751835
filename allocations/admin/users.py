"""Users in the admin, with the projects that they are limited to."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import HttpRequest

from allocations.models import UserLimit

from .base import RefusalMixin


class LimitInline(admin.StackedInline):  # type: ignore[type-arg]
    """The projects that a user is limited to. Without this row, the user may see all projects."""

    model = UserLimit
    extra = 0
    filter_horizontal = ("projects",)
    verbose_name = verbose_name_plural = "Limit to projects"


admin.site.unregister(User)


@admin.register(User)
class LimitedUserAdmin(RefusalMixin, UserAdmin):  # type: ignore[type-arg]
    """Django's user admin with the limit to projects. The database refuses to remove the last admin."""

    inlines = (LimitInline,)
    list_display = ("username", "email", "is_active", "is_staff", "roles", "limit")
    list_filter = ("is_active", "is_superuser", "groups")

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        return super().get_queryset(request).prefetch_related("groups", "port_limit__projects")

    @admin.display(description="Role")
    def roles(self, user: User) -> str:
        return "superuser" if user.is_superuser else ", ".join(group.name for group in user.groups.all()) or "none"

    @admin.display(description="Limited to")
    def limit(self, user: User) -> str:
        if not hasattr(user, "port_limit"):
            return "no limit"
        return ", ".join(project.name for project in user.port_limit.projects.all()) or "nothing"

    def get_inlines(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.inlines if obj else ()  # a user has to exist before it can be limited
