"""The JSON that Portal publishes: one schema per thing, for the REST API, the MCP tools and `--json` alike.

    Allocation.of(row).dump()  # -> {"id": "…", "project": "consilio", "service": "api", "port": 3100, …}

A field is named like the attribute it is read from, which is the column for a model. It is published in camelCase.
Where the published name is another one, the field says so with `serialization_alias`; where the value lies deeper, it
says so with an `AliasPath`. The OpenAPI description and the output schemas of the MCP tools are generated from here.
"""

from __future__ import annotations

from collections.abc import Container
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal, Self
from uuid import UUID

from pydantic import (
    AliasGenerator,
    AliasPath,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel

from . import validators
from .allocation_spec import LONGEST_OWNER
from .audit import NOT_RUNNING, redact
from .models import Health

Protocol = Literal["tcp", "udp"]
Status = Literal["allocated", "reserved", "pending", "released"]
Verdict = Literal["up", "down", "conflict", "unknown"]
# pydantic would write Z for UTC; Portal has always written +00:00.
Moment = Annotated[
    datetime,
    PlainSerializer(lambda moment: moment.isoformat(), return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]


def _without_input_rules(schema: dict[str, Any]) -> None:
    """Remove from the schema of an answer what only matters to a request: defaults and limits of length."""
    for field in schema.get("properties", {}).values():
        field.pop("default", None)
        field.pop("maxLength", None)


class Output(BaseModel):
    """The base of everything that Portal publishes. Values are trusted: they come from the database."""

    model_config = ConfigDict(
        from_attributes=True,
        alias_generator=AliasGenerator(serialization_alias=to_camel),
        validate_by_name=True,
        json_schema_serialization_defaults_required=True,
        json_schema_extra=_without_input_rules,
        field_title_generator=lambda name, _: validators.label(name),
    )

    @classmethod
    def of(cls, source: Any) -> Self:
        """Build the schema from the attributes of a model instance or of what an operation returned."""
        return cls.model_validate(source)

    def dump(self) -> dict[str, Any]:
        """Return the published JSON, as Python objects that `json.dumps` takes."""
        return self.model_dump(mode="json", by_alias=True)


# Allocations


class AllocationDetails(BaseModel):
    """The details of an allocation: what a caller may say about it, and may change later.

    This is the one place where they are listed for REST and MCP, input and output. A detail that is added here is a
    parameter of the requests and tools that allocate and update, and a member of every allocation that they answer.
    Models read the descriptions with every tool, so they are short.
    """

    service_type: str = Field(
        "",
        title="Type",
        description="e.g. api, web, database",
        json_schema_extra={"maxLength": validators.LONGEST_TYPE},
    )
    description: str = Field("", json_schema_extra={"maxLength": validators.LONGEST_TEXT})
    owner: str = Field(
        "",
        description="Person or team to ask",
        examples=["team-payments"],
        json_schema_extra={"maxLength": LONGEST_OWNER},
    )
    cloudflare_hostname: str | None = Field(
        None,
        title="Cloudflare hostname",
        description='Public hostname; "" for none',
        json_schema_extra={"maxLength": 253},
    )
    metadata: dict[str, JsonValue] = Field(
        default_factory=dict, description="Your own data, at most 16 KB; replaced as a whole"
    )


class Identified(Output):
    """The id by which REST addresses a thing."""

    id: UUID


class AllocatedPort(Output):
    """The port of an allocation, and who holds it."""

    project: str = Field(validation_alias=AliasPath("project", "name"))
    service_name: str | None = Field(title="Service", serialization_alias="service")
    instance: int
    port_number: int = Field(title="Port", serialization_alias="port")
    hostname: str = Field(title="Host")
    protocol: Protocol
    status: Status


# Only a block of reserved ports has it.
LastPort = int | None
LAST_PORT = Field(None, description="The last port, of a reserved block.", exclude_if=lambda port: port is None)


# Members appear in the order of the bases, from the last one to the first.
class Allocation(AllocationDetails, AllocatedPort, Identified):
    """One allocation, held or released."""

    # The columns of a table or CSV file of allocations.
    COLUMNS: ClassVar[tuple[str, ...]] = (
        *("port_number", "protocol", "hostname", "project", "service_name", "instance", "status", "health"),
        *("service_type", "description", "owner"),
    )

    range_name: str = Field(
        title="Range", validation_alias=AliasPath("port_range", "range_name"), serialization_alias="range"
    )
    last_port: LastPort = LAST_PORT
    health: Verdict | None
    allocated_at: Moment
    last_used_at: Moment | None
    expires_at: Moment | None
    released_at: Moment | None

    @classmethod
    def headings(cls) -> list[str]:
        """Return the headings of a table of allocations."""
        return [cls.model_fields[name].title or validators.label(name) for name in cls.COLUMNS]

    def cells(self) -> list[object]:
        """Return the allocation as a row of that table."""
        first, *others = (getattr(self, name) for name in self.COLUMNS)
        return [f"{first}-{self.last_port}" if self.last_port else first, *others]


class NewAllocation(Allocation):
    """An allocation, and whether this request created it."""

    created: bool


class AllocationRow(AllocatedPort):
    """An allocation in a list: enough to find the right one."""

    last_port: LastPort = LAST_PORT
    health: Verdict | None
    description: str
    owner: str


# Projects and ranges


class Project(Output):
    """One project."""

    name: str
    id: UUID
    description: str
    mode: Literal["autonomous", "ask"]
    agent_quota: int | None
    created_at: Moment


class Range(Identified):
    """One range."""

    project: str = Field(validation_alias=AliasPath("project", "name"))
    range_name: str = Field(serialization_alias="name")
    start_port: int = Field(serialization_alias="start")
    end_port: int = Field(serialization_alias="end")
    description: str
    is_shared: bool = Field(serialization_alias="shared")
    is_active: bool = Field(serialization_alias="active")
    created_at: Moment


class AddedProject(Output):
    """A project that was added, as `add_project --json` reports it. It is built from the project's range."""

    success: Literal[True] = True
    project: str = Field(validation_alias=AliasPath("project", "name"))
    start_port: int = Field(serialization_alias="rangeStart")
    end_port: int = Field(serialization_alias="rangeEnd")


class SpanUsage(Output):
    """How full a span of ports is."""

    range_start: int
    range_end: int
    total_ports: int
    allocated_ports: int
    reserved_ports: int
    available_ports: int
    utilization_percent: int


class NamedRange(Output):
    """The name of a range."""

    range_name: str


class RangeUsage(SpanUsage, NamedRange):
    """How full one range is."""


class ProjectUsage(SpanUsage):
    """How full a project is."""

    # One range would only repeat the totals.
    ranges: Annotated[
        list[RangeUsage] | None, BeforeValidator(lambda ranges: ranges if ranges and len(ranges) > 1 else None)
    ] = Field(
        None,
        description="The ranges, if the project has more than one.",
        exclude_if=lambda ranges: ranges is None,
    )


class PortSummary(Output):
    """How full the active ranges of a project are."""

    success: Literal[True] = True
    summary: ProjectUsage

    @classmethod
    def of(cls, source: Any) -> Self:
        return cls.model_validate({"summary": source})


# History and checks


class Event(Output):
    """One entry of the history. It is built from an event with `with_project_name()`."""

    id: int
    at: Moment
    actor: str
    source: str
    verb: str
    subject: str
    subject_id: UUID
    project_name: str | None = Field(serialization_alias="project")
    label: str
    changes: dict[str, Any]


class Check(Identified):
    """One check of an allocation by an audit."""

    check_type: str
    status: Verdict
    response_time_ms: int | None
    checked_at: Moment
    evidence: dict[str, Any]

    @classmethod
    def of(cls, source: Any, visible: Container[str] | None = None) -> Self:
        """Build the schema of a check as a caller may see it.

        Args:
            visible: names of the projects that the caller is limited to; None means no limit.
        """
        check = super().of(source)
        return check.model_copy(update={"evidence": redact(check.evidence, visible)})


class Uptime(Output):
    """How often checks found a service up."""

    checks: int
    up: int
    percentage: float | None


# Audits


class AuditSummary(Output):
    """The numbers of an audit."""

    allocated: int
    in_use: int
    not_running: int
    health_percentage: int | None = Field(
        description="The share of the services that could be judged; null if none could be."
    )
    unknown: int
    drift: int = Field(description="How many services are listening on a port other than their own.")
    unallocated: int


class AuditConflict(Output):
    """An allocation whose service does not run, or whose port another process holds."""

    port_number: int = Field(serialization_alias="port")
    expected: str
    actual: str


class UnallocatedListener(Output):
    """A listener on a port inside an active range that no allocation covers."""

    port: int
    hostname: str
    protocol: Protocol
    process: str
    project: str


class Audit(Output):
    """The report of an audit."""

    success: Literal[True] = True
    summary: AuditSummary
    conflicts: list[AuditConflict]
    unallocated: list[UnallocatedListener]

    @classmethod
    def of(cls, source: Any) -> Self:
        """Build the schema from an AuditReport."""
        conflicts = [
            {
                "port_number": finding.allocation.port_number,
                "expected": finding.allocation.label,
                "actual": NOT_RUNNING if finding.status == Health.DOWN else finding.reason,
            }
            for finding in source.conflicts
        ]
        return cls.model_validate(
            {"summary": source.summary, "conflicts": conflicts, "unallocated": source.unallocated}
        )


# Explanations


class ObservedListener(Output):
    """A process that listens on a port."""

    address: str
    process: str
    pid: int | None


class Explanation(Output):
    """Whose a port is, what listens on it, and the next step."""

    success: Literal[True] = True
    port_number: int = Field(serialization_alias="port")
    hostname: str
    protocol: Protocol
    range_name: str | None = Field(
        None, validation_alias=AliasPath("port_range", "range_name"), serialization_alias="range"
    )
    project: str | None = Field(None, validation_alias=AliasPath("port_range", "project", "name"))
    allocation: Allocation | None
    listener: ObservedListener | None
    answers: str | None = Field(
        None, validation_alias=AliasPath("probe", "status"), description="What another host answered, if it was asked."
    )
    sentence: str = Field(serialization_alias="explanation")
    next_step: str
    is_yours: bool | None = Field(
        serialization_alias="yours", description="Whether the project that asks holds it; null if none was named."
    )


# Imports


class ImportLine(Output):
    """Where a row stands in the input, and the port that its service has to leave."""

    line: int | None
    old: int | None


class ImportedAllocation(Allocation, ImportLine):
    """A row that has its port now."""


class LeftOutRow(Output):
    """A row that was not imported."""

    line: int | None
    reason: str
    row: str


class ImportReport(Output):
    """What became of each row of an import."""

    success: Literal[True] = True
    format: str
    dry_run: bool
    imported: list[ImportedAllocation]
    moved: list[ImportedAllocation]
    already: list[ImportedAllocation]
    left_out: list[LeftOutRow]

    @classmethod
    def of(cls, source: Any) -> Self:
        """Build the schema from the ImportReport of `ports.imports`."""

        def line(row: Any) -> int | None:
            return row.line if source.has_lines else None

        def imported(rows: Any) -> list[ImportedAllocation]:
            return [
                ImportedAllocation.model_construct(line=line(row), old=row.old, **dict(Allocation.of(row.allocation)))
                for row in rows
            ]

        return cls(
            format=source.format,
            dry_run=source.is_dry_run,
            imported=imported(source.imported),
            moved=imported(source.moved),
            already=imported(source.already),
            left_out=[LeftOutRow(line=line(row), reason=row.reason, row=row.text) for row in source.left_out],
        )


# Hosts


class Host(Output):
    """A host that audits may connect to, or one on which ports are held."""

    name: str
    held: int = Field(description="How many ports are held on it.")
    is_approved: bool
    approved_by: str
    approved_at: Moment | None
