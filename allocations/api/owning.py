"""Projects and their ranges."""
# No deferred annotations: django-ninja reads those of a decorated view in the wrong module.

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from ninja import Query, Router

from allocations import errors, payloads
from allocations.models import PortRange, Project

from . import sent, shown
from .answers import IDEMPOTENT, IF_MATCH, IdempotencyKey, IfMatch, answers
from .door import answer as answered
from .door import caller_of, door, expected, once, ports_of, versioned
from .paging import paged

router = Router(by_alias=True)
PROJECTS, RANGES = ["Projects"], ["Ranges"]


@router.get("/projects", tags=PROJECTS, response=answers({200: shown.Projects}))
@door(sent.ProjectsQuery)
def list_projects(request: HttpRequest, query: Query[sent.ProjectsQuery]) -> HttpResponse:
    """Projects, by name."""
    caller = caller_of(request)
    rows = Project.objects.visible_to(caller).named(query.q or "")
    return paged(request, rows, ("name",), payloads.project, query)


@router.post("/projects", tags=PROJECTS, response=answers({201: shown.Project}, *IDEMPOTENT, 409, body=True))
@door()
def add_project(
    request: HttpRequest,
    body: sent.AddProject,
    idempotency_key: IdempotencyKey = None,
) -> HttpResponse:
    """A new project, with a range of its own."""

    def do() -> tuple[Mapping[str, Any], int, str]:
        made = ports_of(request).add_project(
            body.name,
            description=body.description,
            size=body.size,
            start=body.start,
            shared=body.shared,
            with_range=body.with_range,
        )
        return payloads.project(made), 201, reverse("api-1:project", args=[made.name])

    return once(request, idempotency_key, body, do)


@router.get("/projects/{name}", url_name="project", tags=PROJECTS, response=answers({200: shown.Project}, 404))
@door()
def project(request: HttpRequest, name: str) -> HttpResponse:
    """One project."""
    found = ports_of(request).project(name)
    return versioned(payloads.project(found), found.version)


@router.patch("/projects/{name}", tags=PROJECTS, response=answers({200: shown.Project}, *IF_MATCH, 404, 409, body=True))
@door()
def change_project(
    request: HttpRequest,
    name: str,
    body: sent.ChangeProject,
    if_match: IfMatch = None,
) -> HttpResponse:
    """Rename or describe a project; what is not sent stays."""
    changes = body.model_dump(exclude_unset=True)
    if "name" in changes:
        changes["new_name"] = changes.pop("name")
    saved = ports_of(request).update_project(name, expecting=expected(if_match), **changes)
    return versioned(payloads.project(saved), saved.version)


@router.delete("/projects/{name}", tags=PROJECTS, response=answers({204: None}, *IF_MATCH, 404, 409))
@door()
def delete_project(request: HttpRequest, name: str, if_match: IfMatch = None) -> HttpResponse:
    """Delete a project that holds no port and never held one, with its ranges."""
    ports_of(request).delete_project(name, expecting=expected(if_match))
    return HttpResponse(status=204)


@router.get("/projects/{name}/summary", tags=PROJECTS, response=answers({200: shown.Summary}, 404))
@door()
def summary(request: HttpRequest, name: str) -> HttpResponse:
    """How full a project's active ranges are."""
    return answered(payloads.summary(ports_of(request).summary(name)))


@router.get("/ranges", tags=RANGES, response=answers({200: shown.Ranges}, 404))
@door(sent.RangesQuery)
def list_ranges(request: HttpRequest, query: Query[sent.RangesQuery]) -> HttpResponse:
    """Ranges, in port order."""
    caller = caller_of(request)
    rows = PortRange.objects.visible_to(caller).select_related("project")
    if query.project:
        rows = rows.filter(project=ports_of(request).project(query.project))
    return paged(request, rows, ("start_port",), payloads.port_range, query)


@router.post("/ranges", tags=RANGES, response=answers({201: shown.Range}, *IDEMPOTENT, 404, 409, body=True))
@door()
def add_range(
    request: HttpRequest,
    body: sent.AddRange,
    idempotency_key: IdempotencyKey = None,
) -> HttpResponse:
    """A further range of a project, which overlaps no other."""

    def do() -> tuple[Mapping[str, Any], int, str]:
        said = body.model_dump(include={"description", "shared", "active"})
        made = ports_of(request).add_range(body.project, body.name, body.start, body.end, **said)
        return payloads.port_range(made), 201, reverse("api-1:range", args=[made.pk])

    return once(request, idempotency_key, body, do)


@router.get("/ranges/{uuid:id}", url_name="range", tags=RANGES, response=answers({200: shown.Range}, 404))
@door()
def port_range(request: HttpRequest, id: UUID) -> HttpResponse:
    """One range."""
    found = PortRange.objects.visible_to(caller_of(request)).select_related("project").filter(pk=id).first()
    if found is None:
        raise errors.UnknownRange("There is no such range.", range=str(id))
    return versioned(payloads.port_range(found), found.version)


@router.patch("/ranges/{uuid:id}", tags=RANGES, response=answers({200: shown.Range}, *IF_MATCH, 404, 409, body=True))
@door()
def change_range(request: HttpRequest, id: UUID, body: sent.ChangeRange, if_match: IfMatch = None) -> HttpResponse:
    """Change a range; what is not sent stays. Held ports must stay inside."""
    changes = body.model_dump(exclude_unset=True)
    if "name" in changes:
        changes["range_name"] = changes.pop("name")
    saved = ports_of(request).update_range(id, expecting=expected(if_match), **changes)
    return versioned(payloads.port_range(saved), saved.version)


@router.delete("/ranges/{uuid:id}", tags=RANGES, response=answers({204: None}, *IF_MATCH, 404, 409))
@door()
def delete_range(request: HttpRequest, id: UUID, if_match: IfMatch = None) -> HttpResponse:
    """Delete a range in which no port is held and none ever was."""
    ports_of(request).delete_range(id, expecting=expected(if_match))
    return HttpResponse(status=204)
