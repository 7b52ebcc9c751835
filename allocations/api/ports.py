"""Allocations, reservations, audits and explanations."""
# No deferred annotations: django-ninja reads those of a decorated view in the wrong module.

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from ninja import Query, Router

from allocations import errors, payloads
from allocations.models import PortAllocation, Status
from allocations.ports import Wish, wish

from . import sent, shown
from .answers import IDEMPOTENT, IF_MATCH, IdempotencyKey, IfMatch, answers
from .door import answer, caller_of, door, expected, once, ports_of, versioned
from .paging import paged

router = Router(tags=["Ports"], by_alias=True)
IN_PORT_ORDER = ("port_number", "hostname", "protocol", "pk")


@router.get("/ports/audit", response=answers({200: shown.Audit, 503: shown.Audit}, 404))
@door(sent.AuditQuery, counted="audit")
def audit(request: HttpRequest, query: Query[sent.AuditQuery]) -> HttpResponse:
    """Compare the registry with what listens, now. Callers within two seconds share one audit."""
    report = ports_of(request).shared_audit(query.project)
    is_bad = query.strict == "1" and not report.is_healthy
    return answer(report.payload(), 503, Retry_After="60") if is_bad else answer(report.payload())


@router.get("/ports/explain", response=answers({200: shown.Explanation}, 404))
@door(sent.ExplainQuery)
def explain(request: HttpRequest, query: Query[sent.ExplainQuery]) -> HttpResponse:
    """Whose a port is, what listens there, and the one safe next step."""
    about = {"hostname": query.hostname, "protocol": query.protocol, "project": query.project}
    found = ports_of(request).explain(int(query.port), **about)
    return answer(payloads.explanation(found))


@router.get("/ports", response=answers({200: shown.Allocations}, 404))
@door(sent.PortsQuery)
def list_ports(request: HttpRequest, query: Query[sent.PortsQuery]) -> HttpResponse:
    """Allocations and reservations, in port order; those that are held, unless a status is named."""
    rows = ports_of(request).list(
        query.project,
        status=query.status,
        hostname=query.host,
        protocol=query.protocol,
        service=query.service,
        text=query.q or "",
    )
    return paged(request, rows, IN_PORT_ORDER, payloads.allocation, query)


@router.post(
    "/ports",
    response=answers(dict.fromkeys((200, 201, 202), shown.Allocated), *IDEMPOTENT, 403, 404, 409, body=True),
)
@door()
def allocate(
    request: HttpRequest,
    body: sent.Allocate,
    idempotency_key: IdempotencyKey = None,
) -> HttpResponse:
    """Give a service its port: 200 the one it has, 201 a new one, 202 one that a person has to approve. Safe to
    repeat, unless new is true."""
    ports = ports_of(request)

    def do() -> tuple[Mapping[str, Any], int, str]:
        wanted = body.wanted()
        if body.adopt:
            if body.port is None:
                raise errors.InvalidValue("adopt needs port: the one on which the service listens.", field="port")
            given = ports.adopt(body.project, body.service, **wanted)
        elif body.new:
            given = ports.allocate(body.project, body.service, **wanted)
        else:
            given = ports.get_or_allocate(body.project, body.service, **wanted)
        status = 202 if given.status == Status.PENDING else 201 if given.created else 200
        return payloads.allocated(given), status, reverse("api-1:port", args=[given.pk])

    return once(request, idempotency_key, body, do)


@router.post(
    "/ports/batch",
    response=answers(dict.fromkeys((200, 201, 202), shown.ManyAllocated), *IDEMPOTENT, 403, 404, 409, body=True),
)
@door()
def allocate_many(
    request: HttpRequest,
    body: sent.AllocateMany,
    idempotency_key: IdempotencyKey = None,
) -> HttpResponse:
    """Ports for up to 500 services of a project at once, all or none; errors name the place in services. 202 where a
    person has to approve some."""

    def do() -> tuple[Mapping[str, Any], int, str]:
        given = ports_of(request).allocate_many(body.project, _wishes(body.services), new=body.new)
        made = sum(a.created for a in given)
        pending = any(a.status == Status.PENDING for a in given)
        status = 202 if pending else 201 if made else 200
        return {"allocations": [payloads.allocated(a) for a in given], "created": made}, status, ""

    return once(request, idempotency_key, body, do)


def _wishes(services: list[sent.Service]) -> list[Wish]:
    wishes = []
    for index, asked in enumerate(services):
        try:
            wishes.append(wish(asked.service, **asked.wanted()))
        except errors.PortError as refusal:
            refusal.details["index"] = index
            raise
    return wishes


@router.post("/reservations", response=answers({201: shown.Reserved}, *IDEMPOTENT, 403, 404, 409, body=True))
@door()
def reserve(
    request: HttpRequest,
    body: sent.Reserve,
    idempotency_key: IdempotencyKey = None,
) -> HttpResponse:
    """Hold a port, or a block of them, for later. DELETE /ports/{id} gives one back."""

    def do() -> tuple[Mapping[str, Any], int, str]:
        held = ports_of(request).reserve_block(
            body.project,
            body.port,
            body.port if body.last_port is None else body.last_port,
            note=body.note,
            expires_at=body.expires_at,
            hostname=body.hostname,
            protocol=body.protocol,
        )
        location = reverse("api-1:port", args=[held[0].pk]) if len(held) == 1 else ""
        return {"allocations": [payloads.allocation(a) for a in held]}, 201, location

    return once(request, idempotency_key, body, do)


@router.get("/ports/{uuid:id}", url_name="port", response=answers({200: shown.Allocation}, 404))
@door()
def port(request: HttpRequest, id: UUID) -> HttpResponse:
    """One allocation, held or released."""
    rows = PortAllocation.objects.visible_to(caller_of(request)).select_related("project", "port_range")
    found = rows.filter(pk=id).first()
    if found is None:
        raise errors.UnknownAllocation("There is no such allocation.", allocation=str(id))
    return versioned(payloads.allocation(found), found.version)


NAMES = {"service": "new_name"}


@router.patch("/ports/{uuid:id}", response=answers({200: shown.Allocation}, *IF_MATCH, 403, 404, 409, body=True))
@door()
def change_port(
    request: HttpRequest,
    id: UUID,
    body: sent.ChangeAllocation,
    if_match: IfMatch = None,
) -> HttpResponse:
    """Change what an allocation says; what is not sent stays. Port, host and protocol never change."""
    changes = {NAMES.get(name, name): value for name, value in body.model_dump(exclude_unset=True).items()}
    saved = ports_of(request).update_allocation(id, expecting=expected(if_match), **changes)
    return versioned(payloads.allocation(saved), saved.version)


@router.delete("/ports/{uuid:id}", response=answers({200: shown.Allocation}, *IF_MATCH, 403, 404, 409))
@door()
def release(request: HttpRequest, id: UUID, if_match: IfMatch = None) -> HttpResponse:
    """Release an allocation or a reservation: its port is free again, its history stays. A second time is a 409."""
    released = ports_of(request).release_allocation(id, expecting=expected(if_match))
    return versioned(payloads.allocation(released), released.version)
