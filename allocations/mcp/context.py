"""What a client can attach as context, and the prompt that leads through a migration."""

import json
from typing import Annotated

from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS
from pydantic import Field

from allocations import payloads, words
from allocations.errors import NotFound, PortError
from allocations.models import Project
from allocations.ports import PortManager

from .server import asking, in_database
from .tools import MOST_LISTED, server, short

PROJECT = "portal://projects/{name}"


@server.resource("portal://projects", mime_type="application/json", title="Projects")
async def projects() -> str:
    """The projects, and how full each is."""

    def look(ports: PortManager) -> str:
        found = Project.objects.visible_to(ports.caller).with_usage()
        rows = [
            {"name": p.name, "ports": p.usage.total, "available": p.usage.available, "uri": PROJECT.format(name=p.name)}
            for p in found
        ]
        return json.dumps(rows)

    return await _read(look)


@server.resource(PROJECT, mime_type="application/json", title="Ports of a project")
async def project(name: str) -> str:
    """A project's summary and what it holds."""

    def look(ports: PortManager) -> str:
        summary = payloads.summary(ports.summary(name))["summary"]
        held = [short(a) for a in ports.list(name)[:MOST_LISTED]]
        return json.dumps({"project": name, "summary": summary, "ports": held})

    return await _read(look)


async def _read(look: object) -> str:
    who = asking.get()

    def run() -> str:
        try:
            return look(who())  # type: ignore[operator,no-any-return]
        except NotFound as refusal:
            raise ResourceNotFoundError(refusal.sentence) from refusal
        except PortError as refusal:
            raise ResourceError(refusal.sentence) from refusal

    return str(await in_database(run)())


@server.prompt("migrate-service", title="Move a service to its port")
def migrate_service(
    project_name: Annotated[str, Field(validation_alias="projectName", description="The project it belongs to")],
    service_name: Annotated[str, Field(validation_alias="serviceName", description="What the service is called")],
) -> str:
    """Leads through moving one service from the port it has now to the port that the registry gives it."""
    for check, name in ((words.project_name, project_name), (words.service_name, service_name)):
        try:
            check(name)  # anything else would stand among the instructions
        except PortError as refusal:
            raise MCPError(INVALID_PARAMS, refusal.sentence) from refusal
    return (
        f"Move the service {service_name} of {project_name} to the port that Portal gives it, step by step:\n"
        f"1. Call get-port with projectName {project_name} and serviceName {service_name}, and remember the port.\n"
        "2. Find every place that names the service's present port: its start command, .env files, unit and Compose "
        "files, proxies, tunnels, health checks, clients. List them before you change any.\n"
        "3. Change them to the new port, or to read PORT from the environment.\n"
        "4. Restart this service alone, in the way this machine runs it. Stop nothing else.\n"
        f"5. Call audit-ports with projectName {project_name}: the service must not be among the conflicts. If it is, "
        "call explain-port for its port and do what it says.\n"
        "6. Tell what you changed, and what still names the old port."
    )
