"""Projects and ranges in the admin."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html

from allocations.forms import NewRangeForm, PortField
from allocations.models import PortRange, Project
from allocations.ports import projects, ranges

from .base import OperationAdmin, OperationForm, context_of


class ProjectForm(OperationForm, NewRangeForm):
    """A form to add a project with a range, or to edit a project without its ranges."""

    class Meta:
        model = Project
        fields = ("name", "description", "mode", "agent_quota")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self.instance._state.adding:
            for name in NewRangeForm.base_fields:
                del self.fields[name]

    def operate(self, values: dict[str, Any]) -> Project:
        if self.instance._state.adding:
            return projects.add(self.context, **values)
        name = Project.objects.values_list("name", flat=True).get(pk=self.instance.pk)
        return projects.update(self.context, name, expected=self.expected, **values)


@admin.register(Project)
class ProjectAdmin(OperationAdmin):
    form = ProjectForm
    list_display = ("name", "ports", "held", "used", "mode", "description")
    search_fields = ("name", "description", "ranges__range_name")
    ordering = ("name",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).with_usage()  # type: ignore[attr-defined,no-any-return]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return ("name", "description", *(("mode", "agent_quota") if obj else NewRangeForm.base_fields))

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
        projects.delete(context_of(request), obj.name)


class RangeForm(OperationForm):
    """A form to add or edit a range."""

    start_port = PortField(label="Start port")
    end_port = PortField(label="End port")

    class Meta:
        model = PortRange
        fields = ("project", "range_name", "start_port", "end_port", "description", "is_shared", "is_active")

    def operate(self, values: dict[str, Any]) -> PortRange:
        values = values | {"project": values["project"].name}
        if self.instance._state.adding:
            return ranges.add(self.context, **values)
        return ranges.update(self.context, self.instance.pk, expected=self.expected, **values)


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
        ranges.delete(context_of(request), obj.pk)
