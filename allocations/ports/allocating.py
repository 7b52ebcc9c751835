"""Giving out ports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

from allocations import errors, sql, words
from allocations.access import Role
from allocations.models import PortAllocation, PortRange, Project, Status

from .base import operation
from .holding import Holding
from .wishes import Wish, wish

MOST_AT_ONCE = 500


@contextmanager
def _indexed(index: int) -> Iterator[None]:
    """A refusal of one of many tells which."""
    try:
        yield
    except errors.PortError as refusal:
        refusal.details["index"] = index
        raise


class Allocating(Holding):
    """get_or_allocate, allocate, adopt, allocate_many, allocate_copies, reserve, reserve_block."""

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
            Conflict: an agent asked for it, and nobody has decided yet.
        """
        asked = wish(service, **wanted)
        words.project_name(project)
        self.caller.require(Role.OPERATOR, "allocate ports")
        held = self._instance_0(project, asked)
        return self._decided(held if held is not None else self._hold(project, asked, reuse=True))

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
        ranges = self._ranges_of_many(owner, wishes)
        # Two that each hold some ports and wait for the other's last one would be a deadlock: they take turns.
        sql.take_turns(ranges)
        given = []
        for index, asked in enumerate(wishes):
            with _indexed(index):
                given.append(self._decided(self._hold(project, asked, reuse=not new)))
        return given

    def _ranges_of_many(self, owner: Project, wishes: Sequence[Wish]) -> set[UUID]:
        found: dict[tuple[str | None, int | None], Sequence[PortRange]] = {}
        for index, asked in enumerate(wishes):
            place = asked.range_name, asked.port
            if place not in found:
                with _indexed(index):
                    found[place] = self._ranges_for(owner, *place)
        return {r.pk for ranges in found.values() for r in ranges}

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
        words.port(port)  # which a block would call its start port
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
