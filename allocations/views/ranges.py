"""Ranges: list, add, edit, delete."""

from __future__ import annotations

from uuid import UUID

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import reverse

from allocations.access import Role
from allocations.errors import PortError, UnknownRange
from allocations.forms import RangeForm, project_names
from allocations.models import PortRange
from allocations.pages import caller_of, done, door, page, paged, ports_of, posted


@door()
def ranges(request: HttpRequest) -> HttpResponseBase:
    """All ranges in port order, with how full they are."""
    rows = PortRange.objects.visible_to(caller_of(request)).with_usage().select_related("project")
    return page(request, "allocations/ranges.html", "ranges", {"ranges": paged(request, rows)})


@door("GET", "POST", role=Role.ADMIN, doing="add ranges")
def add(request: HttpRequest) -> HttpResponseBase:
    """A further range of a project."""
    form = RangeForm(posted(request), initial={"project": request.GET.get("project", "")[:255]})
    if request.method == "POST":
        made = form.attempt(ports_of(request).add_range)
        if made is not None:
            return done(request, f"Added {made}.", reverse("ranges"))
    return _form(request, form, "Add a range", "Add range")


def _form(request: HttpRequest, form: RangeForm, heading: str, button: str) -> HttpResponseBase:
    context = {
        "form": form,
        "heading": heading,
        "button": button,
        "back": reverse("ranges"),
        "projects": project_names(caller_of(request)),
    }
    return page(request, "allocations/form.html", "form", context, form.status if form.errors else 200)


def _found(request: HttpRequest, pk: UUID) -> PortRange:
    found = PortRange.objects.visible_to(caller_of(request)).select_related("project").filter(pk=pk).first()
    if found is None:
        raise UnknownRange("There is no such range.")
    return found


@door("GET", "POST", role=Role.ADMIN, doing="change ranges")
def edit(request: HttpRequest, pk: UUID) -> HttpResponseBase:
    """Change a range; what would strand a held port or overlap another range is refused in words."""
    found = _found(request, pk)
    form = RangeForm(
        posted(request),
        initial={
            "project": found.project.name,
            "range_name": found.range_name,
            "start": found.start_port,
            "end": found.end_port,
            "description": found.description,
            "shared": found.is_shared,
            "active": found.is_active,
        },
    )
    if request.method == "POST":
        changed = form.attempt(ports_of(request).update_range, pk)
        if changed is not None:
            return done(request, f"Saved {changed}.", reverse("ranges"))
    return _form(request, form, f"Edit {found.range_name}", "Save")


@door("GET", "POST", role=Role.ADMIN, doing="delete ranges")
def delete(request: HttpRequest, pk: UUID) -> HttpResponseBase:
    """Delete a range, after asking."""
    found, refusal = _found(request, pk), None
    if request.method == "POST":
        try:
            ports_of(request).delete_range(pk)
            return done(request, f"Deleted {found}.", reverse("ranges"))
        except PortError as error:
            refusal = error
    context = {
        "heading": f"Delete {found.range_name} ({found.start_port}-{found.end_port})?",
        "sentence": f"{found.project.name} loses these ports. A range with held ports or a history cannot be deleted; "
        "deactivate it instead.",
        "button": "Delete range",
        "back": reverse("ranges"),
        "refusal": refusal,
    }
    return page(request, "allocations/confirm.html", "confirm", context, refusal.status if refusal else 200)
