"""What is sent, camelCase. Rules that are more than a type stand in words.py."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias
from uuid import UUID

from ninja import Schema
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StrictBool,
    StrictInt,
    StrictStr,
    WrapValidator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from allocations import words
from allocations.errors import PortError


def checked(rule: Callable[[Any], object], value: Any) -> Any:
    """The value, if the rule has nothing against it; otherwise what pydantic can tell of it."""
    try:
        rule(value)
    except PortError as refusal:
        told = {"sentence": refusal.sentence}
        raise PydanticCustomError(refusal.code, "{sentence}", told) from None
    return value


def by(rule: Callable[[Any], object]) -> WrapValidator:
    """Check a value by a rule of words.py, whose sentence and code are the same at every door.

    The type beneath is what the OpenAPI file tells; it is asked only where the rule has nothing against the value.
    """
    return WrapValidator(lambda value, inner: inner(checked(rule, value)))


def _name(rule: Callable[[Any], object]) -> Any:
    return Annotated[StrictStr, Field(pattern=words.NAME_PATTERN, max_length=255), by(rule)]


def _port(field: str) -> Any:
    return Annotated[
        StrictInt, Field(ge=words.FIRST_PORT, le=words.LAST_PORT), by(lambda value: words.port(value, field))
    ]


def _text(field: str, longest: int) -> Any:
    return Annotated[StrictStr, Field(max_length=longest), by(lambda value: words.text(value, field, longest))]


if TYPE_CHECKING:
    ProjectName: TypeAlias = str
    ServiceName: TypeAlias = str
    RangeName: TypeAlias = str
    Description: TypeAlias = str
    Note: TypeAlias = str
    ServiceType: TypeAlias = str
    Host: TypeAlias = str
    Tunnel: TypeAlias = str
    Port: TypeAlias = int
    Start: TypeAlias = int
    End: TypeAlias = int
    Size: TypeAlias = int
else:
    ProjectName, ServiceName, RangeName = map(_name, (words.project_name, words.service_name, words.range_name))
    Port, Start, End = _port("port"), _port("start port"), _port("end port")
    Size = Annotated[StrictInt, Field(ge=1, le=words.LAST_PORT), by(words.size)]
    Description, Note, ServiceType = _text("description", 2000), _text("note", 2000), _text("type", 100)
    Host = Annotated[StrictStr, Field(max_length=255, description="A host name or an IP address."), by(words.host)]
    Tunnel = Annotated[
        StrictStr, Field(max_length=253, description="A public host name."), by(words.cloudflare_hostname)
    ]
Protocol = Literal["tcp", "udp"]
Metadata = Annotated[
    dict[str, JsonValue],
    Field(description="A JSON object of at most 16 KB, for your own use."),
    by(lambda value: words.metadata(value)),
]


def _written(value: Any) -> Any:
    """A moment is text: numbers would be read as seconds since 1970, and those as text, too."""
    if isinstance(value, str) and re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T", value):
        return value
    told = {"sentence": 'not a moment: write text such as "2027-01-31T18:00:00Z"'}
    raise PydanticCustomError("moment", "{sentence}", told)


# The type first: the rule takes a moment, not its text.
Expiry = Annotated[
    AwareDatetime, BeforeValidator(_written), AfterValidator(lambda moment: checked(words.expiry, moment))
]


class Sent(Schema):
    """What comes in: names that nobody knows are refused."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, populate_by_name=False)


# Parameters in the address. They are text: integers are ASCII digits, as they stand in the pattern.


def _digits(text: str) -> int:
    return int(text)


Number = Annotated[str, Field(pattern=r"^[0-9]{1,5}$"), AfterValidator(_digits)]
Limit = Annotated[str, Field(pattern=r"^([1-9][0-9]?|[1-4][0-9]{2}|500)$"), AfterValidator(_digits)]
Found = Annotated[str, Field(max_length=255, pattern=r"^[^\x00-\x1f\x7f]*$")]


class Paged(Sent):
    limit: Limit = Field("100", description="How many at once, 1 to 500.", validate_default=True)
    cursor: Annotated[str, Field(max_length=1000, pattern=r"^[^\x00]*$")] | None = Field(
        None, description="What the page before gave as next."
    )


class PortsQuery(Paged):
    project: ProjectName | None = None
    status: Literal["allocated", "reserved", "pending", "released", "all"] | None = Field(
        None, description="Without it: what is held."
    )
    host: Host | None = None
    protocol: Protocol | None = None
    service: ServiceName | None = None
    q: Found | None = Field(None, description="What a person would search for.")


