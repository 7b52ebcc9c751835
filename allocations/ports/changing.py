"""Giving ports back, and changing what an allocation says."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any
from uuid import UUID

from allocations import errors, listeners, words
from allocations.access import Role
from allocations.models import Listener, PortAllocation, Status

from .base import operation
from .holding import Holding
from .wishes import checked_changes


class Changing(Holding):
    """release and its kin, approve_request, refuse_request, update, update_allocation."""

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
    def release_allocation(self, pk: UUID, *, expecting: Container[str] | None = None) -> PortAllocation:
        """Release one allocation by its id.

        Args:
            expecting: the versions in which the caller may have seen it; None: any.

        Raises:
            UnknownAllocation, AlreadyReleased, Stale, NotPermitted.
        """
        allocation = self._allocation(pk)
        self._refuse_stale(allocation, expecting)
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
    def update_allocation(self, pk: UUID, *, expecting: Container[str] | None = None, **changes: Any) -> PortAllocation:
        """Change what an allocation says.

        Args:
            pk: its id.
            expecting: the versions in which the caller may have seen it; None: any.
            **changes: any of new_name, service_type, description, cloudflare_hostname (None: none any more),
                metadata (replaced as a whole), expires_at (of a reservation).

        Raises:
            UnknownAllocation, AlreadyReleased, Stale, HostnameTaken, NameTaken, InvalidName, InvalidValue,
            NotPermitted.
        """
        allocation = self._allocation(pk)
        self._refuse_stale(allocation, expecting)
        return self._update(allocation, **changes)

    @operation(Role.OPERATOR, "approve requests")
    def approve_request(self, pk: UUID) -> PortAllocation:
        """Let a service have the port that an agent asked for.

        Raises:
            UnknownAllocation.
            NotPermitted: an agent asks: a person decides.
            Conflict: it is no request, or none any more.
        """
        request = self._request(pk)
        PortAllocation.objects.filter(pk=request.pk).update(status=Status.ALLOCATED)
        return self._allocation(pk)

    @operation(Role.OPERATOR, "refuse requests")
    def refuse_request(self, pk: UUID) -> PortAllocation:
        """Release the port that an agent asked for. Errors: as `approve_request`."""
        return self._release([self._request(pk)])[0]

    def _request(self, pk: UUID) -> PortAllocation:
        """A request on which the caller may decide, locked until that is done."""
        if self.is_agent:
            raise errors.NotPermitted("A person decides about requests, on the dashboard: an agent cannot.")
        found = self._allocation(pk)
        rows = PortAllocation.objects.pending().select_for_update(no_key=True, of=("self",))
        if not rows.filter(pk=pk).exists():
            raise errors.Conflict(f"{found.label} on {found.address} is {found.state}, not a request (any more).")
        return found

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
        checked = checked_changes(changes)
        self._refuse_released(allocation)
        if "expires_at" in checked and allocation.status != Status.RESERVED:
            raise errors.InvalidValue("Only a reservation expires: release the port instead.", field="expires_at")
        if "service_name" in checked and allocation.status == Status.RESERVED:
            raise errors.InvalidValue(
                f"A reservation has no service: allocate {allocation.port_number} for it.", field="service_name"
            )
        if checked.get("cloudflare_hostname"):
            self._refuse_taken_hostname(checked["cloudflare_hostname"], but=allocation)
        if checked:
            PortAllocation.objects.filter(pk=allocation.pk).update(**checked)
        return self._allocation(allocation.pk)
