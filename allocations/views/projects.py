"""Projects: their maps, their allocations, and what can be done with them."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Any

from django.contrib import messages
from django.db.models import Q
from django.forms import model_to_dict
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import reverse

from allocations import validators
from allocations.auth.roles import Role
from allocations.errors import PortError, UnknownProject
from allocations.forms import AllocateForm, EditProjectForm, FilterForm, PortForm, ProjectForm, ReserveForm
from allocations.models import Event, Listener, PortAllocation, PortRange, Project
from allocations.pages import (
    FORM_METHODS,
    caller_of,
    context_of,
    form_data,
    page,
    paginate,
    query_string,
    redirect_with_message,
    require_role,
    wants_fragment,
)
from allocations.portmap import PortMap, port_map, window
from allocations.ports import allocations, projects, queries, reservations

EVENTS_SHOWN = 10


@require_role()
def detail(request: HttpRequest, name: str) -> HttpResponseBase:
    """Show a project: the maps of its ranges, its allocations with filters, and its recent events."""
    return _detail(request, name)


def _detail(
    request: HttpRequest, name: str, *, allocate_form: PortForm | None = None, reserve_form: PortForm | None = None
) -> HttpResponseBase:
    project = _get(request, name)
    port_number = _port_parameter(request, "port")
    status = next((form.status for form in (allocate_form, reserve_form) if form), 200)
    if allocate_form is None:
        allocate_form = AllocateForm(initial={"port_number": port_number or ""}, auto_id="allocate-%s")
    if port_number:
        allocate_form.fields["service_name"].widget.attrs["autofocus"] = True
    if reserve_form is None:
        reserve_form = ReserveForm(initial={"start_port": port_number or ""}, auto_id="reserve-%s")
    context = {
        "project": project,
        "maps": lambda: _maps(request, project),  # the table alone does not need them
        "allocate_form": allocate_form,
        "reserve_form": reserve_form,
        "requests": PortAllocation.objects.pending().filter(project=project).select_related("project"),
        "events": Event.objects.visible_to(caller_of(request)).filter(project_id=project.pk)[:EVENTS_SHOWN],
        **_table(request, name),
    }
    # Filters replace the table alone; a change replaces everything that it may have affected.
    return page(request, "allocations/project.html", "table" if request.method == "GET" else "project", context, status)


def show_changed_project(request: HttpRequest, name: str, message: str) -> HttpResponseBase:
    """Report a change to what a project holds, and show the project as it is now."""
    if not wants_fragment(request):
        return redirect_with_message(request, message, reverse("project", args=[name]))
    messages.success(request, message)
    return _detail(request, name)


def _get(request: HttpRequest, name: str) -> Project:
    """Return the project that the address of the page names. An invalid name is reported as unknown."""
    if not validators.is_name(name):
        raise UnknownProject(f"There is no project {name}.", field="project")
    return queries.get_project(context_of(request), name)


def _port_parameter(request: HttpRequest, name: str) -> int | None:
    """Return a port in the address: `?port=` of a free cell, or `?from=` of the next part of a map."""
    try:
        return validators.parse_port_number(request.GET.get(name, ""))
    except PortError:
        return None


def _maps(request: HttpRequest, project: Project) -> list[PortMap]:
    ranges = list(PortRange.objects.filter(project=project).with_usage())
    port_number = _port_parameter(request, "from") or _port_parameter(request, "port")
    windows = [Q(port_number__range=window(r, port_number)) for r in ranges]
    caller = caller_of(request)
    held = PortAllocation.objects.held().filter(reduce(or_, windows, Q(pk__in=[])))
    visible = held.visible_to(caller)
    # A shared range also holds ports of projects that a limited caller may not see.
    hidden = held.exclude(pk__in=visible.values("pk")) if caller.projects is not None else held.none()
    hidden_ports = set(hidden.values_list("port_number", flat=True))
    rows = list(visible.select_related("project"))
    listeners = list(Listener.objects.unallocated().in_ranges_of(project))
    return [
        port_map(
            r,
            [a for a in rows if a.port_range_id == r.pk],
            [listener for listener in listeners if r.start_port <= listener.port <= r.end_port],
            port_number,
            hidden_ports,
        )
        for r in ranges
    ]


def _table(request: HttpRequest, name: str) -> dict[str, Any]:
    """Return the project's allocations, filtered. An invalid filter is shown with its error, and filters nothing."""
    form = FilterForm(request.GET)
    filters = form.cleaned_data if form.is_valid() else {}
    refusal = None
    try:
        rows = queries.list_allocations(
            context_of(request),
            name,
            status=filters.get("status"),
            hostname=filters.get("hostname"),
            protocol=filters.get("protocol"),
            text=filters.get("q", ""),
        )
    except PortError as error:
        rows, refusal = queries.list_allocations(context_of(request), name), error
    return {
        "rows": paginate(request, rows),
        "filter": form,
        "is_filtered": any(filters.values()),
        "query": query_string(request, form.fields),
        "filter_refusal": refusal,
    }


