"""Projects: their map, their allocations, and what can be done with them."""

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

from allocations import words
from allocations.access import Role
from allocations.errors import PortError, UnknownProject
from allocations.forms import AllocateForm, EditProjectForm, FilterForm, PortForm, ProjectForm, ReserveForm
from allocations.models import Event, Listener, PortAllocation, PortRange, Project
from allocations.pages import caller_of, done, door, page, paged, ports_of, posted, wants_fragment, without_page
from allocations.portmap import PortMap, port_map, window

EVENTS_SHOWN = 10
FILTERS = ("q", "status", "host", "protocol")


@door()
def project(request: HttpRequest, name: str) -> HttpResponseBase:
    """A project: its map, its allocations with filters, its recent events."""
    return _shown(request, name)


def _shown(
    request: HttpRequest,
    name: str,
    *,
    allocate: PortForm | None = None,
    reserve: PortForm | None = None,
    status: int = 200,
) -> HttpResponseBase:
    found = _found(request, name)
    wanted = _port_of(request)
    given = allocate or AllocateForm(initial={"port": wanted or ""}, auto_id="allocate-%s")
    if wanted:
        given.fields["service_name"].widget.attrs["autofocus"] = True
    context = {
        "project": found,
        "maps": lambda: _maps(request, found),  # not for the table alone
        "allocate_form": given,
        "reserve_form": reserve or ReserveForm(initial={"first": wanted or ""}, auto_id="reserve-%s"),
        "requests": PortAllocation.objects.pending().filter(project=found).select_related("project"),
        "events": Event.objects.visible_to(caller_of(request)).filter(project_id=found.pk)[:EVENTS_SHOWN],
        **_table(request, name),
    }
    # Filters replace the table alone, a change all that it may have changed.
    return page(request, "allocations/project.html", "table" if request.method == "GET" else "project", context, status)


def changed(request: HttpRequest, name: str, sentence: str) -> HttpResponseBase:
    """After a change of what a project holds: the project as it is now."""
    if not wants_fragment(request):
        return done(request, sentence, reverse("project", args=[name]))
    messages.success(request, sentence)
    return _shown(request, name)


def _found(request: HttpRequest, name: str) -> Project:
    # What cannot be a name is nobody's, and no question for the database.
    named = Project.objects.filter(name=name) if words.is_name(name) else Project.objects.none()
    found = named.visible_to(caller_of(request)).with_usage().first()
    if found is None:
        raise UnknownProject(f"There is no project {name}.", field="project")
    return found


def _port_of(request: HttpRequest, name: str = "port") -> int | None:
    """A port of the address: `?port=3105` for a free cell that was followed, `?from=` for the window of a map."""
    try:
        return words.port_text(request.GET.get(name, ""))
    except PortError:
        return None


def _maps(request: HttpRequest, found: Project) -> list[PortMap]:
    ranges = list(PortRange.objects.filter(project=found).with_usage())
    port = _port_of(request, "from") or _port_of(request)
    shown = [Q(port_number__range=window(r, port)) for r in ranges]
    caller = caller_of(request)
    held = PortAllocation.objects.held().filter(reduce(or_, shown, Q(pk__in=[])))
    seen = held.visible_to(caller)
    # In a shared range, what projects hold that this caller does not see.
    unseen = held.exclude(pk__in=seen.values("pk")) if caller.projects is not None else held.none()
    listeners = Listener.objects.unallocated().in_ranges_of(found)
    allocations, strays = list(seen.select_related("project")), list(listeners)
    taken = set(unseen.values_list("port_number", flat=True))
    return [
        port_map(
            r,
            [a for a in allocations if a.port_range_id == r.pk],
            [s for s in strays if r.start_port <= s.port <= r.end_port],
            port,
            taken,
        )
        for r in ranges
    ]


