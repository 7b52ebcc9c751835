"""Ranges: the list, and adding, editing and deleting one."""

from __future__ import annotations

from uuid import UUID

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import reverse

from allocations.auth.roles import Role
from allocations.errors import PortError
from allocations.forms import EditRangeForm, RangeForm, project_names
from allocations.models import PortRange
from allocations.pages import (
    FORM_METHODS,
    caller_of,
    context_of,
    form_data,
    page,
    paginate,
    redirect_with_message,
    require_role,
)
from allocations.ports import ranges


@require_role()
def index(request: HttpRequest) -> HttpResponseBase:
    """Show all ranges in port order, and how full they are."""
    rows = PortRange.objects.visible_to(caller_of(request)).with_usage().select_related("project")
    return page(request, "allocations/ranges.html", "ranges", {"ranges": paginate(request, rows)})


@require_role(Role.ADMIN, action="add ranges", methods=FORM_METHODS)
def add(request: HttpRequest) -> HttpResponseBase:
    """Add a range to a project."""
    form = RangeForm(form_data(request), initial={"project": request.GET.get("project", "")[:255]})
    if request.method == "POST":
        port_range = form.attempt(ranges.add, context_of(request))
        if port_range is not None:
            return redirect_with_message(request, f"Added {port_range}.", reverse("ranges"))
    return _form_page(request, form, "Add a range", "Add range")


@require_role(Role.ADMIN, action="change ranges", methods=FORM_METHODS)
def edit(request: HttpRequest, pk: UUID) -> HttpResponseBase:
    """Edit a range. It must still contain its held ports, and must not overlap another range."""
    port_range = ranges.get(context_of(request), pk)
    initial = {name: getattr(port_range, name) for name in EditRangeForm.base_fields}
    form = EditRangeForm(form_data(request), initial=initial | {"project": port_range.project.name})
    if request.method == "POST":
        edited = form.attempt(ranges.update, context_of(request), pk)
        if edited is not None:
            return redirect_with_message(request, f"Saved {edited}.", reverse("ranges"))
    return _form_page(request, form, f"Edit {port_range.range_name}", "Save")


def _form_page(request: HttpRequest, form: RangeForm, heading: str, button: str) -> HttpResponseBase:
    context = {
        "form": form,
        "heading": heading,
        "button": button,
        "back": reverse("ranges"),
        "projects": project_names(caller_of(request)),
    }
    return page(request, "allocations/form.html", "form", context, form.status)


@require_role(Role.ADMIN, action="delete ranges", methods=FORM_METHODS)
def delete(request: HttpRequest, pk: UUID) -> HttpResponseBase:
    """Delete a range. Ask for confirmation first."""
    port_range, refusal = ranges.get(context_of(request), pk), None
    if request.method == "POST":
        try:
            ranges.delete(context_of(request), pk)
            return redirect_with_message(request, f"Deleted {port_range}.", reverse("ranges"))
        except PortError as error:
            refusal = error
    context = {
        "heading": f"Delete {port_range.range_name} ({port_range.start_port}-{port_range.end_port})?",
        "sentence": f"{port_range.project.name} loses these ports. A range with ports that are held or in the history "
        "cannot be deleted; deactivate it instead.",
        "button": "Delete range",
        "back": reverse("ranges"),
        "refusal": refusal,
    }
    return page(request, "allocations/confirm.html", "confirm", context, refusal.status if refusal else 200)