@require_role(Role.OPERATOR, action="allocate ports", methods=["POST"])
def allocate(request: HttpRequest, name: str) -> HttpResponseBase:
    """Allocate a port to a service, or show the one that it already has."""
    form = AllocateForm(request.POST, auto_id="allocate-%s")
    allocation = form.attempt(allocations.get_or_allocate, context_of(request), name)
    if allocation is None:
        return _detail(request, name, allocate_form=form)
    verb = "has" if allocation.created else "already has"
    return show_changed_project(request, name, f"{allocation.label} {verb} {allocation.address}.")


@require_role(Role.OPERATOR, action="reserve ports", methods=["POST"])
def reserve(request: HttpRequest, name: str) -> HttpResponseBase:
    """Reserve a block of ports."""
    form = ReserveForm(request.POST, auto_id="reserve-%s")
    reserved = form.attempt(reservations.reserve_block, context_of(request), name)
    if reserved is None:
        return _detail(request, name, reserve_form=form)
    start, end = reserved[0].port_number, reserved[-1].port_number
    return show_changed_project(request, name, f"Reserved {start}." if start == end else f"Reserved {start}-{end}.")


@require_role(Role.ADMIN, action="add projects", methods=FORM_METHODS)
def add(request: HttpRequest) -> HttpResponseBase:
    """Add a project with a range."""
    form = ProjectForm(form_data(request))
    if request.method == "POST":
        project = form.attempt(projects.add, context_of(request))
        if project is not None:
            return redirect_with_message(request, f"Added {project.name}.", reverse("project", args=[project.name]))
    context = {"form": form, "heading": "Add a project", "button": "Add project", "back": reverse("home")}
    return page(request, "allocations/form.html", "form", context, form.status)


@require_role(Role.ADMIN, action="change projects", methods=FORM_METHODS)
def edit(request: HttpRequest, name: str) -> HttpResponseBase:
    """Edit the name and the details of a project."""
    project = _get(request, name)
    form = EditProjectForm(form_data(request), initial={**model_to_dict(project), "version": project.version})
    if request.method == "POST":
        edited = form.attempt(projects.update, context_of(request), name)
        if edited is not None:
            return redirect_with_message(request, f"Saved {edited.name}.", reverse("project", args=[edited.name]))
    back = reverse("project", args=[name])
    context = {"form": form, "heading": f"Edit {name}", "button": "Save", "back": back}
    return page(request, "allocations/form.html", "form", context, form.status)


@require_role(Role.ADMIN, action="delete projects", methods=FORM_METHODS)
def delete(request: HttpRequest, name: str) -> HttpResponseBase:
    """Delete a project. Ask for confirmation first."""
    _get(request, name)
    refusal = None
    if request.method == "POST":
        try:
            projects.delete(context_of(request), name)
            return redirect_with_message(request, f"Deleted {name}.", reverse("home"))
        except PortError as error:
            refusal = error
    context = {
        "heading": f"Delete {name}?",
        "sentence": "Its ranges are deleted with it. A project with ports that are held or in the history cannot be "
        "deleted.",
        "button": "Delete project",
        "back": reverse("project", args=[name]),
        "refusal": refusal,
    }
    return page(request, "allocations/confirm.html", "confirm", context, refusal.status if refusal else 200)
