"""Who stands on a port instead of the service that holds it, and what may be said of them."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from allocations import words
from allocations.listeners import Socket
from allocations.models import PortAllocation

Environment = Callable[[int], Mapping[str, str]]
# What is said of a project to who may not see it.
HIDDEN = "a service of another project"


@dataclass(frozen=True, slots=True)
class Stranger:
    """Who stands on a port instead of the service that holds it.

    `project` is the one that its process was started for, by `run`; empty where only its name tells that it is another.
    """

    socket: Socket
    reason: str
    project: str = ""


def told(evidence: Mapping[str, Any], visible: Container[str] | None) -> dict[str, Any]:
    """What a check saw, as who may see only the projects `visible` reads it; None: all."""
    shown = dict(evidence)
    project = shown.pop("stranger", "")
    if project and visible is not None and project not in visible:
        shown["reason"] = HIDDEN
    return shown


def first_known(sockets: Sequence[Socket]) -> Socket:
    """Of several sockets on one port, the first whose process can be known."""
    return next((s for s in sockets if s.pid is not None), sockets[0])


def stranger(allocation: PortAllocation, sockets: Sequence[Socket], environment: Environment) -> Stranger | None:
    """Who listens there instead of the service, on whichever address, where that can be known: by what `run` told the
    process, or by the process name that the allocation expects (metadata `process`)."""
    for socket in sockets:
        given = environment(socket.pid) if socket.pid is not None else {}
        project, service = given.get("PORTAL_PROJECT", ""), given.get("PORTAL_SERVICE", "")
        if project and (project != allocation.project.name or (service and service != allocation.service_name)):
            return _of_another(socket, project, service)
    expected, seen = allocation.metadata.get("process"), first_known(sockets)
    if isinstance(expected, str) and expected and seen.process and seen.process != expected:
        return Stranger(seen, f"process {seen.process}")
    return None


def _of_another(socket: Socket, project: str, service: str) -> Stranger:
    """By its environment, which is anybody's text: only names are repeated."""
    if not words.is_name(project) or (service and not words.is_name(service)):
        return Stranger(socket, HIDDEN)
    return Stranger(socket, f"{project}/{service}" if service else f"a service of {project}", project)
