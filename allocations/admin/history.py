"""Events, audits, checks and listeners in the admin: triggers and audits write them, so they are read-only."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from allocations.audit import redact
from allocations.models import Audit, Event, Listener, PortHealthCheck
from allocations.pages import caller_of
from allocations.ports import queries

from .base import ReadOnlyAdmin, context_of


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
        check = super().get_object(request, object_id, from_field)
        if check is not None:
            check.evidence = redact(check.evidence, queries.visible_project_names(context_of(request)))
        return check


@admin.register(Listener)
class ListenerAdmin(ReadOnlyAdmin):
    list_display = ("port", "protocol", "hostname", "address", "process", "pid", "container", "last_seen_at")
    list_filter = ("protocol", "hostname")
    search_fields = ("=port", "process", "container")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return all listeners or, for a limited caller, the unallocated ones in ranges of their projects."""
        caller = caller_of(request)
        if caller.projects is not None:
            return Listener.objects.unallocated().visible_to(caller)
        return Listener.objects.order_by(*self.get_ordering(request))
