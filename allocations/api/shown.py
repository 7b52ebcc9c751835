"""What comes back, camelCase."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from ninja import Schema
from pydantic import ConfigDict, JsonValue
from pydantic.alias_generators import to_camel

Protocol = Literal["tcp", "udp"]


class Shown(Schema):
    """What goes out."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class Allocation(Shown):
    id: UUID
    project: str
    service: str | None
    instance: int
    port: int
    hostname: str
    protocol: Protocol
    status: Literal["allocated", "reserved", "pending", "released"]
    service_type: str
    description: str
    cloudflare_hostname: str | None
    metadata: dict[str, JsonValue]
    range: str
    health: Literal["up", "down", "conflict", "unknown"] | None
    allocated_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None
    released_at: datetime | None


class Allocated(Allocation):
    created: bool


class Page(Shown):
    next: str | None


class Allocations(Page):
    items: list[Allocation]


class ManyAllocated(Shown):
    allocations: list[Allocated]
    created: int


class Reserved(Shown):
    allocations: list[Allocation]


class AuditSummary(Shown):
    allocated: int
    in_use: int
    not_running: int
    health_percentage: int


class AuditConflict(Shown):
    port: int
    expected: str
    actual: str


class AuditStray(Shown):
    port: int
    hostname: str
    protocol: Protocol
    process: str
    project: str


class Audit(Shown):
    success: Literal[True]
    summary: AuditSummary
    conflicts: list[AuditConflict]
    unallocated: list[AuditStray]


class RangeUsage(Shown):
    range_name: str
    range_start: int
    range_end: int
    total_ports: int
    allocated_ports: int
    reserved_ports: int
    available_ports: int
    utilization_percent: int


class Usage(Shown):
    range_start: int
    range_end: int
    total_ports: int
    allocated_ports: int
    reserved_ports: int
    available_ports: int
    utilization_percent: int
    ranges: list[RangeUsage] | None = None


class Summary(Shown):
    success: Literal[True]
    summary: Usage


class SeenListener(Shown):
    address: str
    process: str
    pid: int | None


class Explanation(Shown):
    success: Literal[True]
    port: int
    hostname: str
    protocol: Protocol
    range: str | None
    project: str | None
    allocation: Allocation | None
    listener: SeenListener | None
    answers: str | None
    explanation: str
    next_step: str
    yours: bool | None


class Range(Shown):
    id: UUID
    project: str
    name: str
    start: int
    end: int
    description: str
    shared: bool
    active: bool
    created_at: datetime


class Ranges(Page):
    items: list[Range]


class Project(Shown):
    name: str
    id: UUID
    description: str
    mode: Literal["autonomous", "ask"]
    agent_quota: int | None
    created_at: datetime


class Projects(Page):
    items: list[Project]


class Event(Shown):
    id: int
    at: datetime
    actor: str
    source: str
    verb: str
    subject: str
    subject_id: UUID
    project: str | None
    label: str
    changes: dict[str, Any]


class Events(Page):
    items: list[Event]


class Check(Shown):
    id: UUID
    check_type: str
    status: Literal["up", "down", "conflict", "unknown"]
    response_time_ms: int | None
    checked_at: datetime
    evidence: dict[str, Any]


class Uptime(Shown):
    checks: int
    up: int
    percentage: float | None


class Checks(Page):
    items: list[Check]
    uptime: Uptime


class PrometheusTargets(Shown):
    targets: list[str]
    labels: dict[str, str]


class FieldError(Shown):
    field: str
    message: str


class Problem(Shown):
    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[FieldError] | None = None
    details: dict[str, Any] | None = None
