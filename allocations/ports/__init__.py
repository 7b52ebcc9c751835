"""The operations of Portal, in modules named after what they work on, and the Python API.

    from allocations.ports import PortManager

    ports = PortManager(actor="deploy")
    ports.get_or_allocate("consilio", "api-server", service_type="api")  # -> PortAllocation

Each operation takes the caller's `Context` as its first argument. It checks their rights, runs in one transaction, with
one statement where that is possible, and raises a PortError if it is refused. Doors call the operations; `PortManager`
is for Python code.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from allocations.allocation_spec import AllocationSpec, allocation_spec
from allocations.audit import AuditReport
from allocations.auth.roles import Caller
from allocations.models import PortAllocation

from . import allocations, audits, queries, reservations
from .operations import Context
from .queries import PortSummary

__all__ = ["AllocationSpec", "Context", "PortManager", "PortSummary", "allocation_spec"]


class PortManager:
    """The Python API. Each method is the operation of the same name.

    Args:
        actor: the name that the history shows: a person, an agent, a script.
        source: the door: python, shell, web, admin, api or mcp.
        caller: whose rights apply; without one, the code is trusted like the shell.
    """

    def __init__(self, actor: str, source: str = "python", caller: Caller | None = None) -> None:
        self.context = Context(actor, source, caller or Caller.trusted(actor))

    def get_or_allocate(self, project: str, service: str, **spec: Any) -> PortAllocation:
        """Return the service's port, allocated if it has none. See `allocations.get_or_allocate`."""
        return allocations.get_or_allocate(self.context, project, service, **spec)

    def allocate(self, project: str, service: str, **spec: Any) -> PortAllocation:
        """Allocate a new port. See `allocations.allocate`."""
        return allocations.allocate(self.context, project, service, **spec)

    def allocate_many(
        self, project: str, services: Sequence[str | AllocationSpec], *, new: bool = True
    ) -> list[PortAllocation]:
        """Allocate a port for each service, all or none. See `allocations.allocate_many`."""
        return allocations.allocate_many(self.context, project, services, new=new)

    def reserve(
        self, project: str, port: int, *, note: str = "", expires_at: datetime | None = None, **socket: str | None
    ) -> PortAllocation:
        """Reserve a port. See `reservations.reserve`."""
        return reservations.reserve(self.context, project, port, description=note, expires_at=expires_at, **socket)

    def release(self, project: str, service: str, **which: Any) -> list[PortAllocation]:
        """Release what a service holds. See `allocations.release`."""
        return allocations.release(self.context, project, service, **which)

    def update(self, project: str, service: str, **changes: Any) -> PortAllocation:
        """Change the details of what a service holds. See `allocations.update`."""
        return allocations.update(self.context, project, service, **changes)

    def list(self, project: str | None = None, **filters: Any) -> Any:
        """Return allocations as a queryset. See `queries.list_allocations`."""
        return queries.list_allocations(self.context, project, **filters)

    def summary(self, project: str) -> PortSummary:
        """Return how full the ranges of a project are. See `queries.summary`."""
        return queries.summary(self.context, project)

    def audit(self, project: str | None = None, **options: Any) -> AuditReport:
        """Compare the registry with what is listening. See `audits.run`."""
        return audits.run(self.context, project, **options)