class AuditQuery(Sent):
    project: ProjectName | None = Field(None, description="Only what is of this project.")
    strict: Literal["0", "1"] = Field("0", description="1: answer 503 when there are conflicts.")


class ExplainQuery(Sent):
    port: Number
    project: ProjectName | None = Field(None, description="Who asks: is it theirs from before?")
    hostname: Host | None = None
    protocol: Protocol | None = None


class ProjectsQuery(Paged):
    q: Found | None = Field(None, description="A part of the name.")


class RangesQuery(Paged):
    project: ProjectName | None = None


class EventsQuery(Paged):
    project: ProjectName | None = None
    subject: UUID | None = Field(None, description="Id of a project, a range or an allocation.")


class ChecksQuery(Paged):
    port: UUID = Field(description="Id of the allocation.")


class DiscoveryQuery(Sent):
    project: ProjectName | None = None


# Bodies


class Service(Sent):
    service: ServiceName
    service_type: ServiceType = ""
    description: Description = ""
    cloudflare_hostname: Tunnel | None = None
    hostname: Host | None = None
    protocol: Protocol = "tcp"
    port: Port | None = Field(None, description="Exactly this port, or a refusal.")
    range: RangeName | None = Field(None, description="A range of the project, or a shared one.")
    metadata: Metadata = Field(default_factory=dict)

    def wanted(self) -> dict[str, Any]:
        """What `wish()` takes, beside the service."""
        given = self.model_dump(exclude={"service", "range", "project", "new", "adopt"})
        return given | {"range_name": self.range}


class Allocate(Service):
    project: ProjectName
    new: StrictBool = Field(False, description="A new port, whatever the service has.")
    adopt: StrictBool = Field(False, description="The service listens on port already: register it.")


class AllocateMany(Sent):
    project: ProjectName
    services: Annotated[list[Service], Field(min_length=1, max_length=500)]
    new: StrictBool = Field(False, description="New ports, whatever the services have.")


class ChangeAllocation(Sent):
    service: ServiceName = Field(None, description="Renames the service.")  # type: ignore[assignment]
    service_type: ServiceType = Field(None)  # type: ignore[assignment]
    description: Description = Field(None)  # type: ignore[assignment]
    cloudflare_hostname: Tunnel | None = None
    metadata: Metadata = Field(None, description="Replaces the whole object.")  # type: ignore[arg-type]
    expires_at: Expiry | None = Field(None, description="Of a reservation; null is never.")


class Reserve(Sent):
    project: ProjectName
    port: Port
    last_port: Port | None = Field(None, description="Reserves all from port to this one.")
    note: Note = ""
    expires_at: Expiry | None = Field(None, description="When it ends; null is never.")
    hostname: Host | None = None
    protocol: Protocol = "tcp"


class AddProject(Sent):
    name: ProjectName
    description: Description = ""
    size: Size = Field(words.DEFAULT_RANGE_SIZE, description="How many ports its range has.")
    start: Start | None = Field(None, description="Its first port; null is the lowest free block.")
    shared: StrictBool = Field(False, description="Other projects may name its range.")
    with_range: StrictBool = True


class ChangeProject(Sent):
    mode: Literal["autonomous", "ask"] = Field(
        None,  # type: ignore[arg-type]
        description="ask: a person approves what agents ask for.",
    )
    agent_quota: Annotated[StrictInt, Field(ge=0, le=words.LAST_PORT)] | None = Field(
        None, description="How many ports each token may hold; null: as many as there are."
    )
    name: ProjectName = Field(None)  # type: ignore[assignment]
    description: Description = Field(None)  # type: ignore[assignment]


class AddRange(Sent):
    project: ProjectName
    name: RangeName
    start: Start
    end: End
    description: Description = ""
    shared: StrictBool = False
    active: StrictBool = True


class ChangeRange(Sent):
    project: ProjectName = Field(None, description="Hands the range to another project.")  # type: ignore[assignment]
    name: RangeName = Field(None)  # type: ignore[assignment]
    start: Start = Field(None)  # type: ignore[assignment]
    end: End = Field(None)  # type: ignore[assignment]
    description: Description = Field(None)  # type: ignore[assignment]
    shared: StrictBool = Field(None)  # type: ignore[assignment]
    active: StrictBool = Field(None)  # type: ignore[assignment]
