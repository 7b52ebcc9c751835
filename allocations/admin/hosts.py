"""Approved hosts in the admin."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from allocations.models import Host
from allocations.ports import hosts

from .base import OperationAdmin, OperationForm, context_of


class HostForm(OperationForm):
    """A form to approve a host."""

    hostname = forms.CharField(
        label="Host", max_length=255, help_text="A name such as web-1.example.com, or an IP address."
    )

    class Meta:
        model = Host
        fields = ()

    def operate(self, values: dict[str, Any]) -> Host:
        return hosts.approve(self.context, values["hostname"])


@admin.register(Host)
class HostAdmin(OperationAdmin):
    form = HostForm
    list_display = ("name", "approved_by", "approved_at")
    search_fields = ("name", "approved_by")
    ordering = ("name",)
    fields = ("hostname",)

    def get_fields(self, request: HttpRequest, obj: Host | None = None) -> Any:
        return ("name", "approved_by", "approved_at") if obj else ("hostname",)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # a host is approved or not

    def has_add_permission(self, request: HttpRequest) -> bool:
        return super().has_add_permission(request) and context_of(request).caller.projects is None

    def has_delete_permission(self, request: HttpRequest, obj: Host | None = None) -> bool:
        return super().has_delete_permission(request, obj) and not (obj and obj.is_this_machine)

    def response_delete(self, request: HttpRequest, obj_display: str, obj_id: int) -> HttpResponse:
        """Return to the list. Django goes there only if its rows can be changed."""
        super().response_delete(request, obj_display, obj_id)  # shows the message
        return redirect("admin:allocations_host_changelist")

    def delete_model(self, request: HttpRequest, obj: Host) -> None:
        hosts.withdraw(context_of(request), obj.name)
