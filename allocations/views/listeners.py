"""Unallocated listeners, and adopting them."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import reverse

from allocations.auth.roles import Role
from allocations.forms import AdoptForm, project_names
from allocations.models import Audit, Listener
from allocations.pages import (
    caller_of,
    context_of,
    page,
    paginate,
    redirect_with_message,
    require_role,
    wants_fragment,
)
from allocations.ports import allocations


@require_role()
def index(request: HttpRequest) -> HttpResponseBase:
    """Show the unallocated listeners that the last audit recorded."""
    return _list(request)


def _list(request: HttpRequest, form: AdoptForm | None = None) -> HttpResponseBase:
    caller = caller_of(request)
    context = {
        "listeners": paginate(request, Listener.objects.unallocated().visible_to(caller)),
        "last_audit": Audit.objects.first(),
        "projects": project_names(caller),
        "form": form,
    }
    return page(request, "allocations/listeners.html", "listeners", context, form.status if form else 200)


@require_role(Role.OPERATOR, action="allocate ports", methods=["POST"])
def adopt(request: HttpRequest) -> HttpResponseBase:
    """Allocate a port to the service that is already listening on it."""
    form = AdoptForm(request.POST)
    allocation = form.attempt(allocations.adopt, context_of(request))
    if allocation is None:
        return _list(request, form)
    message = f"{allocation.label} has {allocation.address}."
    if not wants_fragment(request):
        return redirect_with_message(request, message, reverse("listeners"))
    messages.success(request, message)
    return _list(request)
