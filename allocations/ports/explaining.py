"""Whose a port is, and what to do."""

from __future__ import annotations

from dataclasses import dataclass

from allocations import listeners, probes, words
from allocations.access import Role
from allocations.audit import HIDDEN, first_known, stranger
from allocations.models import PortAllocation, PortRange, Project, Status

from .base import Operations

HELD = {Status.ALLOCATED: "is held by", Status.RESERVED: "is reserved by", Status.PENDING: "is asked for by"}
CALM = "An address in use is no bug in your code, and nobody else's process is to be stopped."


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


class Explaining(Operations):
    """explain."""

    def explain(
        self, port: int, *, hostname: str | None = None, protocol: str | None = None, project: str | None = None
    ) -> Explanation:
        """Whose a port is, what listens there, and what to do.

        This host is looked at. Another one is asked where the caller knows of a service there, and not otherwise:
        Portal scans no network for anybody.

        Args:
            project: who asks, to be told whether the port is theirs from before.

        Raises:
            UnknownProject, PortOutOfRange, InvalidName, InvalidValue, NotPermitted.
        """
        self.caller.require(Role.VIEWER, "look at ports")
        number, host, proto = words.port(port), words.host(hostname), words.protocol(protocol)
        asker = self._project(project) if project else None
        around = PortRange.objects.holding(number).select_related("project").first()
        is_known = around is None or PortRange.objects.visible_to(self.caller).filter(pk=around.pk).exists()
        held = PortAllocation.objects.held().at(number, host, proto).select_related("project", "port_range").first()
        visible = held is None or self.caller.projects is None or held.project_id in self.caller.projects
        answers = None
        here = listeners.is_this_host(host)
        sockets = listeners.listening(number, number, proto) if here else []
        socket = first_known(sockets) if sockets else None
        if not here and proto == words.TCP and held is not None and visible:
            answers = probes.connect([(host, number)])[host, number]
        listens = socket is not None or (answers is not None and answers.status == "up")
        shown = socket if is_known and visible else None

        looked = here or (answers is not None and answers.status != "unknown")
        where, seen = f"{number}/{proto} on {host}", self._said_seen(shown, listens, looked)
        moved = self._moved_from(number, host, proto, around) if held is None else None
        if held is not None:
            stands = self._standing_there(held, sockets) if visible else ""
            sentence, step = self._of_holder(held, asker, listens, visible, stands)
            seen += f", and it is {stands}" if stands else ""
        elif moved is not None:
            sentence = f"is the old port of {moved.label}, which has {moved.port_number} now"
            step = (
                f"If you run {moved.label}, start it on {moved.port_number}. "
                "Otherwise ask Portal for a port of your own."
            )
        elif around is None:
            sentence = "lies in no range"
            step = (
                "Ask Portal for a port of your project instead."
                if listens
                else "Add a range for it, or ask for a port."
            )
        elif not is_known:
            sentence, step = "lies in a range of another project", "Ask Portal for a port of your own project."
        else:
            sentence, step = self._in_range(around, number, listens)
        return Explanation(
            port=number,
            hostname=host,
            protocol=proto,
            port_range=around if is_known else None,
            allocation=held if visible else None,
            listener=shown,
            looked=looked,
            answers=answers,
            sentence=f"{where} {sentence}; {seen}.",
            next_step=f"{step} {CALM}" if listens or (held is not None and held.status != Status.PENDING) else step,
            yours=None if asker is None else held is not None and held.project_id == asker.pk,
        )

    @staticmethod
    def _said_seen(socket: listeners.Socket | None, listens: bool, looked: bool) -> str:
        if not looked:
            return "whether anything listens there cannot be seen from here"
        if not listens:
            return "nothing was seen listening there"
        if socket is None:
            return "something listens there"
        pid = f" (pid {socket.pid})" if socket.pid else ""
        return f"{words.process_name(socket.process)}{pid} listens there"

    def _standing_there(self, held: PortAllocation, sockets: list[listeners.Socket]) -> str:
        """Who stands on a service's port in its place, as the caller may know it; empty: nobody that can be known."""
        if not sockets or held.status != Status.ALLOCATED:
            return ""
        other = stranger(held, sockets, listeners.environment)
        if other is None:
            return ""
        visible = self.visible_names()
        if not other.project:
            return "another process than its own"
        return other.reason if visible is None or other.project in visible else HIDDEN

    def _of_holder(
        self, held: PortAllocation, asker: Project | None, listens: bool, visible: bool, stands: str
    ) -> tuple[str, str]:
        status, until = Status(held.status), f" until {held.expires_at:%Y-%m-%d %H:%M}" if held.expires_at else ""
        if not visible:
            return f"{HELD[status]} another project", "Ask Portal for a port of your own project."
        who = held.label if held.service_name else held.project.name
        sentence = f"{HELD[status]} {who}{until}"
        if asker is not None and asker.pk == held.project_id:
            return sentence, self._of_own(held, listens, stands)
        if status == Status.PENDING:
            return sentence, f"A person decides on it: {who} may use it once they approve; others take another port."
        use = "use it" if status == Status.ALLOCATED else "allocate exactly this port to take it"
        if stands:
            use = f"wait until {stands} has been moved, which only its owner may do"
        return (
            sentence,
            f"If you are {who}, {use}. Otherwise ask Portal for a port of your own, or its owner for this one.",
        )

    @staticmethod
    def _of_own(held: PortAllocation, listens: bool, stands: str) -> str:
        if held.status == Status.PENDING:
            return "Your own project asked for it: wait until a person approves it, then ask again."
        if held.status == Status.RESERVED:
            return "It is reserved for your own project: allocate exactly this port to take it."
        if stands:
            return (
                f"It is your own project's, for {held.service_name}, but {stands} stands on it: stop nothing. Ask its "
                "owner to move, or allocate a further instance for now."
            )
        if listens:
            return (
                f"It is your own project's: {held.service_name} runs already. Use it as it is, or ask for a further "
                "instance."
            )
        return f"It is your own project's, for {held.service_name}: use it, and do not allocate another."

    def _moved_from(self, port: int, host: str, protocol: str, around: PortRange | None) -> PortAllocation | None:
        """Whose port it was before an import gave the service another one; of others' ranges metadata says nothing."""
        imported = PortAllocation.objects.visible_to(self.caller).held().filter(metadata__importedFrom=port)
        if around is not None:
            imported = imported.filter(project=around.project_id)
        return imported.filter(hostname=host, protocol=protocol).select_related("project").first()

    @staticmethod
    def _in_range(around: PortRange, port: int, listens: bool) -> tuple[str, str]:
        whose = f"{around.range_name} ({around.start_port}-{around.end_port}) of {around.project.name}"
        if listens:
            return (
                f"lies in {whose} and no service holds it",
                f"If it is yours, adopt it: manage.py allocate {around.project.name} SERVICE --port {port} --adopt. "
                "Otherwise ask for another port.",
            )
        return (
            f"lies in {whose} and is free",
            f"Take it: ask for port {port} for a service of {around.project.name}.",
        )
