"""The tools. Their descriptions are for models: what a tool does, and when to call it."""
# No deferred annotations: the SDK makes the schemas of the parameters from them.

from typing import Annotated, Any, Literal
from uuid import UUID

from mcp_types import CallToolResult
from pydantic import Field, StrictInt

from allocations import schemas, validators
from allocations.ports import Context, allocations, audits, explain, queries, reservations
from allocations.ports.idempotency import run_once

from .results import ChangedPort, ListedPorts, ServicePort
from .server import INSTRUCTIONS, PortalServer, answer
from .tool_schemas import with_details

MOST_LISTED = 200
server = PortalServer("portal", title="Portal", instructions=INSTRUCTIONS, version="1", log_level="WARNING")

Project = Annotated[str, Field(validation_alias="projectName")]
OptionalProject = Annotated[str | None, Field(validation_alias="projectName")]
OwnProject = Annotated[str | None, Field(validation_alias="projectName", description="Your own project")]
NewService = Annotated[str, Field(validation_alias="serviceName", description="a-z 0-9 . _ -")]
Service = Annotated[str, Field(validation_alias="serviceName")]
Protocol = Literal["tcp", "udp"]
Status = Literal["allocated", "reserved", "pending", "released", "all"]
PortNumber = Annotated[StrictInt, Field(validation_alias="port")]
OptionalPortNumber = Annotated[StrictInt | None, Field(validation_alias="port")]
RangeName = Annotated[
    str | None, Field(validation_alias="rangeName", description="A range of the project, or a shared one")
]
IdempotencyKey = Annotated[
    str | None, Field(validation_alias="idempotencyKey", description="The same key gives the same port")
]
ExpiresAt = Annotated[str | None, Field(validation_alias="expiresAt", description="7d or ISO 8601")]


@server.operation("get-port", ServicePort, repeats=True)
@with_details(excluding=("metadata",))
async def get_port(
    project_name: Project,
    service_name: NewService,
    *,
    hostname: str | None = None,
    protocol: Protocol = "tcp",
    **details: Any,
) -> CallToolResult:
    """Return a service's port: the one it has, or a new one that nobody else holds. Bind exactly this port. The call is
    safe to repeat: the port stays the same. For a further instance of a running service, use allocate-port."""
    spec = {"hostname": hostname, "protocol": protocol, **details}
    return await answer(
        lambda context: ServicePort.of(allocations.get_or_allocate(context, project_name, service_name, **spec)),
        counts_as="change",
    )


@server.operation("allocate-port", ServicePort)
@with_details(excluding=("metadata",))
async def allocate_port(
    project_name: Project,
    service_name: NewService,
    *,
    hostname: str | None = None,
    protocol: Protocol = "tcp",
    port_number: OptionalPortNumber = None,
    range_name: RangeName = None,
    idempotency_key: IdempotencyKey = None,
    **details: Any,
) -> CallToolResult:
    """Allocate a new port for a further instance of a service, or exactly `port` if it is free. Every call takes
    another port: send an idempotencyKey if you may repeat it. Usually you want get-port."""
    place = {"hostname": hostname, "protocol": protocol, "port_number": port_number, "range_name": range_name}
    spec = place | details

    def allocate(context: Context) -> ServicePort:
        if idempotency_key is None:
            allocation = allocations.allocate(context, project_name, service_name, **spec)
            return ServicePort.of(allocation, retry="look for it with list-ports")

        def run() -> dict[str, str]:
            return {"id": str(allocations.allocate(context, project_name, service_name, **spec).pk)}

        request = {"tool": "allocate-port", "project": project_name, "service": service_name, **spec}
        stored, _ = run_once(context, idempotency_key, request, run, of=allocations.allocate_many, project=project_name)
        # As it is now: it may have been approved or released since.
        allocation = queries.get_held(context, UUID(stored["id"]))
        return ServicePort.of(allocation, retry="repeat this call", created=True)

    return await answer(allocate, counts_as="change")


@server.operation("list-ports", ListedPorts, reads=True)
async def list_ports(
    project_name: OptionalProject = None, status: Status | None = None, hostname: str | None = None
) -> CallToolResult:
    """List who holds which port: what is held now, unless you name a status; at most 200. For one port use
    explain-port, for your own service get-port."""

    def list_rows(context: Context) -> ListedPorts:
        rows = queries.list_allocations(context, project_name, status=status, hostname=hostname)
        return ListedPorts(ports=[schemas.AllocationRow.of(a) for a in rows[:MOST_LISTED]], total=rows.count())

    return await answer(list_rows)


@server.operation("audit-ports", schemas.Audit, reads=True)
async def audit_ports(project_name: OptionalProject = None) -> CallToolResult:
    """Compare the registry with what is listening now: conflicts (services that do not run, or whose port another
    process uses) and unallocated listeners. Shows whether your service came up."""
    return await answer(lambda context: schemas.Audit.of(audits.run_shared(context, project_name)), counts_as="audit")


@server.operation("port-summary", schemas.PortSummary, reads=True)
async def port_summary(project_name: Project) -> CallToolResult:
    """Return how full a project's ranges are: total, allocated, available, percent."""
    return await answer(lambda context: schemas.PortSummary.of(queries.summary(context, project_name)))


@server.operation("release-port", ChangedPort, destroys=True, repeats=True)
async def release_port(
    project_name: Project, service_name: Service, instance: StrictInt | None = None
) -> CallToolResult:
    """Release a service's port. Only for a service that you removed, after it has stopped: this stops nothing.
    `instance` says which port, if the service holds several."""
    return await answer(
        lambda context: ChangedPort.of(allocations.release(context, project_name, service_name, instance=instance)[0]),
        counts_as="change",
    )


@server.operation("update-port", ChangedPort, repeats=True)
@with_details()
async def update_port(
    project_name: Project, service_name: Service, instance: StrictInt | None = None, **details: Any
) -> CallToolResult:
    """Change what the registry says about a service. What you leave out stays. The port itself never changes."""
    return await answer(
        lambda context: ChangedPort.of(
            allocations.update(context, project_name, service_name, instance=instance, **details)
        ),
        counts_as="change",
    )


@server.operation("reserve-port", ChangedPort)
async def reserve_port(
    project_name: Project, port_number: PortNumber, note: str | None = None, expires_at: ExpiresAt = None
) -> CallToolResult:
    """Reserve one port of the project for later, until it expires or is released. For a service that runs now, use
    get-port."""

    def reserve(context: Context) -> ChangedPort:
        expiry = validators.parse_expires_at(expires_at or "")
        return ChangedPort.of(
            reservations.reserve(context, project_name, port_number, description=note or "", expires_at=expiry)
        )

    return await answer(reserve, counts_as="change")


# Members that repeat an argument or what the sentence says.
SAID_BY_SENTENCE = ("port", "hostname", "protocol", "range", "answers")


@server.operation("explain-port", schemas.Explanation, reads=True, unlisted=SAID_BY_SENTENCE)
async def explain_port(
    port_number: PortNumber,
    hostname: str | None = None,
    protocol: Protocol = "tcp",
    project_name: OwnProject = None,
) -> CallToolResult:
    """Explain whose a port is, what listens on it, whether your own project already holds it, and the one safe next
    step. Call this on "address already in use", before you change code or touch a process."""
    place = {"hostname": hostname, "protocol": protocol}
    return await answer(
        lambda context: schemas.Explanation.of(explain.explain(context, port_number, project=project_name, **place))
    )
