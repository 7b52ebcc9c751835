"""The resources that a client can attach as context, and the prompt for moving a service to its port."""

import json
from collections.abc import Callable
from typing import Annotated

from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS
from pydantic import Field

from allocations import validators
from allocations.errors import NotFound, PortError
from allocations.models import Project
from allocations.ports import Context, queries
from allocations.schemas import AllocationRow, PortSummary

from .results import shorten
from .server import run_in_context
from .tools import MOST_LISTED, server

PROJECT = "portal://projects/{name}"


@server.resource("portal://projects", mime_type="application/json", title="Projects")
async def projects() -> str:
    """The projects, and how full each one is."""

    def read(context: Context) -> str:
        rows = Project.objects.visible_to(context.caller).with_usage()
        return json.dumps(
            [
                {
                    "name": project.name,
                    "ports": project.usage.total,
                    "available": project.usage.available,
                    "uri": PROJECT.format(name=project.name),
                }
                for project in rows
            ]
        )

    return await _read(read)


@server.resource(PROJECT, mime_type="application/json", title="Ports of a project")
async def project(name: str) -> str:
    """The summary of a project, and the ports that it holds."""

    def read(context: Context) -> str:
        summary = PortSummary.of(queries.summary(context, name)).dump()["summary"]
        ports = [AllocationRow.of(a).dump() for a in queries.list_allocations(context, name)[:MOST_LISTED]]
        return json.dumps(shorten({"project": name, "summary": summary, "ports": ports}))

    return await _read(read)


async def _read(read: Callable[[Context], str]) -> str:
    try:
        return await run_in_context(read)
    except NotFound as error:
        raise ResourceNotFoundError(error.sentence) from error
    except PortError as error:
        raise ResourceError(error.sentence) from error


@server.prompt("migrate-service", title="Move a service to its port")
def migrate_service(
    project_name: Annotated[str, Field(validation_alias="projectName", description="The project of the service")],
    service_name: Annotated[str, Field(validation_alias="serviceName", description="The name of the service")],
) -> str:
    """Move one service from the port that it uses now to the port that Portal assigns to it."""
    try:
        # Refuse any other text, which would become part of the instructions.
        validators.project_name(project_name)
        validators.service_name(service_name)
    except PortError as error:
        raise MCPError(INVALID_PARAMS, error.sentence) from error
    return (
        f"Move the service {service_name} of the project {project_name} to the port that Portal assigns to it:\n"
        f"1. Call get-port with projectName {project_name} and serviceName {service_name}, and note the port.\n"
        "2. Find every place that names the service's present port: its start command, .env files, unit and Compose "
        "files, proxies, tunnels, health checks, clients. List them before you change any.\n"
        "3. Change them to the new port, or make them read PORT from the environment.\n"
        "4. Restart this service alone, in the way this machine runs it. Stop nothing else.\n"
        f"5. Call audit-ports with projectName {project_name}: the service must not be among the conflicts. If it is, "
        "call explain-port for its port and do what it says.\n"
        "6. Report what you changed, and what still names the old port."
    )
