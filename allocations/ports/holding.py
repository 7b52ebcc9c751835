"""How a port comes to be held: the one way that every allocation and reservation goes."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import nsmallest

from django.db import transaction

from allocations import errors, listeners, sql, words
from allocations.access import Role
from allocations.models import Listener, Mode, PortAllocation, PortRange, Project, Status

from .base import Operations, operation
from .wishes import Wish

MOST_NEAR = 3


class ListenerInTheWay(Exception):
    """The port that was chosen is listened on by something unregistered: remember it and choose again."""

    def __init__(self, hostname: str, socket: listeners.Socket) -> None:
        super().__init__(hostname, socket)
        self.hostname = hostname
        self.socket = socket


class Holding(Operations):
    """From a wish to a row, or to the refusal that says why not."""

    def _instance_0(self, project: str, asked: Wish) -> PortAllocation | None:
        """The service's existing port: the hot path of get_or_allocate, one query."""
        held = sql.held_by(project, self.caller.projects, asked=asked)
        if held is not None:
            self._refuse_other_port(held, asked)
        return held

    def _hold(self, project: str, asked: Wish, *, reuse: bool, adopting: bool = False) -> PortAllocation:
        """One port, past every unregistered listener on this host."""
        words.project_name(project)
        passed: set[int] = set()
        while True:
            try:
                return self._hold_once(project, asked, reuse=reuse, adopting=adopting)
            except ListenerInTheWay as found:
                port = found.socket.port
                self._remember(found)
                if asked.port is not None:
                    raise self._refusal_of_listener(project, asked, found) from None
                if port in passed:  # forgotten meanwhile: whoever looks there sees it come and go
                    raise errors.Unavailable(
                        f"Something begins and ends to listen on {port} all the time: try again in a moment.",
                        retry_after=2,
                    ) from None
                passed.add(port)

    def _refusal_of_listener(self, project: str, asked: Wish, found: ListenerInTheWay) -> errors.PortError:
        who, port = words.process_name(found.socket.process), found.socket.port
        around = self._range_around(self._project(project), port)
        free = self._free_near([around], asked, port)
        return errors.PortTaken(
            f"{who} listens on {port}/{asked.protocol} and is not registered. If it is this very service, adopt it in "
            f"the dashboard or the shell. Otherwise: {self._said_free(free)}",
            field="port",
            port=port,
            process=found.socket.process,
            free=free[0] if free else None,
        )

    @operation(Role.OPERATOR, "allocate ports")
    def _hold_once(self, project: str, asked: Wish, *, reuse: bool, adopting: bool) -> PortAllocation:
        allocation = None
        if asked.port is None and asked.range_name is None and asked.cloudflare_hostname is None:
            allocation = sql.hold_in_own_ranges(project, self.caller.projects, asked=asked, reuse=reuse)
        if allocation is None:  # a special wish, or one that will be refused: the long way knows why
            owner = self._project(project)
            ranges = self._ranges_for(owner, asked.range_name, asked.port)
            allocation = self._take(owner, ranges, asked, asked.port, reuse=reuse)
        if allocation.created and not adopting and listeners.is_this_host(allocation.hostname):
            socket = listeners.is_listening(allocation.port_number, allocation.protocol)
            if socket is not None:
                raise ListenerInTheWay(allocation.hostname, socket)
        return allocation

    def _take(
        self, owner: Project, ranges: Sequence[PortRange], asked: Wish, port: int | None, *, reuse: bool
    ) -> PortAllocation:
        """One port of these ranges in the registry, or the refusal that says why not."""
        if port is not None:
            self._make_way_for_own(owner, asked, port)
        if asked.cloudflare_hostname:
            self._refuse_taken_hostname(asked.cloudflare_hostname)
        taken = sql.hold_port(owner.pk, [r.pk for r in ranges], asked=asked, wanted=port, reuse=reuse)
        if taken is None:
            raise self._refusal_of(owner, ranges, asked, port)
        taken.project = owner
        taken.port_range = next((r for r in ranges if r.pk == taken.port_range_id), taken.port_range)
        if not taken.created:
            self._refuse_other_port(taken, asked)
        return taken

    def _make_way_for_own(self, owner: Project, asked: Wish, port: int) -> None:
        """A project that names a port it has reserved takes it: the reservation is released for the allocation.

        Where a person decides about the ports of agents, an agent's request does not: it takes what its own token
        has reserved.
        """
        if asked.status == Status.RESERVED:
            return
        own = PortAllocation.objects.at(port, asked.hostname, asked.protocol).filter(
            project=owner, status=Status.RESERVED
        )
        if self.is_agent and owner.mode == Mode.ASK:
            own = own.filter(token_id=self.caller.token, token_id__isnull=False)
        own.update(status=Status.RELEASED)

    def _decided(self, held: PortAllocation) -> PortAllocation:
        """What a person gets to use: no port on which nobody has decided yet. An agent is told so by its status."""
        if held.status == Status.PENDING and not self.is_agent:
            raise errors.Conflict(
                f"An agent asked for {held.address} for {held.label}, and nobody has decided yet: approve or refuse "
                "it on the dashboard.",
                port=held.port_number,
            )
        return held

    def _refuse_other_port(self, held: PortAllocation, asked: Wish) -> None:
        if asked.port is not None and asked.port != held.port_number:
            raise errors.AlreadyAllocated(
                f"{held.label} holds {held.address} already. Keep it, release it first, or ask for a new instance on "
                f"{asked.port}.",
                field="port",
                port=held.port_number,
            )

    def _refusal_of(
        self, owner: Project, ranges: Sequence[PortRange], asked: Wish, port: int | None
    ) -> errors.PortError:
        """Why no port came back: it is held, or the ranges are full."""
        if port is not None:
            holder = (
                PortAllocation.objects.held().at(port, asked.hostname, asked.protocol).select_related("project").first()
            )
            who = self._name_of_holder(holder) if holder else "another service"
            free = self._free_near(ranges, asked, port)
            return errors.PortTaken(
                f"{port}/{asked.protocol} on {asked.hostname} is held by {who}. {self._said_free(free)}",
                field="port",
                port=port,
                holder=who,
                free=free[0] if free else None,
            )
        spans = ", ".join(f"{r.range_name} {r.start_port}-{r.end_port}" for r in ranges)
        size = sum(r.size for r in ranges)
        return errors.RangeExhausted(
            f"{owner.name} has no free port left on {asked.hostname}/{asked.protocol}: all {size} of {spans} are held "
            "or listened on. Release a service that is gone, name a shared range, or have an admin extend the range.",
            project=owner.name,
            size=size,
            ranges=[r.range_name for r in ranges],
        )

    def _free_near(self, ranges: Sequence[PortRange], asked: Wish, port: int) -> list[int]:
        """The free ports that lie nearest to one that is taken, in its range."""
        around = next((r for r in ranges if r.start_port <= port <= r.end_port), ranges[0])
        held = PortAllocation.objects.held().filter(port_range=around, **asked.place)
        seen = Listener.objects.filter(port__range=(around.start_port, around.end_port), **asked.place)
        taken = {*held.values_list("port_number", flat=True), *seen.values_list("port", flat=True), port}
        free = (p for p in range(around.start_port, around.end_port + 1) if p not in taken)
        return sorted(nsmallest(MOST_NEAR, free, key=lambda p: abs(p - port)))

    @staticmethod
    def _said_free(free: list[int]) -> str:
        if not free:
            return "Its range is full: ask without a port."
        are = "is" if len(free) == 1 else "are"
        return f"{words.listed([str(p) for p in free])} {are} free near it: take one, or ask without a port."

    def _refuse_taken_hostname(self, name: str, but: PortAllocation | None = None) -> None:
        """The constraint has the last word; this look before the leap can name the holder."""
        self._let_go(PortAllocation.objects.filter(cloudflare_hostname=name))
        other = (
            PortAllocation.objects.exclude(status=Status.RELEASED)
            .filter(cloudflare_hostname=name)
            .but(but)
            .select_related("project")
            .first()
        )
        if other is not None:
            raise errors.HostnameTaken(
                f"{name} points at {self._name_of_holder(other)} already: remove it there first, or choose another.",
                field="cloudflare_hostname",
                holder=self._name_of_holder(other),
            )

    def _remember(self, found: ListenerInTheWay) -> None:
        """Keep an unregistered listener that stood in the way, so that the allocator passes it by."""
        socket = found.socket
        with transaction.atomic():
            Listener.objects.bulk_create(
                [
                    Listener(
                        hostname=found.hostname,
                        protocol=socket.protocol,
                        address=socket.address,
                        port=socket.port,
                        process=socket.process,
                        pid=socket.pid,
                        container=socket.container,
                    )
                ],
                update_conflicts=True,
                unique_fields=["hostname", "protocol", "port", "address"],
                update_fields=["process", "pid", "container", "last_seen_at"],
            )
