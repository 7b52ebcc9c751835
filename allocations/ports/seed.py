"""The projects and ports that a new installation starts with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from allocations import sql
from allocations.auth.roles import Role
from allocations.models import Event, PortAllocation, PortRange, Project

from . import allocations, projects
from .operations import Context, operation

SHARED = "shared-services"
OWN_PROJECT, OWN_SERVICE, OWN_PORT = "meta-supervisor", "dashboard", 3000
SEED = {
    OWN_PROJECT: (3000, 3099),
    "consilio": (3100, 3199),
    "openhorizon": (3200, 3299),
    "odin": (3300, 3399),
    "health-agent": (3400, 3499),
    "quiculum-monitor": (3500, 3599),
    SHARED: (9000, 9999),
}


@contextmanager
def exclusive_setup() -> Iterator[None]:
    """Keep other Portals from setting up the same database at the same time: each would create its tables."""
    with sql.exclusive("set-up"):
        yield


@operation(Role.ADMIN, "seed projects")
def seed(context: Context, port_number: int = OWN_PORT) -> list[str]:
    """Add the projects of a new installation and Portal's own port.

    Nothing is seeded twice: the history remembers it, so that a project or port that somebody has renamed, deleted or
    released does not come back. A span that another range uses is left alone.

    Args:
        port_number: the port on which Portal serves. It is allocated to Portal if it lies in the range of Portal's own
            project; otherwise 3000 is.

    Returns:
        The names of the projects that were added.
    """
    created = set(Event.objects.filter(subject="project", verb="created").values_list("label", flat=True))
    added = [name for name in SEED if name not in created and _seed_project(context, name)]
    if OWN_PROJECT in added:
        first, last = SEED[OWN_PROJECT]
        allocations.adopt(
            context,
            OWN_PROJECT,
            OWN_SERVICE,
            port_number=port_number if first <= port_number <= last else OWN_PORT,
            service_type="dashboard",
            description="Portal itself",
        )
    return added


def _seed_project(context: Context, name: str) -> bool:
    first, last = SEED[name]
    is_taken = PortRange.objects.filter(start_port__lte=last, end_port__gte=first).exists()
    if is_taken or Project.objects.filter(name=name).exists():
        return False
    projects.add(context, name, size=last - first + 1, start_port=first, is_shared=name == SHARED)
    return True


def own_port() -> int | None:
    """Return the port that the registry assigns to Portal itself."""
    rows = PortAllocation.objects.allocated().filter(
        project__name=OWN_PROJECT, service_name=OWN_SERVICE, instance=0, hostname="localhost"
    )
    return rows.values_list("port_number", flat=True).first()
