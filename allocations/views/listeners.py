"""What listens inside a range without an allocation, and how it is adopted."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import reverse

from allocations.access import Role
from allocations.forms import AdoptForm, project_names
from allocations.models import Audit, Listener
from allocations.pages import caller_of, done, door, page, paged, ports_of, wants_fragment


@door()
def listeners(request: HttpRequest) -> HttpResponseBase:
    """The unallocated listeners that the last look saw."""
    return _shown(request)


def _shown(request: HttpRequest, form: AdoptForm | None = None, status: int = 200) -> HttpResponseBase:
    caller = caller_of(request)
    context = {
        "listeners": paged(request, Listener.objects.unallocated().visible_to(caller)),
        "last_audit": Audit.objects.first(),
        "projects": project_names(caller),
        "form": form,
    }
    return page(request, "allocations/listeners.html", "listeners", context, status)


@door("POST", role=Role.OPERATOR, doing="allocate ports")
def adopt(request: HttpRequest) -> HttpResponseBase:
    """Allocate the port to the service that listens on it already."""
    form, ports = AdoptForm(request.POST), ports_of(request)
    given = form.attempt(lambda project, service_name, **wanted: ports.adopt(project, service_name, **wanted))
    if given is None:
        return _shown(request, form, form.status)
    sentence = f"{given.label} has {given.address}."
    if not wants_fragment(request):
        return done(request, sentence, reverse("listeners"))
    messages.success(request, sentence)
    return _shown(request)
