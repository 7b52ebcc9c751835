"""Lists, summaries and explanations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from allocations import errors, listeners, probes, words
from allocations.access import Role
from allocations.models import PortAllocation, PortRange, Status

from .base import Operations

HELD = {Status.ALLOCATED: "is held by", Status.RESERVED: "is reserved by", Status.PENDING: "is asked for by"}


@dataclass(frozen=True, slots=True)
class RangeSummary:
    """How full one range is."""

    range_name: str
    range_start: int
    range_end: int
    total_ports: int
    allocated_ports: int
    reserved_ports: int
    available_ports: int
    utilization_percent: int


@dataclass(frozen=True, slots=True)
class PortSummary:
    """How full a project's active ranges are. range_start and range_end are 0 where it has none."""

    project: str
    range_start: int
    range_end: int
    total_ports: int
    allocated_ports: int
    reserved_ports: int
    available_ports: int
    utilization_percent: int
    ranges: tuple[RangeSummary, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Whose a port is, what listens there, and the one safe next step."""

    port: int
    hostname: str
    protocol: str
    port_range: PortRange | None
    allocation: PortAllocation | None
    # None: nothing listens. `looked` tells whether this could be known from here.
    listener: listeners.Socket | None
    looked: bool
    answers: probes.Probe | None
    sentence: str
    next_step: str
    # Whether the project that asked holds it; None: no project was named.
    yours: bool | None = None


class Looking(Operations):
    """list, summary, explain."""

    def list(
        self,
        project: str | None = None,
        *,
        status: str | None = None,
        hostname: str | None = None,
        protocol: str | None = None,
        service: str | None = None,
        text: str = "",
    ) -> Any:
        """Allocations as a queryset: what is held, unless a status is named.

        Args:
            status: allocated, reserved, released, or all.
            text: what a person would search for: see `PortAllocationQuerySet.matching`.

        Raises:
            UnknownProject, InvalidValue, InvalidName, NotPermitted.
        """
        self.caller.require(Role.VIEWER, "look at ports")
        rows = PortAllocation.objects.visible_to(self.caller).select_related("project", "port_range")
        if project:
            rows = rows.filter(project=self._project(project))
        if status == "all":
            pass
        elif status:
            if status not in Status.values:
                raise errors.InvalidValue(
                    f"status {status} is unknown: use {words.either([*Status.values, 'all'])}.", field="status"
                )
            rows = rows.filter(status=status)
        else:
            rows = rows.held()
        if hostname:
            rows = rows.filter(hostname=words.host(hostname))
        if protocol:
            rows = rows.filter(protocol=words.protocol(protocol))
        if service:
            rows = rows.filter(service_name=words.service_name(service))
        return rows.matching(words.text(text, "search").strip())

    def summary(self, project: str) -> PortSummary:
        """How full the project's ranges are.

        Raises:
            UnknownProject, NotPermitted.
        """
        self.caller.require(Role.VIEWER, "look at ports")
        found = self._project(project)
        ranges = tuple(
            RangeSummary(
                range_name=r.range_name,
                range_start=r.start_port,
                range_end=r.end_port,
                total_ports=r.size,
                allocated_ports=r.usage.allocated,
                reserved_ports=r.usage.reserved,
                available_ports=r.usage.available,
                utilization_percent=r.usage.percent,
            )
            for r in PortRange.objects.active().filter(project=found).with_usage()
        )
        total = sum(r.total_ports for r in ranges)
        available = sum(r.available_ports for r in ranges)
        held = total - available
        return PortSummary(
            project=found.name,
            range_start=min((r.range_start for r in ranges), default=0),
            range_end=max((r.range_end for r in ranges), default=0),
            total_ports=total,
            allocated_ports=sum(r.allocated_ports for r in ranges),
            reserved_ports=sum(r.reserved_ports for r in ranges),
            available_ports=available,
            utilization_percent=(200 * held + total) // (2 * total) if total else 0,
            ranges=ranges,
        )

    def explain(
        self, port: int, *, hostname: str | None = None, protocol: str | None = None, project: str | None = None
    ) -> Explanation:
        """Whose a port is, what listens there, and what to do.

        Args:
            project: who asks, to be told whether the port is theirs from before.

        Raises:
            UnknownProject, PortOutOfRange, InvalidName, InvalidValue, NotPermitted.
        """
        self.caller.require(Role.VIEWER, "look at ports")
        number, host, proto = words.port(port), words.host(hostname), words.protocol(protocol)
        asker = self._project(project) if project else None
        around = PortRange.objects.holding(number).select_related("project").first()
        is_known = around is not None and PortRange.objects.visible_to(self.caller).filter(pk=around.pk).exists()
        held = PortAllocation.objects.held().at(number, host, proto).select_related("project", "port_range").first()
        socket, answers = None, None
        here = listeners.is_this_host(host)
        if here:
            socket = listeners.is_listening(number, proto)
        elif proto == words.TCP:
            answers = probes.connect([(host, number)])[host, number]
        listens = socket is not None or (answers is not None and answers.status == "up")
        visible = held is None or self.caller.projects is None or held.project_id in self.caller.projects
        if around is not None and not is_known and held is None:
            sentence = f"{number}/{proto} on {host} lies in a range of another project."
            step = "Ask Portal for a port of your own project."
        else:
            sentence, step = self._explained(number, host, proto, around, held, listens, socket)
        yours = None if asker is None else held is not None and held.project_id == asker.pk
        if yours and held is not None:
            what = held.service_name or "what it was reserved for"
            step = f"It is your own project's, for {what}: use it, and do not allocate another."
            if listens:
                step = f"It is your own project's: {what} runs already. Use it as it is, or ask for a further instance."
        return Explanation(
            port=number,
            hostname=host,
            protocol=proto,
            port_range=around if is_known else None,
            allocation=held if visible else None,
            listener=socket if around is None or is_known else None,
            looked=here or (answers is not None and answers.status != "unknown"),
            answers=answers,
            sentence=sentence,
            next_step=step,
            yours=yours,
        )

    def _explained(
        self,
        port: int,
        hostname: str,
        protocol: str,
        around: PortRange | None,
        held: PortAllocation | None,
        listens: bool,
        socket: listeners.Socket | None,
    ) -> tuple[str, str]:
        where = f"{port}/{protocol} on {hostname}"
        who = words.process_name(socket.process) if socket else "something"
        pid = f" (pid {socket.pid})" if socket and socket.pid else ""
        seen = f"{who}{pid} listens there" if listens else "nothing was seen listening there"
        if held is not None:
            owner = self._name_of_holder(held)
            until = f" until {held.expires_at:%Y-%m-%d %H:%M}" if held.expires_at else ""
            verb = HELD[Status(held.status)]
            if held.status == Status.PENDING:
                step = f"A person decides on it: {owner} may use it once they approve; others take another port."
                return f"{where} {verb} {owner}{until}; {seen}.", step
            step = (
                f"If you are {owner}, use it. Otherwise ask Portal for a port of your own: an address in use is no "
                "bug in your code, and nobody else's process is to be stopped."
            )
            return f"{where} {verb} {owner}{until}; {seen}.", step
        if around is None:
            step = (
                "Ask Portal for a port of your project instead."
                if listens
                else "Add a range for it, or ask for a port."
            )
            return f"{where} lies in no range; {seen}.", step
        whose = f"{around.range_name} ({around.start_port}-{around.end_port}) of {around.project.name}"
        if listens:
            return (
                f"{where} lies in {whose} and no service holds it, but {seen}.",
                f"If it is yours, adopt it: manage.py allocate {around.project.name} SERVICE --port {port} --adopt. "
                "Otherwise ask for another port; do not stop what you did not start.",
            )
        return (
            f"{where} lies in {whose} and is free; {seen}.",
            f"Take it: ask for port {port} for a service of {around.project.name}.",
        )
