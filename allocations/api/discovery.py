"""Endpoints from which other programs learn where services run."""
# No deferred annotations: django-ninja would look up those of a decorated view in the wrong module.

from django.http import HttpRequest, HttpResponse, JsonResponse
from ninja import Query, Router

from allocations import exporters
from allocations.models import Status
from allocations.ports import queries

from .auth import context_of
from .endpoints import endpoint
from .request_schemas import DiscoveryQuery
from .responses import PrometheusTargets, respond, responses

router = Router(tags=["Discovery"], by_alias=True)
SERVICES = {"status": Status.ALLOCATED, "protocol": "tcp"}


@router.get("/discovery/prometheus", response=responses({200: list[PrometheusTargets]}, 404))
@endpoint(DiscoveryQuery)
def discover_prometheus(request: HttpRequest, query: Query[DiscoveryQuery]) -> HttpResponse:
    """Prometheus HTTP service discovery: every allocated TCP port as a target, with its details as labels."""
    rows = queries.list_allocations(context_of(request), query.project, **SERVICES)
    return JsonResponse(exporters.prometheus.targets(rows), safe=False)


@router.get("/discovery/traefik", response=responses({200: dict[str, object]}, 404))
@endpoint(DiscoveryQuery)
def discover_traefik(request: HttpRequest, query: Query[DiscoveryQuery]) -> HttpResponse:
    """Traefik HTTP provider: a router and a service for every allocation that has a public hostname."""
    rows = queries.list_allocations(context_of(request), query.project, **SERVICES)
    return respond(exporters.traefik.configuration(rows))
