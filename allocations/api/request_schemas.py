"""What callers send: the parameters in the address, and the bodies.

Python names are those of the columns and of the operations' arguments; the alias is the published name. A rule that is
more than a type is a function in validators.py, so that its code and its sentence are the same at every door.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal, get_args
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationInfo,
    WrapValidator,
    field_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from allocations import validators
from allocations.allocation_spec import DETAILS
from allocations.errors import InvalidValue, PortError
from allocations.schemas import AllocationDetails
from allocations.text import quoted
from allocations.validators import FIRST_PORT, LAST_PORT


def checked(rule: Callable[[Any], object], value: Any) -> Any:
    """Return the value unchanged if the rule accepts it.

    Raises:
        PydanticCustomError: with the code and the sentence of the PortError that the rule raised.
    """
    try:
        rule(value)
    except PortError as error:
        raise PydanticCustomError(error.code, "{sentence}", {"sentence": error.sentence}) from None
    return value


def by(rule: Callable[[Any], object]) -> WrapValidator:
    """Check a value by a rule, and only then by the type, which is what the OpenAPI description publishes."""
    return WrapValidator(lambda value, handler: handler(checked(rule, value)))


Name = Annotated[StrictStr, Field(pattern=validators.NAME_PATTERN, max_length=255)]
ProjectName = Annotated[Name, by(validators.project_name)]
ServiceName = Annotated[Name, by(validators.service_name)]
RangeName = Annotated[Name, by(validators.range_name)]
Hostname = Annotated[
    StrictStr, Field(max_length=255, description="A host name or an IP address."), by(validators.hostname)
]
Protocol = Literal["tcp", "udp"]
Port = Annotated[StrictInt, Field(ge=FIRST_PORT, le=LAST_PORT)]
PortNumber = Annotated[Port, by(validators.port_number)]
StartPort = Annotated[Port, by(partial(validators.port_number, field="start_port"))]
EndPort = Annotated[Port, by(partial(validators.port_number, field="end_port"))]
Size = Annotated[StrictInt, Field(ge=1, le=LAST_PORT), by(validators.size)]
Description = Annotated[StrictStr, Field(max_length=validators.LONGEST_TEXT), by(validators.description)]


def _require_written_time(value: object) -> None:
    """Refuse numbers, which pydantic would read as seconds since 1970, even if they are written as text."""
    if not isinstance(value, str) or not re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T", value):
        raise InvalidValue(f'Expiry {quoted(value)} is not valid: write a time such as "2027-01-31T18:00:00Z".')


# The rule takes a time, so the type comes first.
Expiry = Annotated[
    AwareDatetime,
    BeforeValidator(partial(checked, _require_written_time)),
    AfterValidator(partial(checked, validators.expires_at)),
]


class Input(BaseModel):
    """The base of everything that callers send. Unknown fields are refused."""

    model_config = ConfigDict(
        extra="forbid", alias_generator=to_camel, field_title_generator=lambda name, _: validators.label(name)
    )

    @classmethod
    def published_name(cls, field: str) -> str | None:
        """Return the published name of a field, or None if there is no such field."""
        info = cls.model_fields.get(field)
        return info and (info.alias or field)

    @classmethod
    def published_item_name(cls, field: str, index: int) -> str | None:
        """Return the published name of a field of one of several items, such as `services.3.port`."""
        for name, info in cls.model_fields.items():
            for item in get_args(info.annotation):
                if isinstance(item, type) and issubclass(item, Input) and field in item.model_fields:
                    return f"{cls.published_name(name)}.{index}.{item.published_name(field)}"
        return None


# Parameters in the address. They are text, and the pattern of a number admits ASCII digits only.


class ProjectPath(Input):
    project: str = Field(alias="name")


PortText = Annotated[str, Field(pattern=r"^[0-9]{1,5}$"), AfterValidator(int)]
Limit = Annotated[str, Field(pattern=r"^([1-9][0-9]?|[1-4][0-9]{2}|500)$"), AfterValidator(int)]
SearchText = Annotated[str, Field(max_length=255, pattern=r"^[^\x00-\x1f\x7f]*$")]


class PageQuery(Input):
    limit: Limit = Field("100", description="How many items a page has: 1 to 500.", validate_default=True)
    cursor: Annotated[str, Field(max_length=1000, pattern=r"^[^\x00]*$")] | None = Field(
        None, description="The value of next from the previous page."
    )


class PortsQuery(PageQuery):
    project: ProjectName | None = None
    status: Literal["allocated", "reserved", "pending", "released", "all"] | None = Field(
        None, description="The default is everything that is held."
    )
    hostname: Hostname | None = Field(None, alias="host")
    protocol: Protocol | None = None
    service_name: ServiceName | None = Field(None, alias="service")
    text: SearchText | None = Field(
        None, alias="q", description="Search in services, projects, hosts, descriptions and ports."
    )


class AuditQuery(Input):
    project: ProjectName | None = Field(None, description="Only this project.")
    strict: Literal["0", "1"] = Field("0", description="1: respond with 503 if there are conflicts.")


class ExplainQuery(Input):
    port_number: PortText = Field(alias="port")
    project: ProjectName | None = Field(None, description="Your own project, to learn whether the port is yours.")
    hostname: Hostname | None = None
    protocol: Protocol | None = None


class ReleaseQuery(Input):
    ports: str = Field(
        "", max_length=11, description="Of a reserved block, the part to release, such as 3152-3154.", examples=[""]
    )


class ProjectsQuery(PageQuery):
    text: SearchText | None = Field(None, alias="q", description="A part of the name.")


class RangesQuery(PageQuery):
    project: ProjectName | None = None


class EventsQuery(PageQuery):
    project: ProjectName | None = None
    subject_id: UUID | None = Field(None, alias="subject", description="Id of a project, a range or an allocation.")


class ChecksQuery(PageQuery):
    allocation_id: UUID = Field(alias="port", description="Id of the allocation.")


class DiscoveryQuery(Input):
    project: ProjectName | None = None


# Bodies


class DetailsInput(AllocationDetails, Input):
    """The details of an allocation, each checked by its validator."""

    @field_validator(*DETAILS, mode="wrap")
    @classmethod
    def _check(cls, value: Any, handler: Callable[[Any], Any], info: ValidationInfo) -> Any:
        # The type of a field decides whether it may be null.
        rule = DETAILS[str(info.field_name)]
        return handler(value if value is None else checked(rule, value))


class Service(DetailsInput):
    service_name: ServiceName = Field(alias="service")
    hostname: Hostname | None = None
    protocol: Protocol = "tcp"
    port_number: PortNumber | None = Field(None, alias="port", description="Exactly this port, or a refusal.")
    range_name: RangeName | None = Field(None, alias="range", description="A range of the project, or a shared one.")

    def spec(self) -> dict[str, Any]:
        """Return the arguments of `allocation_spec()`."""
        return self.model_dump(include=set(Service.model_fields))


class Allocate(Service):
    project: ProjectName
    new: StrictBool = Field(False, description="Allocate a new port, whatever the service already holds.")
    adopt: StrictBool = Field(False, description="Register a port on which the service already listens.")


class AllocateMany(Input):
    project: ProjectName
    services: Annotated[list[Service], Field(min_length=1, max_length=500)]
    new: StrictBool = Field(False, description="Allocate new ports, whatever the services already hold.")


class Reserve(Input):
    project: ProjectName
    port_number: PortNumber = Field(alias="port")
    end_port: EndPort | None = Field(
        None, alias="lastPort", description="Reserve a block: every port from port to this one."
    )
    description: Description = Field("", alias="note")
    expires_at: Expiry | None = Field(None, description="When the reservation ends; null means never.")
    hostname: Hostname | None = None
    protocol: Protocol = "tcp"

    @field_validator("end_port")
    @classmethod
    def _check_block(cls, end_port: int | None, info: ValidationInfo) -> int | None:
        # The operation would blame the start port, but here the end port is the optional one.
        if end_port is not None and "port_number" in info.data:
            checked(partial(validators.port_span, info.data["port_number"]), end_port)
        return end_port


class AddProject(Input):
    name: ProjectName
    description: Description = ""
    size: Size = Field(validators.DEFAULT_RANGE_SIZE, description="How many ports its range has.")
    start_port: StartPort | None = Field(
        None, alias="start", description="The first port of its range; null means the lowest free block."
    )
    is_shared: StrictBool = Field(False, alias="shared", description="Whether other projects may use its range.")
    with_range: StrictBool = True


class AddRange(Input):
    project: ProjectName
    range_name: RangeName = Field(alias="name")
    start_port: StartPort = Field(alias="start")
    end_port: EndPort = Field(alias="end")
    description: Description = ""
    is_shared: StrictBool = Field(False, alias="shared")
    is_active: StrictBool = Field(True, alias="active")


# Changes


def _without_defaults(schema: dict[str, Any]) -> None:
    for field in schema["properties"].values():
        field.pop("default", None)


class Changes(Input):
    """The base of bodies that change something. A field that is left out keeps its value."""

    model_config = ConfigDict(json_schema_extra=_without_defaults)

    def sent(self) -> dict[str, Any]:
        """Return the fields that the caller sent."""
        return self.model_dump(exclude_unset=True)


# The value of a field that was not sent. It is never read.
LEFT_OUT: Any = None


class ChangeAllocation(DetailsInput, Changes):
    service_name: ServiceName = Field(LEFT_OUT, alias="service", description="Renames the service.")
    expires_at: Expiry | None = Field(LEFT_OUT, description="When the reservation ends; null means never.")


class ChangeProject(Changes):
    name: ProjectName = LEFT_OUT
    description: Description = LEFT_OUT
    mode: Literal["autonomous", "ask"] = Field(LEFT_OUT, description="ask: a person approves what agents request.")
    agent_quota: Annotated[StrictInt, Field(ge=0, le=LAST_PORT), by(validators.agent_quota)] | None = Field(
        LEFT_OUT, description="How many ports each token may hold; null means no limit."
    )


class ChangeRange(Changes):
    project: ProjectName = Field(LEFT_OUT, description="Hands the range to another project.")
    range_name: RangeName = Field(LEFT_OUT, alias="name")
    start_port: StartPort = Field(LEFT_OUT, alias="start")
    end_port: EndPort = Field(LEFT_OUT, alias="end")
    description: Description = LEFT_OUT
    is_shared: StrictBool = Field(LEFT_OUT, alias="shared")
    is_active: StrictBool = Field(LEFT_OUT, alias="active")
