"""One allocation: everything about it, edit in place, release after asking."""

from __future__ import annotations

from uuid import UUID

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse

from allocations import listeners
from allocations.access import Role
from allocations.audit import told
from allocations.errors import PortError, UnknownAllocation
from allocations.forms import EditForm, EditReservationForm, PortForm
from allocations.models import Event, Listener, PortAllocation, Status
from allocations.pages import caller_of, done, door, elsewhere, page, paged, ports_of, posted, wants_fragment

from .projects import changed

CHECKS_PER_PAGE = 20


def _found(request: HttpRequest, pk: UUID) -> PortAllocation:
    rows = PortAllocation.objects.visible_to(caller_of(request)).select_related("project", "port_range")
    found = rows.filter(pk=pk).first()
    if found is None:
        raise UnknownAllocation("There is no such allocation.")
    return found


@door()
def allocation(request: HttpRequest, pk: UUID) -> HttpResponseBase:
    """Everything about one allocation, its checks, and its events."""
    found = _found(request, pk)
    checks = found.checks.all()
    uptime, visible = checks.uptime(), ports_of(request).visible_names()
    shown = paged(request, checks, CHECKS_PER_PAGE)
    for check in shown:
        check.evidence = told(check.evidence, visible)
    context = {
        "allocation": found,
        "checks": shown,
        "uptime": uptime.percentage,
        "check_count": uptime.checks,
        "listeners": Listener.objects.filter(hostname=found.hostname, protocol=found.protocol, port=found.port_number),
        "events": Event.objects.of(found)[:50],
    }
    return page(request, "allocations/allocation.html", "checks", context)


@door()
def row(request: HttpRequest, pk: UUID) -> HttpResponseBase:
    """The allocation's row of the project's table: what *Cancel* puts back."""
    found = _found(request, pk)
    if not wants_fragment(request):
        return redirect("allocation", pk)
    return page(request, "allocations/project_row.html", "row", {"a": found, "has_focus": True})


@door("GET", "POST", role=Role.OPERATOR, doing="change allocations")
def edit(request: HttpRequest, pk: UUID) -> HttpResponseBase:
    """Edit in place: htmx gets the row as a form, and the row again when it is saved."""
    found = _found(request, pk)
    form = _form(request, found)
    if request.method == "POST":
        saved = form.attempt(ports_of(request).update_allocation, pk)
        if saved is not None and wants_fragment(request):
            return page(request, "allocations/project_row.html", "row", {"a": saved, "has_focus": True})
        if saved is not None:
            return done(request, f"Saved {saved.label}.", reverse("allocation", args=[pk]))
    context = {"a": found, "form": form, "heading": f"Edit {found.label}", "button": "Save"}
    context["back"] = reverse("allocation", args=[pk])
    status = form.status if form.errors else 200
    if wants_fragment(request):
        next(iter(form.fields.values())).widget.attrs["autofocus"] = True
        return page(request, "allocations/project_row.html", "row_form", context, status)
    return page(request, "allocations/form.html", context=context, status=status)


def _form(request: HttpRequest, found: PortAllocation) -> PortForm:
    if found.status == Status.RESERVED:
        until = f"{found.expires_at:%Y-%m-%dT%H:%M%z}" if found.expires_at else ""
        initial = {"description": found.description, "expires_at": until}
        return EditReservationForm(posted(request), initial=initial, prefix=f"a{found.pk}")
    return EditForm(
        posted(request),
        initial={
            "new_name": found.service_name,
            "service_type": found.service_type,
            "description": found.description,
            "cloudflare_hostname": found.cloudflare_hostname or "",
        },
        prefix=f"a{found.pk}",
    )


@door("POST", role=Role.OPERATOR, doing="approve requests")
def approve(request: HttpRequest, pk: UUID) -> HttpResponseBase:
    """Let an agent's service have the port it asked for."""
    given = ports_of(request).approve_request(pk)
    return done(request, f"Approved: {given.label} has {given.address}.", reverse("project", args=[given.project.name]))


@door("POST", role=Role.OPERATOR, doing="refuse requests")
def refuse(request: HttpRequest, pk: UUID) -> HttpResponseBase:
    """Give the port of a request back."""
    gone = ports_of(request).refuse_request(pk)
    return done(request, f"Refused: {gone.address} is free again.", reverse("project", args=[gone.project.name]))


@door("GET", "POST", role=Role.OPERATOR, doing="release ports")
def release(request: HttpRequest, pk: UUID) -> HttpResponseBase:
    """Release, after asking and saying what listens there."""
    found, refusal = _found(request, pk), None
    if request.method == "POST":
        try:
            released = ports_of(request).release_allocation(pk)
            return changed(request, released.project.name, f"{released.label} released {released.address}.")
        except PortError as error:
            refusal = error
    listening = None
    if listeners.is_this_host(found.hostname):
        listening = listeners.is_listening(found.port_number, found.protocol)
    context = {
        "allocation": found,
        "listening": listening,
        "is_here": listeners.is_this_host(found.hostname),
        "back": reverse("project", args=[found.project.name]),
        "refusal": refusal,
    }
    status = refusal.status if refusal else 200
    return elsewhere(page(request, "allocations/release.html", "dialog", context, status), "dialog")
