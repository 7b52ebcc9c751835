"""The tools, by the names and parameters that spec section 7 promises."""
# No deferred annotations: the SDK reads them to make the schemas.

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from uuid import UUID

from mcp_types import CallToolResult, ToolAnnotations
from pydantic import BaseModel, Field, JsonValue, StrictInt

from allocations import payloads, words
from allocations.models import PortAllocation, Status
from allocations.ports import PortManager

from .server import INSTRUCTIONS, PortalServer, answer, tighten

MOST_LISTED, MOST_METADATA, AUDIT_COST = 200, 2000, 10
WAIT = (
    "In this project a person approves new ports. {port} is held for this service until {until:%Y-%m-%d %H:%M} UTC: do "
    "not bind it yet; ask your user to approve it on Portal's dashboard, then {then}."
)
server = PortalServer("portal", title="Portal", instructions=INSTRUCTIONS, version="1", log_level="WARNING")

Project = Annotated[str, Field(validation_alias="projectName", description="e.g. consilio")]
SomeProject = Annotated[str | None, Field(validation_alias="projectName")]
Service = Annotated[str, Field(validation_alias="serviceName", description="a-z 0-9 . _ -")]
ServiceType = Annotated[str | None, Field(validation_alias="serviceType", description="e.g. api, web")]
Tunnel = Annotated[str | None, Field(validation_alias="cloudflareHostname", description="Public hostname")]
Protocol = Annotated[Literal["tcp", "udp"], Field()]
Range = Annotated[str | None, Field(validation_alias="rangeName", description="Own or shared range")]
Key = Annotated[
    str | None,
    Field(validation_alias="idempotencyKey", description="The same key gives the same port"),
]
Expiry = Annotated[str | None, Field(validation_alias="expiresAt", description="7d or ISO 8601")]
Port = Annotated[StrictInt, Field()]
Json = dict[str, JsonValue]


class Done(BaseModel):
    success: Literal[True]


class Given(Done):
    port: int
    created: bool
    pending: bool = False
    next_step: str = Field("", alias="nextStep")
    allocation: Json


class Changed(Done):
    port: int
    allocation: Json


class Listed(Done):
    ports: list[Json]
    total: int


class Summed(Done):
    summary: Json


class Audited(Summed):
    conflicts: list[Json]
    unallocated: list[Json]


class Explained(Done):
    explanation: str
    next_step: str = Field(alias="nextStep")
    yours: bool | None
    project: str | None
    allocation: Json | None
    listener: Json | None


def hints(*, reads: bool = False, destroys: bool = False, repeats: bool = False) -> ToolAnnotations:
    """What a client may want to know before it calls: nothing here reaches beyond Portal."""
    return ToolAnnotations(
        read_only_hint=reads, destructive_hint=destroys, idempotent_hint=reads or repeats, open_world_hint=False
    )


@server.tool("get-port", annotations=hints(repeats=True))
async def get_port(
    project_name: Project,
    service_name: Service,
    service_type: ServiceType = None,
    description: str | None = None,
    cloudflare_hostname: Tunnel = None,
    hostname: str | None = None,
    protocol: Protocol = "tcp",
) -> Annotated[CallToolResult, Given]:
    """A service's port: the one it has, or a new one that nobody else holds. Call it before you start or configure a
    service, and bind exactly this port. Safe to repeat: the answer stays the same. For a further instance of a
    running service use allocate-port."""
    wanted = {
        "service_type": service_type or "",
        "description": description or "",
        "cloudflare_hostname": cloudflare_hostname,
        "hostname": hostname,
        "protocol": protocol,
    }
    return await answer(lambda ports: _given(ports.get_or_allocate(project_name, service_name, **wanted)), cost=1)


@server.tool("allocate-port", annotations=hints())
async def allocate_port(
    project_name: Project,
    service_name: Service,
    service_type: ServiceType = None,
    description: str | None = None,
    cloudflare_hostname: Tunnel = None,
    hostname: str | None = None,
    protocol: Protocol = "tcp",
    port: Port | None = None,
    range_name: Range = None,
    idempotency_key: Key = None,
) -> Annotated[CallToolResult, Given]:
    """A new port for a further instance of a service, whatever it holds already; or exactly `port`, if it is free.
    Every call takes another port: send an idempotencyKey if you may repeat it. Usually you want get-port."""
    wanted = {
        "service_type": service_type or "",
        "description": description or "",
        "cloudflare_hostname": cloudflare_hostname,
        "hostname": hostname,
        "protocol": protocol,
        "port": port,
        "range_name": range_name,
    }

    def allocate(ports: PortManager) -> Any:
        if idempotency_key is None:
            return _given(ports.allocate(project_name, service_name, **wanted), then="look for it with list-ports")

        def do() -> Any:
            return {"id": str(ports.allocate(project_name, service_name, **wanted).pk)}

        asked = {"tool": "allocate-port", "project": project_name, "service": service_name, **wanted}
        made, _ = ports.once(idempotency_key, asked, do)
        # As it is now: it may have been approved since, or released.
        return _given(ports.held(UUID(made["id"])), then="repeat this call", created=True)

    return await answer(allocate, cost=1)


@server.tool("list-ports", annotations=hints(reads=True))
async def list_ports(
    project_name: SomeProject = None,
    status: Annotated[Literal["allocated", "reserved", "pending", "released", "all"] | None, Field()] = None,
    hostname: str | None = None,
) -> Annotated[CallToolResult, Listed]:
    """Who holds which port: what is held now, unless a status is named; at most 200. For one port use explain-port,
    for your own service get-port."""

    def look(ports: PortManager) -> Any:
        rows = ports.list(project_name, status=status, hostname=hostname)
        return {"success": True, "ports": [short(a) for a in rows[:MOST_LISTED]], "total": rows.count()}

    return await answer(look)


