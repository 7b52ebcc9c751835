"""Projects and ranges in the admin."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html

from allocations import forms as port_forms
from allocations import words
from allocations.models import PortRange, Project

from .base import OperationAdmin, OperationForm, ports_of


class ProjectForm(OperationForm):
    size = port_forms.PortField(
        label="Ports", required=False, initial=str(words.DEFAULT_RANGE_SIZE), help_text="How many its range has."
    )
    start = port_forms.PortField(label="From port", required=False, help_text="Empty: the next free block.")
    shared = forms.BooleanField(required=False, help_text="Other projects may name its range.")
    renames = {"project": "name", "range": "name", "start port": "start"}

    class Meta:
        model = Project
        fields = ("name", "description", "mode", "agent_quota")

    def operate(self, values: dict[str, Any]) -> Project:
        if not self.instance._state.adding:
            name = Project.objects.get(pk=self.instance.pk).name
            changes = {key: values[key] for key in ("description", "mode", "agent_quota")}
            return self.ports.update_project(name, new_name=values["name"], **changes)
        return self.ports.add_project(
            values["name"],
            description=values["description"],
            size=values["size"] or words.DEFAULT_RANGE_SIZE,
            start=values["start"],
            shared=values["shared"],
        )


@admin.register(Project)
class ProjectAdmin(OperationAdmin):
    form = ProjectForm
    list_display = ("name", "ports", "held", "used", "mode", "description")
    search_fields = ("name", "description", "ranges__range_name")
    ordering = ("name",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).with_usage()  # type: ignore[attr-defined,no-any-return]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        about = ("name", "description")
        return (*about, "mode", "agent_quota") if obj else (*about, "size", "start", "shared")

    @admin.display(description="Ports")
    def ports(self, project: Project) -> str:
        return f"{project.bounds[0]}–{project.bounds[1]}" if project.bounds else "none"

    @admin.display(description="Held")
    def held(self, project: Project) -> str:
        return f"{project.usage.held} of {project.usage.total}"

    @admin.display(description="Used")
    def used(self, project: Project) -> str:
        return format_html('<progress max="100" value="{0}">{0} %</progress> {0} %', project.usage.percent)

    def delete_model(self, request: HttpRequest, obj: Project) -> None:
        ports_of(request).delete_project(obj.name)


class RangeForm(OperationForm):
    start_port = port_forms.PortField(label="From port")
    end_port = port_forms.PortField(label="To port")
    renames = {"range": "range_name", "start port": "start_port", "end port": "end_port", "shared": "is_shared"}

    class Meta:
        model = PortRange
        fields = ("project", "range_name", "start_port", "end_port", "description", "is_shared", "is_active")

    def operate(self, values: dict[str, Any]) -> PortRange:
        said: dict[str, Any] = {
            "description": values["description"],
            "shared": values["is_shared"],
            "active": values["is_active"],
        }
        project, name = values["project"].name, values["range_name"]
        start, end = values["start_port"], values["end_port"]
        if self.instance._state.adding:
            return self.ports.add_range(project, name, start, end, **said)
        return self.ports.update_range(self.instance.pk, project=project, range_name=name, start=start, end=end, **said)


@admin.register(PortRange)
class PortRangeAdmin(OperationAdmin):
    form = RangeForm
    list_display = ("range_name", "project", "start_port", "end_port", "size", "held", "is_shared", "is_active")
    list_filter = ("is_shared", "is_active")
    search_fields = ("range_name", "project__name", "description")
    list_select_related = ("project",)
    autocomplete_fields = ("project",)
    ordering = ("start_port",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).with_usage()  # type: ignore[attr-defined,no-any-return]

    @admin.display(description="Held")
    def held(self, port_range: PortRange) -> str:
        return f"{port_range.usage.held} ({port_range.usage.percent} %)"

    def delete_model(self, request: HttpRequest, obj: PortRange) -> None:
        ports_of(request).delete_range(obj.pk)
