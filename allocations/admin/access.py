"""Tokens and users in the admin."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import User
from django.db import Error as DatabaseFault
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse

from allocations import forms as port_forms
from allocations.models import Project, Token, UserLimit
from allocations.ports.refusals import refusal_of

from .base import OperationAdmin, OperationForm, ports_of


class TokenForm(OperationForm):
    role = forms.ChoiceField()
    projects = forms.ModelMultipleChoiceField(
        Project.objects.none(), required=False, help_text="None chosen: all that its owner may see."
    )
    expires_at = port_forms.ExpiryField(label="Expires", initial="90d", help_text="30d, or a date within a year.")
    # The token itself, for the one answer that shows it.
    text = ""

    class Meta:
        model = Token
        fields = ("name", "user", "role")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["projects"].queryset = Project.objects.visible_to(self.ports.caller)  # type: ignore[attr-defined]
        self.fields["role"].choices = port_forms.token_roles(self.ports.caller)  # type: ignore[attr-defined]
        if (owner := self.fields.get("user")) is None:  # a token that is there is shown, not edited
            return
        owner.help_text = "Its owner, whose rights it can never exceed. Empty: you."
        if self.ports.caller.projects is not None:  # who is limited makes tokens for nobody else, and reads of nobody
            owner.queryset = User.objects.filter(pk=self.ports.caller.user or 0)  # type: ignore[attr-defined]

    def operate(self, values: dict[str, Any]) -> Token:
        token, self.text = self.ports.create_token(
            values["name"],
            role=values["role"],
            projects=[project.name for project in values["projects"]] or None,
            expires_at=values["expires_at"],
            user=values["user"].pk if values["user"] else None,
        )
        return token


@admin.register(Token)
class TokenAdmin(OperationAdmin):
    form = TokenForm
    list_display = ("name", "starts_with", "user", "role", "is_limited", "last_used_at", "expires_at", "revoked_at")
    list_filter = ("role", "is_limited")
    list_select_related = ("user",)
    search_fields = ("name", "public_id", "user__username")
    actions = ("revoke",)
    ordering = ("-created_at",)
    fields = ("name", "user", "role", "projects", "expires_at")

    @admin.display(description="Token")
    def starts_with(self, token: Token) -> str:
        return f"ptl_{token.public_id}_…"

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: Any = None) -> HttpResponse:
        """Shows the token in this answer alone: no message, because messages travel in a cookie."""
        context = {**self.admin_site.each_context(request), "title": f"{obj.name} is made", "token": obj.text}
        return TemplateResponse(request, "admin/token_made.html", context)

    def save_form(self, request: HttpRequest, form: Any, change: bool) -> Any:
        saved = super().save_form(request, form, change)
        saved.text = form.text
        return saved

    @admin.action(permissions=["add"], description="Revoke the selected tokens, for good")
    def revoke(self, request: HttpRequest, chosen: QuerySet[Token]) -> None:
        revoked = [ports_of(request).revoke_token(token.pk) for token in chosen]
        self.message_user(request, f"Revoked {len(revoked)}.", messages.SUCCESS)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # a token stays what it was made as

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class LimitInline(admin.StackedInline):  # type: ignore[type-arg]
    """Which projects a user is limited to; without this row: all."""

    model = UserLimit
    extra = 0
    filter_horizontal = ("projects",)
    verbose_name = verbose_name_plural = "Limit to projects"


admin.site.unregister(User)


@admin.register(User)
class LimitedUserAdmin(UserAdmin):  # type: ignore[type-arg]
    """Django's, with the limit; the database refuses to part with the last admin."""

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
        return self.inlines if obj else ()  # first the user, then the limit

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        return self._refusable(request, lambda: super(LimitedUserAdmin, self).changeform_view(request, *args, **kwargs))

    def delete_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        return self._refusable(request, lambda: super(LimitedUserAdmin, self).delete_view(request, *args, **kwargs))

    def changelist_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        return self._refusable(request, lambda: super(LimitedUserAdmin, self).changelist_view(request, *args, **kwargs))

    def _refusable(self, request: HttpRequest, view: Any) -> Any:
        try:
            return view()
        except DatabaseFault as fault:
            refusal = refusal_of(fault)
            if refusal is None or request.method != "POST":
                raise
            self.message_user(request, refusal.sentence, messages.ERROR)
            return HttpResponseRedirect(request.get_full_path())
