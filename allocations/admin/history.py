"""What triggers and audits write: read-only in the admin."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from allocations.access import Caller
from allocations.audit import told
from allocations.models import Audit, Event, Listener, PortHealthCheck

from .base import ReadOnlyAdmin, ports_of


@admin.register(Event)
class EventAdmin(ReadOnlyAdmin):
    list_display = ("at", "actor", "source", "verb", "subject", "label")
    list_filter = ("subject", "verb", "source")
    search_fields = ("actor", "label")
    date_hierarchy = "at"


@admin.register(Audit)
class AuditAdmin(ReadOnlyAdmin):
    list_display = (
        *("finished_at", "actor", "source", "project", "hostname"),
        *("allocated", "in_use", "not_running", "conflicts", "unknown", "unallocated"),
    )
    list_select_related = ("project",)
    list_filter = ("source",)
    search_fields = ("actor", "project__name")
    date_hierarchy = "finished_at"


@admin.register(PortHealthCheck)
class PortHealthCheckAdmin(ReadOnlyAdmin):
    list_display = ("checked_at", "port_allocation", "status", "check_type", "response_time_ms")
    list_filter = ("status", "check_type")
    list_select_related = ("port_allocation__project",)
    search_fields = ("port_allocation__service_name", "port_allocation__project__name")
    date_hierarchy = "checked_at"

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        found = super().get_object(request, object_id, from_field)
        if found is not None:
            found.evidence = told(found.evidence, ports_of(request).visible_names())
        return found


@admin.register(Listener)
class ListenerAdmin(ReadOnlyAdmin):
    list_display = ("port", "protocol", "hostname", "address", "process", "pid", "container", "last_seen_at")
    list_filter = ("protocol", "hostname")
    search_fields = ("=port", "process", "container")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        caller = Caller.of_user(request.user)
        rows = Listener.objects.all() if caller.projects is None else Listener.objects.unallocated()
        return rows.order_by(*self.get_ordering(request)) if caller.projects is None else rows.visible_to(caller)