def _table(request: HttpRequest, name: str) -> dict[str, Any]:
    """The project's allocations, filtered; a filter that makes no sense is shown with its error and filters nothing."""
    form = FilterForm(request.GET)
    wanted = form.cleaned_data if form.is_valid() else {}
    refusal = None
    try:
        rows = ports_of(request).list(
            name,
            status=wanted.get("status") or None,
            hostname=wanted.get("host") or None,
            protocol=wanted.get("protocol") or None,
            text=wanted.get("q") or "",
        )
    except PortError as error:
        rows, refusal = ports_of(request).list(name), error
    return {
        "rows": paged(request, rows),
        "filter": form,
        "is_filtered": any(wanted.get(f) for f in FILTERS),
        "query": without_page(request, FILTERS),
        "filter_refusal": refusal,
    }


@door("POST", role=Role.OPERATOR, doing="allocate ports")
def allocate(request: HttpRequest, name: str) -> HttpResponseBase:
    """A port for a service: the one it has, or a new one."""
    form = AllocateForm(request.POST, auto_id="allocate-%s")
    ports = ports_of(request)
    given = form.attempt(lambda service_name, **wanted: ports.get_or_allocate(name, service_name, **wanted))
    if given is None:
        return _shown(request, name, allocate=form, status=form.status)
    verb = "has" if given.created else "had already"
    return changed(request, name, f"{given.label} {verb} {given.address}.")


@door("POST", role=Role.OPERATOR, doing="reserve ports")
def reserve(request: HttpRequest, name: str) -> HttpResponseBase:
    """Ports held for later."""
    form = ReserveForm(request.POST, auto_id="reserve-%s")
    held = form.attempt(ports_of(request).reserve_block, name)
    if held is None:
        return _shown(request, name, reserve=form, status=form.status)
    span = f"{held[0].port_number}" if len(held) == 1 else f"{held[0].port_number}-{held[-1].port_number}"
    return changed(request, name, f"Reserved {span}.")


@door("GET", "POST", role=Role.ADMIN, doing="add projects")
def add(request: HttpRequest) -> HttpResponseBase:
    """A new project with a range."""
    form = ProjectForm(posted(request))
    if request.method == "POST":
        made = form.attempt(ports_of(request).add_project)
        if made is not None:
            return done(request, f"Added {made.name}.", reverse("project", args=[made.name]))
    context = {"form": form, "heading": "Add a project", "button": "Add project", "back": reverse("home")}
    return page(request, "allocations/form.html", "form", context, form.status if form.errors else 200)


@door("GET", "POST", role=Role.ADMIN, doing="change projects")
def edit(request: HttpRequest, name: str) -> HttpResponseBase:
    """A project's name and description."""
    found = _found(request, name)
    form = EditProjectForm(posted(request), initial=model_to_dict(found) | {"new_name": found.name})
    if request.method == "POST":
        saved = form.attempt(ports_of(request).update_project, name)
        if saved is not None:
            return done(request, "Saved.", reverse("project", args=[saved.name]))
    back = reverse("project", args=[name])
    context = {"form": form, "heading": f"Edit {name}", "button": "Save", "back": back, "project": found}
    return page(request, "allocations/form.html", "form", context, form.status if form.errors else 200)


@door("GET", "POST", role=Role.ADMIN, doing="delete projects")
def delete(request: HttpRequest, name: str) -> HttpResponseBase:
    """Delete a project, after asking."""
    found, refusal = _found(request, name), None
    if request.method == "POST":
        try:
            ports_of(request).delete_project(name)
            return done(request, f"Deleted {name}.", reverse("home"))
        except PortError as error:
            refusal = error
    context = {
        "heading": f"Delete {name}?",
        "sentence": "Its ranges go with it. A project that holds or held ports cannot be deleted.",
        "button": "Delete project",
        "back": reverse("project", args=[name]),
        "project": found,
        "refusal": refusal,
    }
    return page(request, "allocations/confirm.html", "confirm", context, refusal.status if refusal else 200)