@server.tool("audit-ports", annotations=hints(reads=True))
async def audit_ports(project_name: SomeProject = None) -> Annotated[CallToolResult, Audited]:
    """Compares the registry with what listens now: services that do not run or whose port another process has
    (conflicts), and listeners that no service owns (unallocated). To see whether your service came up."""
    return await answer(lambda ports: _audited(ports, project_name), cost=AUDIT_COST)


@server.tool("port-summary", annotations=hints(reads=True))
async def port_summary(project_name: Project) -> Annotated[CallToolResult, Summed]:
    """How full a project's ranges are: total, allocated, available, percent."""
    return await answer(lambda ports: payloads.summary(ports.summary(project_name)))


@server.tool("release-port", annotations=hints(destroys=True, repeats=True))
async def release_port(
    project_name: Project, service_name: Service, instance: StrictInt | None = None
) -> Annotated[CallToolResult, Changed]:
    """Gives a service's port back. Only for services that you removed, after they have stopped: it stops nothing.
    `instance` says which, where the service holds several."""

    def release(ports: PortManager) -> Any:
        return _changed(ports.release(project_name, service_name, instance=instance)[0])

    return await answer(release, cost=1)


@server.tool("update-port", annotations=hints(repeats=True))
async def update_port(
    project_name: Project,
    service_name: Service,
    instance: StrictInt | None = None,
    service_type: ServiceType = None,
    description: str | None = None,
    cloudflare_hostname: Annotated[
        str | None, Field(validation_alias="cloudflareHostname", description='Public hostname; "" removes it')
    ] = None,
    metadata: Annotated[Json | None, Field(description="Replaces the whole object")] = None,
) -> Annotated[CallToolResult, Changed]:
    """Changes what the registry says of a service; what you leave out stays. The port itself never changes."""
    given: dict[str, Any] = {
        "service_type": service_type,
        "description": description,
        "cloudflare_hostname": cloudflare_hostname,
        "metadata": metadata,
    }
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return await answer(
        lambda ports: _changed(ports.update(project_name, service_name, instance=instance, **changes)), cost=1
    )


@server.tool("reserve-port", annotations=hints())
async def reserve_port(
    project_name: Project, port: Port, note: str | None = None, expires_at: Expiry = None
) -> Annotated[CallToolResult, Changed]:
    """Keeps one port of the project for later: nobody is given it until it expires or is released. For a service
    that runs now use get-port."""
    return await answer(
        lambda ports: _changed(
            ports.reserve(project_name, port, note=note or "", expires_at=words.expiry_text(expires_at or ""))
        ),
        cost=1,
    )


@server.tool("explain-port", annotations=hints(reads=True))
async def explain_port(
    port: Port,
    hostname: str | None = None,
    protocol: Protocol = "tcp",
    project_name: Annotated[str | None, Field(validation_alias="projectName", description="Your own project")] = None,
) -> Annotated[CallToolResult, Explained]:
    """Whose a port is, what listens there, whether it is your own project's from before, and the one safe next step.
    Call it on "address already in use", before you change code or touch a process."""
    return await answer(lambda ports: _explained(ports, port, hostname, protocol, project_name))


# What others wrote is data, and short.


def _capped(value: Any, longest: int = 300) -> Any:
    return value if not isinstance(value, str) or len(value) <= longest else value[: longest - 1] + "…"


def _whole(a: PortAllocation) -> dict[str, Any]:
    return _cut(payloads.allocation(a))


def _cut(allocation: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: _capped(value) for name, value in allocation.items()}
    if len(json.dumps(found["metadata"])) > MOST_METADATA:
        found["metadata"] = {
            "cut": f"more than {MOST_METADATA} characters: names are {', '.join(found['metadata'])}"[:300]
        }
    return found


def short(a: PortAllocation) -> dict[str, Any]:
    names = ("project", "service", "instance", "port", "hostname", "protocol", "status", "health", "description")
    whole = payloads.allocation(a)
    return {name: _capped(whole[name], 120) for name in names}


def _given(a: PortAllocation, then: str = "call get-port again", created: bool | None = None) -> dict[str, Any]:
    is_new = bool(a.created) if created is None else created
    found = {"success": True, "port": a.port_number, "created": is_new, "allocation": _whole(a)}
    if a.status == Status.PENDING:
        found |= {"pending": True, "nextStep": WAIT.format(port=a.port_number, until=a.expires_at, then=then)}
    return found


def _changed(a: PortAllocation) -> dict[str, Any]:
    return {"success": True, "port": a.port_number, "allocation": _whole(a)}


def _audited(ports: PortManager, project: str | None) -> dict[str, Any]:
    found = ports.shared_audit(project).payload()
    for listed in (found["conflicts"], found["unallocated"]):
        listed[:] = [{name: _capped(value, 80) for name, value in row.items()} for row in listed]
    return found


def _explained(
    ports: PortManager, port: int, hostname: str | None, protocol: str, project: str | None
) -> dict[str, Any]:
    told = payloads.explanation(ports.explain(port, hostname=hostname, protocol=protocol, project=project))
    if told["listener"]:
        told["listener"] = {name: _capped(value, 80) for name, value in told["listener"].items()}
    if told["allocation"]:
        told["allocation"] = _cut(told["allocation"])
    return told


tighten(server)
