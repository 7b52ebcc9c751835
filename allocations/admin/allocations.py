"""Allocations in the admin: add, edit, release."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from allocations import forms as port_forms
from allocations import listeners
from allocations.errors import PortError
from allocations.models import PortAllocation

from .base import OperationAdmin, OperationForm, VisibleProjects, ports_of


class AllocationForm(OperationForm):
    """Adding and editing; what an allocation is (project, host, port) is asked only when it is made."""

    port = port_forms.PortField(required=False, help_text="Empty: the lowest free one.")
    range_name = forms.CharField(
        label="Range", required=False, max_length=255, help_text="Empty: the project's own. Or a shared one."
    )
    renames = {
        "service": "service_name",
        "host": "hostname",
        "type": "service_type",
        "range": "range_name",
        "project": "project",
    }

    class Meta:
        model = PortAllocation
        fields = (
            *("project", "service_name", "hostname", "protocol", "service_type", "description"),
            *("cloudflare_hostname", "metadata", "expires_at"),
        )

    def operate(self, values: dict[str, Any]) -> PortAllocation:
        said = {
            "service_type": values.get("service_type", ""),
            "description": values["description"],
            "cloudflare_hostname": values.get("cloudflare_hostname"),
            "metadata": values.get("metadata") or {},
        }
        if self.instance._state.adding:
            return self.ports.allocate(
                values["project"].name,
                values["service_name"],
                hostname=values["hostname"],
                protocol=values["protocol"],
                port=values["port"],
                range_name=values["range_name"],
                **said,
            )
        if self.instance.status == PortAllocation.Status.RESERVED:
            said = {"description": values["description"], "expires_at": values["expires_at"]}
            if "expires_at" not in self.changed_data:
                said.pop("expires_at")
            return self.ports.update_allocation(self.instance.pk, **said)
        return self.ports.update_allocation(self.instance.pk, new_name=values["service_name"], **said)


@admin.register(PortAllocation)
class PortAllocationAdmin(OperationAdmin):
    form = AllocationForm
    list_display = (
        *("port_number", "protocol", "hostname", "project", "service_name", "instance"),
        *("status", "health", "last_used_at", "port_range", "service_type"),
    )
    list_filter = ("status", "health", "protocol", ("project", VisibleProjects), "hostname")
    search_fields = ("=port_number", "service_name", "project__name", "hostname", "cloudflare_hostname", "description")
    list_select_related = ("project", "port_range")
    autocomplete_fields = ("project",)
    date_hierarchy = "allocated_at"
    ordering = ("port_number", "hostname", "protocol", "-allocated_at")
    actions = ("release_selected",)
    KNOWN_LATER = (
        *("project", "port_range", "port_number", "instance", "hostname", "protocol", "status", "health"),
        *("allocated_at", "last_used_at", "released_at"),
    )

    def get_fields(self, request: HttpRequest, obj: PortAllocation | None = None) -> Any:
        if obj is None:
            return (
                *("project", "service_name", "port", "range_name", "hostname", "protocol"),
                *("service_type", "description", "cloudflare_hostname", "metadata"),
            )
        if obj.status == PortAllocation.Status.RESERVED:
            return (*self.KNOWN_LATER, "description", "expires_at")
        return (*self.KNOWN_LATER, "service_name", "service_type", "description", "cloudflare_hostname", "metadata")

    def get_readonly_fields(self, request: HttpRequest, obj: PortAllocation | None = None) -> Any:
        return () if obj is None else self.KNOWN_LATER

    def has_change_permission(self, request: HttpRequest, obj: PortAllocation | None = None) -> bool:
        """A released row is history: it is shown, not edited."""
        return super().has_change_permission(request, obj) and (obj is None or obj.is_held)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @admin.action(description="Release selected allocations", permissions=["change"])
    def release_selected(self, request: HttpRequest, rows: QuerySet[PortAllocation]) -> HttpResponse | None:
        """Asks first, and names what listens there."""
        chosen = list(rows.exclude(status=PortAllocation.Status.RELEASED).select_related("project"))
        if not chosen:
            self.message_user(request, "Nothing to release: what was selected is released already.", messages.WARNING)
            return None
        if "confirmed" not in request.POST:
            context = {
                **self.admin_site.each_context(request),
                "title": "Release these ports?",
                "opts": self.model._meta,
                "rows": [(a, _listening(a)) for a in chosen],
                "action": "release_selected",
            }
            return TemplateResponse(request, "admin/release_selected.html", context)
        self._release(request, chosen)
        return None

    def _release(self, request: HttpRequest, chosen: list[PortAllocation]) -> None:
        ports = ports_of(request)
        done = 0
        for allocation in chosen:
            try:
                ports.release_allocation(allocation.pk)
                done += 1
            except PortError as refusal:
                self.message_user(request, refusal.sentence, messages.ERROR)
        if done:
            self.message_user(request, f"Released {done} {'port' if done == 1 else 'ports'}.", messages.SUCCESS)


def _listening(allocation: PortAllocation) -> listeners.Socket | None:
    if not listeners.is_this_host(allocation.hostname):
        return None
    return listeners.is_listening(allocation.port_number, allocation.protocol)
