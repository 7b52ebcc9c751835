"""Endpoints for the history and the checks."""
# No deferred annotations: django-ninja would look up those of a decorated view in the wrong module.

from django.http import HttpRequest, HttpResponse
from ninja import Query, Router

from allocations import schemas
from allocations.errors import UnknownAllocation
from allocations.models import Event, PortAllocation, PortHealthCheck
from allocations.ports import queries

from .auth import context_of
from .endpoints import endpoint
from .pagination import respond_page
from .request_schemas import ChecksQuery, EventsQuery
from .responses import Checks, Events, responses

router = Router(tags=["History"], by_alias=True)


@router.get("/events", response=responses({200: Events}, 404))
@endpoint(EventsQuery)
def list_events(request: HttpRequest, query: Query[EventsQuery]) -> HttpResponse:
    """List who did what, newest first."""
    context = context_of(request)
    rows = Event.objects.visible_to(context.caller).with_project_name()
    if query.project:
        rows = rows.filter(project_id=queries.get_project(context, query.project).pk)
    if query.subject_id:
        rows = rows.about(query.subject_id)
    return respond_page(request, rows, ("-id",), schemas.Event.of, query)


@router.get("/checks", response=responses({200: Checks}, 404))
@endpoint(ChecksQuery)
def list_checks(request: HttpRequest, query: Query[ChecksQuery]) -> HttpResponse:
    """List the checks of an allocation, newest first, with its uptime over all checks that are kept."""
    context = context_of(request)
    allocation = PortAllocation.objects.visible_to(context.caller).filter(pk=query.allocation_id).first()
    if allocation is None:
        raise UnknownAllocation("There is no such allocation.", field="allocation_id")
    rows = PortHealthCheck.objects.filter(port_allocation=allocation)
    visible = queries.visible_project_names(context)
    return respond_page(
        request,
        rows,
        ("-checked_at", "pk"),
        lambda check: schemas.Check.of(check, visible),
        query,
        uptime=schemas.Uptime.of(rows.uptime()).dump(),
    )
