"""What happened, what was seen, and who else may want to know where services run."""
# No deferred annotations: django-ninja reads those of a decorated view in the wrong module.

import functools

from django.http import HttpRequest, HttpResponse, JsonResponse
from ninja import Query, Router

from allocations import errors, exporters, payloads
from allocations.models import Event, PortAllocation, PortHealthCheck

from . import sent, shown
from .answers import answers
from .door import answer, caller_of, door, ports_of
from .paging import paged

router = Router(by_alias=True)


@router.get("/events", tags=["History"], response=answers({200: shown.Events}, 404))
@door(sent.EventsQuery)
def events(request: HttpRequest, query: Query[sent.EventsQuery]) -> HttpResponse:
    """Who did what, newest first."""
    caller = caller_of(request)
    rows = Event.objects.visible_to(caller).with_project_name()
    if query.project:
        rows = rows.filter(project_id=ports_of(request).project(query.project).pk)
    if query.subject:
        rows = rows.filter(subject_id=query.subject)
    return paged(request, rows, ("-id",), payloads.event, query)


@router.get("/checks", tags=["History"], response=answers({200: shown.Checks}, 404))
@door(sent.ChecksQuery)
def checks(request: HttpRequest, query: Query[sent.ChecksQuery]) -> HttpResponse:
    """The checks of one allocation, newest first, and its uptime over all that are kept."""
    found = PortAllocation.objects.visible_to(caller_of(request)).filter(pk=query.port).first()
    if found is None:
        raise errors.UnknownAllocation("There is no such allocation.", field="port")
    rows = PortHealthCheck.objects.filter(port_allocation=found)
    uptime = rows.uptime()
    counted = {"checks": uptime.checks, "up": uptime.up, "percentage": uptime.percentage}
    shown = functools.partial(payloads.check, visible=ports_of(request).visible_names())
    return paged(request, rows, ("-checked_at", "pk"), shown, query, uptime=counted)


@router.get("/discovery/prometheus", tags=["Discovery"], response=answers({200: list[shown.PrometheusTargets]}, 404))
@door(sent.DiscoveryQuery)
def prometheus(request: HttpRequest, query: Query[sent.DiscoveryQuery]) -> HttpResponse:
    """Prometheus HTTP service discovery: every allocated TCP port as a target, with what it is as labels."""
    rows = ports_of(request).list(query.project, status="allocated", protocol="tcp")
    return JsonResponse(exporters.prometheus.targets(rows), safe=False)


@router.get("/discovery/traefik", tags=["Discovery"], response=answers({200: dict[str, object]}, 404))
@door(sent.DiscoveryQuery)
def traefik(request: HttpRequest, query: Query[sent.DiscoveryQuery]) -> HttpResponse:
    """Traefik's HTTP provider: a router and a service for every allocation with a public hostname."""
    rows = ports_of(request).list(query.project, status="allocated", protocol="tcp")
    return answer(exporters.traefik.configuration(rows))
