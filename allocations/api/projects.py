"""Endpoints for projects."""
# No deferred annotations: django-ninja would look up those of a decorated view in the wrong module.

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from ninja import Path, Query, Router

from allocations import schemas
from allocations.models import Project
from allocations.ports import projects, queries

from .auth import context_of
from .endpoints import endpoint
from .pagination import respond_page
from .request_schemas import AddProject, ChangeProject, ProjectPath, ProjectsQuery
from .responses import (
    IDEMPOTENT,
    IF_MATCH,
    IdempotencyKey,
    IfMatch,
    Projects,
    Result,
    expected_versions,
    respond,
    respond_once,
    respond_versioned,
    responses,
)

router = Router(tags=["Projects"], by_alias=True)


@router.get("/projects", response=responses({200: Projects}))
@endpoint(ProjectsQuery)
def list_projects(request: HttpRequest, query: Query[ProjectsQuery]) -> HttpResponse:
    """List projects by name."""
    rows = Project.objects.visible_to(context_of(request).caller).matching(query.text or "")
    return respond_page(request, rows, ("name",), schemas.Project.of, query)


@router.post("/projects", response=responses({201: schemas.Project}, *IDEMPOTENT, 409, body=True))
@endpoint()
def add_project(request: HttpRequest, body: AddProject, idempotency_key: IdempotencyKey = None) -> HttpResponse:
    """Add a project with a range of its own."""

    def run() -> Result:
        project = projects.add(context_of(request), **body.model_dump())
        return Result(schemas.Project.of(project), 201, reverse("api-1:project", args=[project.name]))

    return respond_once(request, idempotency_key, body, run, projects.add)


@router.get("/projects/{name}", url_name="project", response=responses({200: schemas.Project}, 404))
@endpoint()
def get_project(request: HttpRequest, path: Path[ProjectPath]) -> HttpResponse:
    """Return one project."""
    project = queries.get_project(context_of(request), path.project)
    return respond_versioned(schemas.Project.of(project), project.version)


@router.patch("/projects/{name}", response=responses({200: schemas.Project}, *IF_MATCH, 404, 409, body=True))
@endpoint()
def change_project(
    request: HttpRequest, path: Path[ProjectPath], body: ChangeProject, if_match: IfMatch = None
) -> HttpResponse:
    """Rename a project or change its details. Fields that you leave out stay as they are."""
    project = projects.update(context_of(request), path.project, expected=expected_versions(if_match), **body.sent())
    return respond_versioned(schemas.Project.of(project), project.version)


@router.delete("/projects/{name}", response=responses({204: None}, *IF_MATCH, 404, 409))
@endpoint()
def delete_project(request: HttpRequest, path: Path[ProjectPath], if_match: IfMatch = None) -> HttpResponse:
    """Delete a project with its ranges, if it holds no port and never held one."""
    projects.delete(context_of(request), path.project, expected=expected_versions(if_match))
    return HttpResponse(status=204)


@router.get("/projects/{name}/summary", response=responses({200: schemas.PortSummary}, 404))
@endpoint()
def summarize_project(request: HttpRequest, path: Path[ProjectPath]) -> HttpResponse:
    """Return how full a project's active ranges are."""
    summary = queries.summary(context_of(request), path.project)
    return respond(schemas.PortSummary.of(summary).dump())
