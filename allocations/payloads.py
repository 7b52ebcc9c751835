"""The registry as JSON: one shape, camelCase, for commands, the API and agents alike."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import asdict
from datetime import datetime
from typing import Any

from .audit import told
from .models import Event, PortAllocation, PortHealthCheck, PortRange, Project
from .ports import Explanation, PortSummary


def _moment(value: datetime | None) -> str | None:
    return value.isoformat() if value else None


def allocation(a: PortAllocation) -> dict[str, Any]:
    """One allocation."""
    return {
        "id": str(a.pk),
        "project": a.project.name,
        "service": a.service_name,
        "instance": a.instance,
        "port": a.port_number,
        "hostname": a.hostname,
        "protocol": a.protocol,
        "status": a.status,
        "serviceType": a.service_type,
        "description": a.description,
        "cloudflareHostname": a.cloudflare_hostname,
        "metadata": a.metadata,
        "range": a.port_range.range_name,
        "health": a.health,
        "allocatedAt": _moment(a.allocated_at),
        "lastUsedAt": _moment(a.last_used_at),
        "expiresAt": _moment(a.expires_at),
        "releasedAt": _moment(a.released_at),
    }


def allocated(a: PortAllocation) -> dict[str, Any]:
    """One allocation, and whether it is new."""
    return allocation(a) | {"created": bool(a.created)}


def project(p: Project) -> dict[str, Any]:
    """One project."""
    return {
        "name": p.name,
        "id": str(p.pk),
        "description": p.description,
        "mode": p.mode,
        "agentQuota": p.agent_quota,
        "createdAt": _moment(p.created_at),
    }


def port_range(r: PortRange) -> dict[str, Any]:
    """One range."""
    return {
        "id": str(r.pk),
        "project": r.project.name,
        "name": r.range_name,
        "start": r.start_port,
        "end": r.end_port,
        "description": r.description,
        "shared": r.is_shared,
        "active": r.is_active,
        "createdAt": _moment(r.created_at),
    }


def event(e: Event) -> dict[str, Any]:
    """One entry of the history; needs `with_project_name()`."""
    return {
        "id": e.pk,
        "at": _moment(e.at),
        "actor": e.actor,
        "source": e.source,
        "verb": e.verb,
        "subject": e.subject,
        "subjectId": str(e.subject_id),
        "project": e.project_name,
        "label": e.label,
        "changes": e.changes,
    }


def check(c: PortHealthCheck, visible: Container[str] | None = None) -> dict[str, Any]:
    """One check of an allocation, as who may see only the projects `visible` reads it; None: all."""
    return {
        "id": str(c.pk),
        "checkType": c.check_type,
        "status": c.status,
        "responseTimeMs": c.response_time_ms,
        "checkedAt": _moment(c.checked_at),
        "evidence": told(c.evidence, visible),
    }


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)


def summary(s: PortSummary) -> dict[str, Any]:
    """How full a project is; a project with several ranges also lists them."""
    numbers = {_camel(k): v for k, v in asdict(s).items() if k not in ("project", "ranges")}
    if len(s.ranges) > 1:
        numbers["ranges"] = [{_camel(k): v for k, v in asdict(r).items()} for r in s.ranges]
    return {"success": True, "summary": numbers}


def explanation(e: Explanation) -> dict[str, Any]:
    """Whose a port is, what listens there, and the next step."""
    return {
        "success": True,
        "port": e.port,
        "hostname": e.hostname,
        "protocol": e.protocol,
        "range": e.port_range.range_name if e.port_range else None,
        "project": e.port_range.project.name if e.port_range else None,
        "allocation": allocation(e.allocation) if e.allocation else None,
        "listener": (
            {"address": e.listener.address, "process": e.listener.process, "pid": e.listener.pid}
            if e.listener
            else None
        ),
        "answers": e.answers.status if e.answers else None,
        "explanation": e.sentence,
        "nextStep": e.next_step,
        "yours": e.yours,
    }
