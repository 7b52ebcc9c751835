"""Endpoints for ranges."""
# No deferred annotations: django-ninja would look up those of a decorated view in the wrong module.

from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from ninja import Query, Router

from allocations import schemas
from allocations.models import PortRange
from allocations.ports import queries, ranges

from .auth import context_of
from .endpoints import endpoint
from .pagination import respond_page
from .request_schemas import AddRange, ChangeRange, RangesQuery
from .responses import (
    IDEMPOTENT,
    IF_MATCH,
    IdempotencyKey,
    IfMatch,
    Ranges,
    Result,
    expected_versions,
    respond_once,
    respond_versioned,
    responses,
)

router = Router(tags=["Ranges"], by_alias=True)


@router.get("/ranges", response=responses({200: Ranges}, 404))
@endpoint(RangesQuery)
def list_ranges(request: HttpRequest, query: Query[RangesQuery]) -> HttpResponse:
    """List ranges in port order."""
    context = context_of(request)
    rows = PortRange.objects.visible_to(context.caller).select_related("project")
    if query.project:
        rows = rows.filter(project=queries.get_project(context, query.project))
    return respond_page(request, rows, ("start_port",), schemas.Range.of, query)


@router.post("/ranges", response=responses({201: schemas.Range}, *IDEMPOTENT, 404, 409, body=True))
@endpoint()
def add_range(request: HttpRequest, body: AddRange, idempotency_key: IdempotencyKey = None) -> HttpResponse:
    """Add a range to a project. Ranges never overlap."""

    def run() -> Result:
        port_range = ranges.add(context_of(request), **body.model_dump())
        return Result(schemas.Range.of(port_range), 201, reverse("api-1:range", args=[port_range.pk]))

    return respond_once(request, idempotency_key, body, run, ranges.add)


@router.get("/ranges/{uuid:id}", url_name="range", response=responses({200: schemas.Range}, 404))
@endpoint()
def get_range(request: HttpRequest, id: UUID) -> HttpResponse:
    """Return one range."""
    port_range = ranges.get(context_of(request), id)
    return respond_versioned(schemas.Range.of(port_range), port_range.version)


@router.patch("/ranges/{uuid:id}", response=responses({200: schemas.Range}, *IF_MATCH, 404, 409, body=True))
@endpoint()
def change_range(request: HttpRequest, id: UUID, body: ChangeRange, if_match: IfMatch = None) -> HttpResponse:
    """Change a range. Fields that you leave out stay as they are, and held ports must stay inside it."""
    port_range = ranges.update(context_of(request), id, expected=expected_versions(if_match), **body.sent())
    return respond_versioned(schemas.Range.of(port_range), port_range.version)


@router.delete("/ranges/{uuid:id}", response=responses({204: None}, *IF_MATCH, 404, 409))
@endpoint()
def delete_range(request: HttpRequest, id: UUID, if_match: IfMatch = None) -> HttpResponse:
    """Delete a range that has no ports, neither held nor in its history."""
    ranges.delete(context_of(request), id, expected=expected_versions(if_match))
    return HttpResponse(status=204)
