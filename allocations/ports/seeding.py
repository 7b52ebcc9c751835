"""What comes with a new installation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from allocations import sql
from allocations.access import Role
from allocations.models import Event, PortAllocation, PortRange, Project

from .allocating import Allocating
from .base import operation
from .owning import Owning

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
def setting_up() -> Iterator[None]:
    """While this runs, no other Portal of the same database sets it up: two at once would make its tables twice."""
    with sql.alone("set-up"):
        yield


class Seeding(Owning, Allocating):
    """seed."""

    @operation(Role.ADMIN, "seed projects")
    def seed(self, port: int = OWN_PORT) -> list[str]:
        """Add the projects of a new installation and Portal's own port; what was once seeded is left as people made it.

        The history remembers what was seeded, so that a project or port that somebody renamed, deleted or released
        does not come back. A span that somebody took for another range is left to them.

        Args:
            port: where Portal serves; taken as its own if it lies in its project's range, else 3000.

        Returns:
            The names of the projects that were added.
        """
        once = set(Event.objects.filter(subject="project", verb="created").values_list("label", flat=True))
        added = [name for name in SEED if name not in once and self._seed_project(name)]
        if OWN_PROJECT in added:
            first, last = SEED[OWN_PROJECT]
            self.adopt(
                OWN_PROJECT,
                OWN_SERVICE,
                port=port if first <= port <= last else OWN_PORT,
                service_type="dashboard",
                description="Portal itself",
            )
        return added

    def _seed_project(self, name: str) -> bool:
        first, last = SEED[name]
        taken = PortRange.objects.filter(start_port__lte=last, end_port__gte=first).exists()
        if taken or Project.objects.filter(name=name).exists():
            return False
        self.add_project(name, size=last - first + 1, start=first, shared=name == SHARED)
        return True

    def own_port(self) -> int | None:
        """The port that the registry gives to Portal itself."""
        held = PortAllocation.objects.allocated().filter(
            project__name=OWN_PROJECT, service_name=OWN_SERVICE, instance=0, hostname="localhost"
        )
        return held.values_list("port_number", flat=True).first()
