"""Endpoints for allocations, reservations, audits and explanations."""
# No deferred annotations: django-ninja would look up those of a decorated view in the wrong module.

import functools
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from ninja import Query, Router

from allocations import schemas
from allocations.allocation_spec import AllocationSpec, allocation_spec
from allocations.audit import AuditReport
from allocations.errors import InvalidValue, PortError
from allocations.models import PortAllocation, Status
from allocations.ports import allocations, audits, explain, queries, reservations

from .auth import context_of
from .endpoints import endpoint
from .pagination import respond_page
from .request_schemas import (
    Allocate,
    AllocateMany,
    AuditQuery,
    ChangeAllocation,
    ExplainQuery,
    PortsQuery,
    ReleaseQuery,
    Reserve,
    Service,
)
from .responses import (
    IDEMPOTENT,
    IF_MATCH,
    Allocations,
    IdempotencyKey,
    IfMatch,
    NewAllocations,
    Reservations,
    Result,
    expected_versions,
    respond,
    respond_once,
    respond_versioned,
    responses,
)

router = Router(tags=["Ports"], by_alias=True)
PORT_ORDER = ("port_number", "hostname", "protocol", "pk")


@router.get("/ports/audit", response=responses({200: schemas.Audit, 503: schemas.Audit}, 404))
@endpoint(AuditQuery, is_audit=True)
def audit(request: HttpRequest, query: Query[AuditQuery]) -> HttpResponse:
    """Compare the registry with what is listening now. Callers within two seconds share one audit."""
    report = audits.run_shared(context_of(request), query.project)
    value = _audit_of(report)
    return respond(value, 503, Retry_After="60") if query.strict == "1" and not report.is_healthy else respond(value)


@functools.lru_cache(maxsize=audits.MOST_SHARED)
def _audit_of(report: AuditReport) -> dict[str, Any]:
    return schemas.Audit.of(report).dump()


@router.get("/ports/explain", response=responses({200: schemas.Explanation}, 404))
@endpoint(ExplainQuery)
def explain_port(request: HttpRequest, query: Query[ExplainQuery]) -> HttpResponse:
    """Explain whose a port is, what listens on it, and the one safe next step."""
    explanation = explain.explain(context_of(request), **dict(query))
    return respond(schemas.Explanation.of(explanation).dump())


@router.get("/ports", response=responses({200: Allocations}, 404))
@endpoint(PortsQuery)
def list_ports(request: HttpRequest, query: Query[PortsQuery]) -> HttpResponse:
    """List allocations and reservations in port order: those that are held, unless you name a status."""
    rows = queries.list_allocations(
        context_of(request),
        query.project,
        status=query.status,
        hostname=query.hostname,
        protocol=query.protocol,
        service_name=query.service_name,
        text=query.text or "",
    )
    return respond_page(request, rows, PORT_ORDER, schemas.Allocation.of, query)


def _status_for(rows: list[PortAllocation]) -> int:
    if any(a.status == Status.PENDING for a in rows):
        return 202
    return 201 if any(a.created for a in rows) else 200


@router.post(
    "/ports",
    response=responses(dict.fromkeys((200, 201, 202), schemas.NewAllocation), *IDEMPOTENT, 403, 404, 409, body=True),
)
@endpoint()
def allocate(request: HttpRequest, body: Allocate, idempotency_key: IdempotencyKey = None) -> HttpResponse:
    """Return a service's port: 200 for the one it has, 201 for a new one, 202 for one that a person has to approve.

    The request is safe to repeat, unless new is true.
    """

    def run() -> Result:
        context, spec = context_of(request), body.spec()
        if body.adopt:
            if body.port_number is None:
                raise InvalidValue(
                    "Adopt needs a port: name the one on which the service listens.", field="port_number"
                )
            allocation = allocations.adopt(context, body.project, **spec)
        elif body.new:
            allocation = allocations.allocate(context, body.project, **spec)
        else:
            allocation = allocations.get_or_allocate(context, body.project, **spec)
        location = reverse("api-1:port", args=[allocation.pk])
        return Result(schemas.NewAllocation.of(allocation), _status_for([allocation]), location)

    return respond_once(request, idempotency_key, body, run, allocations.allocate_many)


