"""Allocations in the admin: add, edit and release them."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from allocations import listeners
from allocations.allocation_spec import CHANGES, DETAILS
from allocations.errors import PortError
from allocations.forms import PortField
from allocations.models import PortAllocation
from allocations.ports import allocations

from .base import OperationAdmin, OperationForm, VisibleProjects, context_of


class AllocationForm(OperationForm):
    """A form to add or edit an allocation. Its project, host and port can be set only when it is added."""

    port_number = PortField(label="Port", required=False, help_text="Leave empty for the lowest free port.")
    range_name = forms.CharField(
        label="Range",
        required=False,
        max_length=255,
        help_text="Leave empty for the project's own ranges, or name a shared range.",
    )

    class Meta:
        model = PortAllocation
        fields = ("project", "service_name", "hostname", "protocol", *DETAILS, "expires_at")

    def operate(self, values: dict[str, Any]) -> PortAllocation:
        if self.instance._state.adding:
            spec = {name: value for name, value in values.items() if name != "project"}
            return allocations.allocate(self.context, values["project"].name, **spec)
        changes = {name: value for name, value in values.items() if name in CHANGES}
        if "expires_at" not in self.changed_data:
            changes.pop("expires_at", None)  # it may be in the past by now
        return allocations.update_by_id(self.context, self.instance.pk, expected=self.expected, **changes)


@admin.register(PortAllocation)
class PortAllocationAdmin(OperationAdmin):
    form = AllocationForm
    list_display = (
        *("ports", "protocol", "hostname", "project", "service_name", "instance"),
        *("status", "health", "last_used_at", "port_range", "service_type"),
    )
    list_filter = ("status", "health", "protocol", ("project", VisibleProjects), "hostname")
    search_fields = ("=port_number", "service_name", "project__name", "hostname", "cloudflare_hostname", "description")
    list_select_related = ("project", "port_range", "reservation")
    autocomplete_fields = ("project",)
    date_hierarchy = "allocated_at"
    ordering = ("port_number", "hostname", "protocol", "-allocated_at")
    actions = ("release_selected",)
    # The fields that never change, and those that only operations and audits write.
    FIXED_FIELDS = (
        *("project", "port_range", "port_number", "instance", "hostname", "protocol", "status", "health"),
        *("allocated_at", "last_used_at", "released_at"),
    )

    def get_fields(self, request: HttpRequest, obj: PortAllocation | None = None) -> Any:
        if obj is None:
            return ("project", "service_name", "port_number", "range_name", "hostname", "protocol", *DETAILS)
        if obj.status == PortAllocation.Status.RESERVED:
            return (*self.FIXED_FIELDS, "description", "expires_at")
        return (*self.FIXED_FIELDS, "service_name", *DETAILS)

    def get_readonly_fields(self, request: HttpRequest, obj: PortAllocation | None = None) -> Any:
        return () if obj is None else self.FIXED_FIELDS

    def has_change_permission(self, request: HttpRequest, obj: PortAllocation | None = None) -> bool:
        """A released allocation is history: it can be viewed, but not edited."""
        return super().has_change_permission(request, obj) and (obj is None or obj.is_held)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @admin.display(description="Ports", ordering="port_number")
    def ports(self, allocation: PortAllocation) -> str:
        return allocation.ports

    def get_queryset(self, request: HttpRequest) -> QuerySet[PortAllocation]:
        return super().get_queryset(request).blocks()  # type: ignore[attr-defined,no-any-return]

    @admin.action(description="Release selected allocations", permissions=["change"])
    def release_selected(self, request: HttpRequest, queryset: QuerySet[PortAllocation]) -> HttpResponse | None:
        """Ask for confirmation, showing the processes that are listening on the ports, and then release them."""
        rows = queryset.exclude(status=PortAllocation.Status.RELEASED)
        selected = list(rows.select_related("project", "reservation"))
        if not selected:
            self.message_user(request, "All selected allocations have been released already.", messages.WARNING)
            return None
        if "confirmed" not in request.POST:
            context = {
                **self.admin_site.each_context(request),
                "title": "Release these ports?",
                "opts": self.model._meta,
                "rows": [(allocation, _listener_of(allocation)) for allocation in selected],
                "action": "release_selected",
            }
            return TemplateResponse(request, "admin/release_selected.html", context)
        self._release(request, selected)
        return None

    def _release(self, request: HttpRequest, selected: list[PortAllocation]) -> None:
        count = 0
        for allocation in selected:
            try:
                allocations.release_by_id(context_of(request), allocation.pk)
                count += 1
            except PortError as error:
                self.message_user(request, error.sentence, messages.ERROR)
        if count:
            self.message_user(request, f"Released {count} {'port' if count == 1 else 'ports'}.", messages.SUCCESS)


def _listener_of(allocation: PortAllocation) -> listeners.Socket | None:
    """Return what is listening on the allocation's port now, or None if the allocation is on another host."""
    if not listeners.is_this_host(allocation.hostname):
        return None
    return listeners.is_listening(allocation.port_number, allocation.protocol)
