"""Tokens in the admin."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from allocations.forms import ExpiryField, token_roles
from allocations.models import Project, Token
from allocations.ports import tokens

from .base import OperationAdmin, OperationForm, context_of


class TokenForm(OperationForm):
    """A form to create a token."""

    role = forms.ChoiceField()
    projects = forms.ModelMultipleChoiceField(
        Project.objects.none(), required=False, help_text="Select none for all projects that its user may see."
    )
    expires_at = ExpiryField(label="Expires", initial="90d", help_text="Such as 30d, or a date within a year.")
    # The new token in plain text, for the one response that shows it.
    secret = ""

    class Meta:
        model = Token
        fields = ("name", "user", "role")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        caller = self.context.caller
        self.fields["projects"].queryset = Project.objects.visible_to(caller)  # type: ignore[attr-defined]
        self.fields["role"].choices = token_roles(caller)  # type: ignore[attr-defined]
        if (user := self.fields.get("user")) is None:  # an existing token is shown, not edited
            return
        user.help_text = "The user it belongs to, whose rights it can never exceed. Leave empty for yourself."
        if caller.projects is not None:  # a limited caller can create tokens for nobody else, and sees no other users
            user.queryset = User.objects.filter(pk=caller.user or 0)  # type: ignore[attr-defined]

    def operate(self, values: dict[str, Any]) -> Token:
        token, self.secret = tokens.create(
            self.context,
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
        """Show the token in this response only. A message would store it in a cookie."""
        context = {**self.admin_site.each_context(request), "title": f"Token {obj.name} was made", "secret": obj.secret}
        return TemplateResponse(request, "admin/token_created.html", context)

    def save_form(self, request: HttpRequest, form: Any, change: bool) -> Any:
        token = super().save_form(request, form, change)
        token.secret = form.secret
        return token

    @admin.action(permissions=["add"], description="Revoke selected tokens for good")
    def revoke(self, request: HttpRequest, queryset: QuerySet[Token]) -> None:
        revoked = [tokens.revoke(context_of(request), token.pk) for token in queryset]
        self.message_user(
            request, f"Revoked {len(revoked)} {'token' if len(revoked) == 1 else 'tokens'}.", messages.SUCCESS
        )

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # the user and the role of a token never change

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
