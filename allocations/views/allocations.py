"""One allocation: its details, editing it in place, releasing it, and deciding about requests."""

from __future__ import annotations

from uuid import UUID

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse

from allocations import listeners
from allocations.audit import redact
from allocations.auth.roles import Role
from allocations.errors import PortError
from allocations.forms import EditForm, EditReservationForm, PortForm
from allocations.models import Event, Listener, PortAllocation, Status
from allocations.pages import (
    FORM_METHODS,
    context_of,
    form_data,
    page,
    paginate,
    redirect_with_message,
    require_role,
    retarget_refusal,
    wants_fragment,
)
from allocations.ports import allocations, queries

from .projects import show_changed_project

CHECKS_PER_PAGE = 20
EVENTS_SHOWN = 50


@require_role()
def detail(request: HttpRequest, pk: UUID) -> HttpResponseBase:
    """Show an allocation with its checks, its listeners and its events."""
    allocation = queries.get_allocation(context_of(request), pk)
    uptime, visible = allocation.checks.all().uptime(), queries.visible_project_names(context_of(request))
    checks = paginate(request, allocation.checks.all(), CHECKS_PER_PAGE)
    for check in checks:
        check.evidence = redact(check.evidence, visible)
    listening = Listener.objects.filter(
        hostname=allocation.hostname, protocol=allocation.protocol, port=allocation.port_number
    )
    context = {
        "allocation": allocation,
        "checks": checks,
        "uptime": uptime.percentage,
        "check_count": uptime.checks,
        "listeners": listening,
        "events": Event.objects.about(allocation.pk)[:EVENTS_SHOWN],
    }
    return page(request, "allocations/allocation.html", "checks", context)


@require_role()
def row(request: HttpRequest, pk: UUID) -> HttpResponseBase:
    """Return the allocation's row in the project's table, which replaces the form when *Cancel* is clicked."""
    allocation = queries.get_allocation(context_of(request), pk)
    if not wants_fragment(request):
        return redirect("allocation", pk)
    return _row(request, allocation)


def _row(request: HttpRequest, allocation: PortAllocation) -> HttpResponseBase:
    return page(request, "allocations/project_row.html", "row", {"allocation": allocation, "has_focus": True})


@require_role(Role.OPERATOR, action="change allocations", methods=FORM_METHODS)
def edit(request: HttpRequest, pk: UUID) -> HttpResponseBase:
    """Edit an allocation: on a page of its own, or in its row in the project's table."""
    allocation = queries.get_allocation(context_of(request), pk)
    form = _edit_form(request, allocation)
    if request.method == "POST":
        edited = form.attempt(allocations.update_by_id, context_of(request), pk)
        if edited is not None and wants_fragment(request):
            return _row(request, edited)
        if edited is not None:
            return redirect_with_message(request, f"Saved {edited.label}.", reverse("allocation", args=[pk]))
    context = {
        "allocation": allocation,
        "form": form,
        "heading": f"Edit {allocation.label}",
        "button": "Save",
        "back": reverse("allocation", args=[pk]),
    }
    if wants_fragment(request):
        next(iter(form.fields.values())).widget.attrs["autofocus"] = True
        return page(request, "allocations/project_row.html", "row_form", context, form.status)
    return page(request, "allocations/form.html", context=context, status=form.status)


def _edit_form(request: HttpRequest, allocation: PortAllocation) -> PortForm:
    """Return the form for an allocation. It has a prefix, because several rows can be edited at the same time."""
    prefix = f"a{allocation.pk}"
    if allocation.status == Status.RESERVED:
        expires_at = f"{allocation.expires_at:%Y-%m-%dT%H:%M%z}" if allocation.expires_at else ""
        initial = {"description": allocation.description, "expires_at": expires_at, "version": allocation.version}
        return EditReservationForm(form_data(request), initial=initial, prefix=prefix)
    return EditForm(
        form_data(request), initial={name: getattr(allocation, name) for name in EditForm.base_fields}, prefix=prefix
    )


@require_role(Role.OPERATOR, action="approve requests", methods=["POST"])
def approve(request: HttpRequest, pk: UUID) -> HttpResponseBase:
    """Let a service use the port that an agent requested."""
    allocation = allocations.approve_request(context_of(request), pk)
    message = f"Approved: {allocation.label} has {allocation.address}."
    return redirect_with_message(request, message, reverse("project", args=[allocation.project.name]))


@require_role(Role.OPERATOR, action="refuse requests", methods=["POST"])
def refuse(request: HttpRequest, pk: UUID) -> HttpResponseBase:
    """Release the port that an agent requested."""
    allocation = allocations.refuse_request(context_of(request), pk)
    message = f"Refused: {allocation.address} is free again."
    return redirect_with_message(request, message, reverse("project", args=[allocation.project.name]))


def _listener(allocation: PortAllocation) -> listeners.Socket | None:
    """Return what is listening on the port, or on the lowest such port of a block."""
    block = allocation.reservation
    if block is None:
        return listeners.is_listening(allocation.port_number, allocation.protocol)
    sockets = listeners.listening(block.start_port, block.end_port, block.protocol)
    return min(sockets, key=lambda socket: socket.port, default=None)


@require_role(Role.OPERATOR, action="release ports", methods=FORM_METHODS)
def release(request: HttpRequest, pk: UUID) -> HttpResponseBase:
    """Release a port. Ask for confirmation first, and name the process that is listening on it."""
    allocation, refusal = queries.get_allocation(context_of(request), pk), None
    if request.method == "POST":
        try:
            released = allocations.release_by_id(context_of(request), pk, ports=request.POST.get("ports", "").strip())
            message = f"{released.label} released {released.address}."
            return show_changed_project(request, released.project.name, message)
        except PortError as error:
            refusal = error
    is_here = listeners.is_this_host(allocation.hostname)
    context = {
        "allocation": allocation,
        "listener": _listener(allocation) if is_here else None,
        "is_here": is_here,
        "ports": request.POST.get("ports", allocation.ports),
        "back": reverse("project", args=[allocation.project.name]),
        "refusal": refusal,
    }
    status = refusal.status if refusal else 200
    return retarget_refusal(page(request, "allocations/release.html", "dialog", context, status), "dialog")