@router.post(
    "/ports/batch",
    response=responses(dict.fromkeys((200, 201, 202), NewAllocations), *IDEMPOTENT, 403, 404, 409, body=True),
)
@endpoint()
def allocate_many(request: HttpRequest, body: AllocateMany, idempotency_key: IdempotencyKey = None) -> HttpResponse:
    """Return ports for up to 500 services of a project, all or none. Errors name the position in services.

    The status is 202 if a person has to approve some of them.
    """

    def run() -> Result:
        rows = allocations.allocate_many(context_of(request), body.project, _specs(body.services), new=body.new)
        created = sum(a.created for a in rows)
        value = NewAllocations(allocations=[schemas.NewAllocation.of(a) for a in rows], created=created)
        return Result(value, _status_for(rows))

    return respond_once(request, idempotency_key, body, run, allocations.allocate_many)


def _specs(services: list[Service]) -> list[AllocationSpec]:
    specs = []
    for index, service in enumerate(services):
        try:
            specs.append(allocation_spec(**service.spec()))
        except PortError as error:
            error.details["index"] = index
            raise
    return specs


@router.post("/reservations", response=responses({201: Reservations}, *IDEMPOTENT, 403, 404, 409, body=True))
@endpoint()
def reserve(request: HttpRequest, body: Reserve, idempotency_key: IdempotencyKey = None) -> HttpResponse:
    """Reserve a port or a block of ports for later. DELETE /ports/{id} releases it, with the id of any of its ports."""

    def run() -> Result:
        rows = reservations.reserve_block(
            context_of(request),
            body.project,
            body.port_number,
            body.port_number if body.end_port is None else body.end_port,
            description=body.description,
            expires_at=body.expires_at,
            hostname=body.hostname,
            protocol=body.protocol,
        )
        location = reverse("api-1:port", args=[rows[0].pk]) if len(rows) == 1 else ""
        return Result(Reservations(allocations=[schemas.Allocation.of(a) for a in rows]), 201, location)

    return respond_once(request, idempotency_key, body, run, reservations.reserve_block)


@router.get("/ports/{uuid:id}", url_name="port", response=responses({200: schemas.Allocation}, 404))
@endpoint()
def get_port(request: HttpRequest, id: UUID) -> HttpResponse:
    """Return one allocation, held or released."""
    allocation = queries.get_allocation(context_of(request), id)
    return respond_versioned(schemas.Allocation.of(allocation), allocation.version)


@router.patch("/ports/{uuid:id}", response=responses({200: schemas.Allocation}, *IF_MATCH, 403, 404, 409, body=True))
@endpoint()
def change_port(request: HttpRequest, id: UUID, body: ChangeAllocation, if_match: IfMatch = None) -> HttpResponse:
    """Change the details of an allocation. Fields that you leave out stay as they are.

    Port, host and protocol never change.
    """
    allocation = allocations.update_by_id(context_of(request), id, expected=expected_versions(if_match), **body.sent())
    return respond_versioned(schemas.Allocation.of(allocation), allocation.version)


@router.delete("/ports/{uuid:id}", response=responses({200: schemas.Allocation}, *IF_MATCH, 403, 404, 409))
@endpoint(ReleaseQuery)
def release_port(request: HttpRequest, id: UUID, query: Query[ReleaseQuery], if_match: IfMatch = None) -> HttpResponse:
    """Release an allocation or a reserved block. Its ports are free again, and its history stays.

    If you name a part of a block, the block shrinks or splits. Releasing something a second time is refused with 409.
    """
    expected = expected_versions(if_match)
    allocation = allocations.release_by_id(context_of(request), id, expected=expected, ports=query.ports)
    return respond_versioned(schemas.Allocation.of(allocation), allocation.version)
