"""Find out whether the process on a port belongs to the service that holds it, and hide what a caller may not see."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from allocations import validators
from allocations.listeners import Socket
from allocations.models import PortAllocation

Environment = Callable[[Socket], Mapping[str, str]]
# Replaces the name of a service that the caller may not see.
HIDDEN = "a service of another project"
# The key in the recorded evidence of a check. It must not change: checks recorded earlier have to be redacted too.
FOREIGN_PROJECT = "stranger"


@dataclass(frozen=True, slots=True)
class ForeignProcess:
    """A process that is listening on a port held by another service.

    `project` is the project that `manage.py run` started the process for. It is empty if only the name of the process
    shows that it isn't the expected one.
    """

    socket: Socket
    reason: str
    project: str = ""


def redact(evidence: Mapping[str, Any], visible: Container[str] | None) -> dict[str, Any]:
    """Return the evidence of a check without the names of projects that the caller may not see.

    Args:
        evidence: the evidence as it was recorded.
        visible: the names of the projects that the caller may see; None means all.
    """
    redacted = dict(evidence)
    project = redacted.pop(FOREIGN_PROJECT, "")
    if project and visible is not None and project not in visible:
        redacted["reason"] = HIDDEN
    return redacted


def first_identified(sockets: Sequence[Socket]) -> Socket:
    """Return the first of several sockets on one port whose process is known, or the first if none is."""
    return next((s for s in sockets if s.pid is not None), sockets[0])


def find_foreign_process(
    allocation: PortAllocation, sockets: Sequence[Socket], environment: Environment
) -> ForeignProcess | None:
    """Return the process that is listening on the port of an allocation in place of its service, or None.

    A process is foreign if `manage.py run` started it for another service, or if its name differs from the one in the
    "process" key of the allocation's metadata. A process about which nothing is known isn't foreign.

    Args:
        allocation: the allocation that holds the port.
        sockets: the sockets on that port, at any address; at least one.
        environment: returns the environment variables of the process behind a socket.
    """
    for socket in sockets:
        variables = environment(socket)
        project, service = variables.get("PORTAL_PROJECT", ""), variables.get("PORTAL_SERVICE", "")
        if project and (project != allocation.project.name or (service and service != allocation.service_name)):
            return _process_of(socket, project, service)
    expected, identified = allocation.metadata.get("process"), first_identified(sockets)
    if isinstance(expected, str) and expected and identified.process and identified.process != expected:
        return ForeignProcess(identified, f"process {identified.process}")
    return None


def _process_of(socket: Socket, project: str, service: str) -> ForeignProcess:
    # Anyone can put any text into the environment of a process, so repeat only valid names.
    if not validators.is_name(project) or (service and not validators.is_name(service)):
        return ForeignProcess(socket, HIDDEN)
    return ForeignProcess(socket, f"{project}/{service}" if service else f"a service of {project}", project)
