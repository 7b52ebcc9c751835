"""Giving out ports and taking them back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction

from allocations import errors, listeners, sql, words
from allocations.access import Role
from allocations.models import Listener, PortAllocation, PortRange, Project, Status

from .base import Operations, operation

MOST_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Wish:
    """What one service asks for. Made by `wish()`, which checks every value."""

    service: str | None
    service_type: str = ""
    description: str = ""
    cloudflare_hostname: str | None = None
    hostname: str = words.LOCALHOST
    protocol: str = words.TCP
    port: int | None = None
    range_name: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    expires_at: datetime | None = None
    status: str = Status.ALLOCATED


def wish(
    service: str | None,
    *,
    service_type: str = "",
    description: str = "",
    cloudflare_hostname: str | None = None,
    hostname: str | None = None,
    protocol: str | None = None,
    port: int | None = None,
    range_name: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Wish:
    """What a service asks for, every value checked by the rules of words.py."""
    return Wish(
        service=words.service_name(service),
        service_type=words.service_type(service_type),
        description=words.text(description, "description"),
        cloudflare_hostname=words.cloudflare_hostname(cloudflare_hostname),
        hostname=words.host(hostname),
        protocol=words.protocol(protocol),
        port=None if port is None else words.port(port),
        range_name=range_name or None,
        metadata=words.metadata(metadata),
    )


class ListenerInTheWay(Exception):
    """The port that was chosen is listened on by something unregistered: remember it and choose again."""

    def __init__(self, socket: listeners.Socket) -> None:
        super().__init__(socket)
        self.socket = socket


class Allocating(Operations):
    """get_or_allocate, allocate, allocate_many, adopt, reserve, release, update."""

    def get_or_allocate(self, project: str, service: str, **wanted: Any) -> PortAllocation:
        """The service's port (its instance 0 on that host and protocol), allocated if it has none.

        Safe to repeat, under any concurrency: every caller gets the same row. What an existing allocation says is
        not changed by what is wished for here. `.created` of the result tells whether it is new.

        Args:
            project: the project's name.
            service: the service's name.
            **wanted: see `wish()`: service_type, description, cloudflare_hostname, hostname, protocol, port,
                range_name, metadata.

        Raises:
            UnknownProject, InvalidName, InvalidValue, PortOutOfRange, UnknownRange, RangeExhausted, PortTaken,
            HostnameTaken, AlreadyAllocated (another port was named), NotPermitted, Unavailable.
        """
        asked = wish(service, **wanted)
        words.project_name(project)
        self.caller.require(Role.OPERATOR, "allocate ports")
        held = self._instance_0(project, asked)
        return held if held is not None else self._hold(project, asked, reuse=True)

    def allocate(self, project: str, service: str, **wanted: Any) -> PortAllocation:
        """A new port for the service, whatever it holds already.

        Args and errors: as `get_or_allocate`.
        """
        return self._hold(project, wish(service, **wanted), reuse=False)

    def adopt(self, project: str, service: str, *, port: int, **wanted: Any) -> PortAllocation:
        """Register a port on which the service already listens: as `allocate`, but a listener is no obstacle."""
        return self._hold(project, wish(service, port=port, **wanted), reuse=False, adopting=True)

    @operation(Role.OPERATOR, "allocate ports")
    def allocate_many(self, project: str, services: Sequence[str | Wish], *, new: bool = True) -> list[PortAllocation]:
        """A port for each service, all or none, in the order given.

        Args:
            project: the project's name.
            services: names, or wishes made by `wish()`; at most 500.
            new: False for get-or-allocate of each.
        """
        if len(services) > MOST_AT_ONCE:
            raise errors.InvalidValue(f"{len(services)} services at once are too many: at most {MOST_AT_ONCE}.")
        wishes = [wish(s) if isinstance(s, str) else s for s in services]
        owner = self._project(project)
        places = {(asked.range_name, asked.port) for asked in wishes}
        # Two that each hold some ports and wait for the other's last one would be a deadlock: they take turns.
        sql.take_turns({r.pk for place in places for r in self._ranges_for(owner, *place)})
        return [self._hold(project, asked, reuse=not new) for asked in wishes]

    def allocate_copies(self, project: str, service: str, count: int, **wanted: Any) -> list[PortAllocation]:
        """That many new ports for one service, all or none; see `wish()` for what may be wanted."""
        return self.allocate_many(project, [wish(service, **wanted)] * count)

    def reserve(
        self,
        project: str,
        port: int,
        *,
        note: str = "",
        expires_at: datetime | None = None,
        hostname: str | None = None,
        protocol: str | None = None,
    ) -> PortAllocation:
        """Hold a port for later: it is never handed out by itself, and free again once it expires.

        Args:
            expires_at: when it ends; None is never.
        """
        return self.reserve_block(
            project, port, port, note=note, expires_at=expires_at, hostname=hostname, protocol=protocol
        )[0]

    @operation(Role.OPERATOR, "reserve ports")
    def reserve_block(
        self,
        project: str,
        first: int,
        last: int,
        *,
        note: str = "",
        expires_at: datetime | None = None,
        hostname: str | None = None,
        protocol: str | None = None,
    ) -> list[PortAllocation]:
        """Reserve the ports from first to last, all or none."""
        first, last = words.span(first, last)
        asked = Wish(
            service=None,
            description=words.text(note, "note"),
            hostname=words.host(hostname),
            protocol=words.protocol(protocol),
            expires_at=words.expiry(expires_at),
            status=Status.RESERVED,
        )
        owner = self._project(project)
        return [
            self._take(owner, [self._range_around(owner, port)], asked, port, reuse=False)
            for port in range(first, last + 1)
        ]

    @operation(Role.OPERATOR, "release ports")
    def release(
        self,
        project: str,
        service: str,
        *,
        instance: int | None = None,
        hostname: str | None = None,
        protocol: str | None = None,
        every: bool = False,
    ) -> list[PortAllocation]:
        """Release what a service holds, and return it.

        Args:
            instance, hostname, protocol: which, where it holds several.
            every: all that fit.

        Raises:
            UnknownProject, UnknownService, NotPermitted.
            Ambiguous: it holds several and neither is one named nor `every` given.
        """
        found = self._of_service(self._project(project), service, instance, hostname, protocol)
        return self._release(found if every else [self._only(found)])

    @operation(Role.OPERATOR, "release ports")
    def release_reservation(
        self,
        project: str,
        first: int,
        last: int | None = None,
        *,
        hostname: str | None = None,
        protocol: str | None = None,
    ) -> list[PortAllocation]:
        """Release the project's reservations from first to last."""
        first, last = words.span(first, first if last is None else last)
        owner = self._project(project)
        found = list(
            PortAllocation.objects.exclude(status=Status.RELEASED)
            .filter(
                project=owner,
                status=Status.RESERVED,
                port_number__range=(first, last),
                hostname=words.host(hostname),
                protocol=words.protocol(protocol),
            )
            .select_related("project", "port_range")
        )
        if not found:
            raise errors.UnknownAllocation(f"{project} has no reservation on {first}-{last}.", field="port")
        return self._release(found)

    @operation(Role.OPERATOR, "release ports")
    def release_allocation(self, pk: UUID) -> PortAllocation:
        """Release one allocation by its id.

        Raises:
            UnknownAllocation, AlreadyReleased, NotPermitted.
        """
        allocation = self._allocation(pk)
        self._refuse_released(allocation)
        return self._release([allocation])[0]

    @operation(Role.OPERATOR, "change allocations")
    def update(
        self,
        project: str,
        service: str,
        *,
        instance: int | None = None,
        hostname: str | None = None,
        protocol: str | None = None,
        **changes: Any,
    ) -> PortAllocation:
        """Change what an allocation says: see `update_allocation` for the changes.

        Raises:
            UnknownProject, UnknownService, Ambiguous, and those of `update_allocation`.
        """
        found = self._only(self._of_service(self._project(project), service, instance, hostname, protocol))
        return self._update(found, **changes)

    @operation(Role.OPERATOR, "change allocations")
    def update_allocation(self, pk: UUID, **changes: Any) -> PortAllocation:
        """Change what an allocation says.

        Args:
            pk: its id.
            **changes: any of new_name, service_type, description, cloudflare_hostname (None: none any more),
                metadata (replaced as a whole), expires_at (of a reservation).

        Raises:
            UnknownAllocation, AlreadyReleased, HostnameTaken, NameTaken, InvalidName, InvalidValue, NotPermitted.
        """
        return self._update(self._allocation(pk), **changes)

    # How it is done

    def _instance_0(self, project: str, asked: Wish) -> PortAllocation | None:
        """The service's existing port: the hot path of get_or_allocate, one query."""
        held = (
            PortAllocation.objects.visible_to(self.caller)
            .allocated()
            .filter(
                project__name=project,
                service_name=asked.service,
                hostname=asked.hostname,
                protocol=asked.protocol,
                instance=0,
            )
            .select_related("project", "port_range")
            .first()
        )
        if held is not None:
            self._refuse_other_port(held, asked)
        return held

    def _hold(self, project: str, asked: Wish, *, reuse: bool, adopting: bool = False) -> PortAllocation:
        """One port, past every unregistered listener on this host."""
        while True:
            try:
                return self._hold_once(project, asked, reuse=reuse, adopting=adopting)
            except ListenerInTheWay as found:
                self._remember(found.socket)
                if asked.port is not None:
                    who = found.socket.process or "An unknown process"
                    raise errors.PortTaken(
                        f"{who} listens on {found.socket.port}/{asked.protocol} and is not registered. If it is this "
                        "service, adopt it; otherwise take another port.",
                        field="port",
                        port=asked.port,
                        process=found.socket.process,
                    ) from None

    @operation(Role.OPERATOR, "allocate ports")
    def _hold_once(self, project: str, asked: Wish, *, reuse: bool, adopting: bool) -> PortAllocation:
        owner = self._project(project)
        ranges = self._ranges_for(owner, asked.range_name, asked.port)
        allocation = self._take(owner, ranges, asked, asked.port, reuse=reuse)
        if allocation.created and not adopting and listeners.is_this_host(allocation.hostname):
            socket = listeners.is_listening(allocation.port_number, allocation.protocol)
            if socket is not None:
                raise ListenerInTheWay(socket)
        return allocation

    def _take(
        self, owner: Project, ranges: Sequence[PortRange], asked: Wish, port: int | None, *, reuse: bool
    ) -> PortAllocation:
        """One port of these ranges in the registry, or the refusal that says why not."""
        if port is not None:
            self._make_way_for_own(owner, asked, port)
        if asked.cloudflare_hostname:
            self._refuse_taken_hostname(asked.cloudflare_hostname)
        taken = sql.hold_port(
            project=owner.pk,
            ranges=[r.pk for r in ranges],
            service=asked.service,
            service_type=asked.service_type,
            hostname=asked.hostname,
            protocol=asked.protocol,
            wanted=port,
            status=asked.status,
            description=asked.description,
            cloudflare_hostname=asked.cloudflare_hostname,
            metadata=asked.metadata,
            expires_at=asked.expires_at,
            reuse=reuse,
        )
        if taken is None:
            raise self._refusal_of(owner, ranges, asked, port)
        taken.project = owner
        taken.port_range = next((r for r in ranges if r.pk == taken.port_range_id), taken.port_range)
        if not taken.created:
            self._refuse_other_port(taken, asked)
        return taken

    def _make_way_for_own(self, owner: Project, asked: Wish, port: int) -> None:
        """A project that names a port it has reserved takes it: the reservation is released for the allocation."""
        if asked.status == Status.RESERVED:
            return
        own = PortAllocation.objects.at(port, asked.hostname, asked.protocol).filter(
            project=owner, status=Status.RESERVED
        )
        own.update(status=Status.RELEASED)

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
            free = sql.find_available_port(ranges[0].pk, asked.hostname, asked.protocol)
            hint = f"{free} is free: take it, or ask without a port." if free else "Ask without a port."
            return errors.PortTaken(
                f"{port}/{asked.protocol} on {asked.hostname} is held by {who}. {hint}",
                field="port",
                port=port,
                holder=who,
                free=free,
            )
        spans = ", ".join(f"{r.range_name} {r.start_port}-{r.end_port}" for r in ranges)
        size = sum(r.size for r in ranges)
        return errors.RangeExhausted(
            f"{owner.name} has no free port left on {asked.hostname}/{asked.protocol}: all {size} of {spans} are held "
            "or listened on. Release a service that is gone, extend the range, or name a shared range.",
            project=owner.name,
            size=size,
            ranges=[r.range_name for r in ranges],
        )

    def _release(self, found: Sequence[PortAllocation]) -> list[PortAllocation]:
        PortAllocation.objects.filter(pk__in=[a.pk for a in found]).exclude(status=Status.RELEASED).update(
            status=Status.RELEASED
        )
        for allocation in found:
            self._forget_gone(allocation)
        released = PortAllocation.objects.select_related("project", "port_range").in_bulk([a.pk for a in found])
        return [released[a.pk] for a in found]

    def _forget_gone(self, allocation: PortAllocation) -> None:
        """What was seen on a port of this host and has stopped since must not keep the port from the next service."""
        port, protocol = allocation.port_number, allocation.protocol
        if listeners.is_this_host(allocation.hostname) and listeners.is_listening(port, protocol) is None:
            Listener.objects.filter(hostname=allocation.hostname, protocol=protocol, port=port).delete()

    def _update(self, allocation: PortAllocation, **changes: Any) -> PortAllocation:
        checked = _checked_changes(changes)
        self._refuse_released(allocation)
        if checked.get("cloudflare_hostname"):
            self._refuse_taken_hostname(checked["cloudflare_hostname"], but=allocation)
        if checked:
            PortAllocation.objects.filter(pk=allocation.pk).update(**checked)
        return self._allocation(allocation.pk)

    def _refuse_taken_hostname(self, name: str, but: PortAllocation | None = None) -> None:
        """The constraint has the last word; this look before the leap can name the holder."""
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

    def _refuse_released(self, allocation: PortAllocation) -> None:
        if not allocation.is_held:
            raise errors.AlreadyReleased(
                f"{allocation.label} released {allocation.address} on {allocation.released_at:%Y-%m-%d %H:%M}: "
                "a released allocation never changes. Allocate a new one.",
            )

    def _remember(self, socket: listeners.Socket) -> None:
        """Keep an unregistered listener that stood in the way, so that the allocator passes it by."""
        with transaction.atomic():
            Listener.objects.bulk_create(
                [
                    Listener(
                        hostname=words.LOCALHOST,
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


CHECKED_BY = {
    "new_name": ("service_name", words.service_name),
    "service_type": ("service_type", words.service_type),
    "description": ("description", lambda value: words.text(value, "description")),
    "cloudflare_hostname": ("cloudflare_hostname", words.cloudflare_hostname),
    "metadata": ("metadata", words.metadata),
    "expires_at": ("expires_at", words.expiry),
}


def _checked_changes(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The columns to change, each value checked.

    Raises:
        InvalidValue: a change that does not exist, by name.
    """
    checked = {}
    for name, value in changes.items():
        if name not in CHECKED_BY:
            raise errors.InvalidValue(f"{name} cannot be changed: change {words.either(list(CHECKED_BY))}.", field=name)
        column, check = CHECKED_BY[name]
        checked[column] = check(value)
    return checked
