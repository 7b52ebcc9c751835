"""Explain whose a port is, and what to do next."""

from __future__ import annotations

from dataclasses import dataclass, replace

from allocations import listeners, probes, validators
from allocations.audit import HIDDEN, find_foreign_process, first_identified
from allocations.auth.roles import Role
from allocations.models import PortAllocation, PortRange, Project, Status
from allocations.text import in_directory, process_name

from . import hosts
from .operations import Context
from .queries import get_project, visible_project_names

HELD = {Status.ALLOCATED: "is held by", Status.RESERVED: "is reserved by", Status.PENDING: "is requested by"}
NOT_A_BUG = "An address in use is not a bug in your code. Do not stop a process that is not yours."


@dataclass(frozen=True, slots=True)
class Explanation:
    """Whose a port is, what listens on it, and the one safe next step.

    Args:
        listener: None if nothing listens, or if it cannot be known.
        is_observed: whether Portal can see from here if something listens.
        probe: what another host answered.
        is_yours: whether the project that asked holds the port; None if it named none.
    """

    port_number: int
    hostname: str
    protocol: str
    port_range: PortRange | None
    allocation: PortAllocation | None
    listener: listeners.Socket | None
    is_observed: bool
    probe: probes.Probe | None
    sentence: str
    next_step: str
    is_yours: bool | None = None


def explain(
    context: Context,
    port_number: int,
    *,
    hostname: str | None = None,
    protocol: str | None = None,
    project: str | None = None,
) -> Explanation:
    """Explain whose a port is, what listens on it, and what to do.

    This host is always inspected. Another host is probed only if it is approved and the caller may see a service there:
    Portal does not scan networks for anybody.

    Args:
        project: the project of the caller, to learn whether the port is already theirs.

    Raises:
        UnknownProject, PortOutOfRange, InvalidName, InvalidValue, NotPermitted.
    """
    context.caller.require(Role.VIEWER, "look at ports")
    port = validators.port_number(port_number)
    host, protocol = validators.hostname(hostname), validators.protocol(protocol)
    asker = get_project(context, project) if project else None
    port_range = PortRange.objects.containing(port).select_related("project").first()
    if port_range is None:
        sees_range = context.caller.projects is None  # a process outside all ranges may belong to anybody
    else:
        sees_range = PortRange.objects.visible_to(context.caller).filter(pk=port_range.pk).exists()
    rows = PortAllocation.objects.held().at(port, host, protocol)
    allocation = rows.select_related("project", "port_range").first()
    sees_allocation = allocation is None or context.caller.sees_project(allocation.project_id)

    probe = None
    is_here = listeners.is_this_host(host)
    sockets = listeners.listening(port, port, protocol) if is_here else []
    socket = first_identified(sockets) if sockets else None
    if not is_here and protocol == validators.TCP and allocation is not None and sees_allocation:
        probe = hosts.probe([(host, port)])[host, port]
    is_listening = socket is not None or (probe is not None and probe.status == "up")
    is_observed = is_here or (probe is not None and probe.status != "unknown")
    visible_socket = socket if sees_range and sees_allocation else None

    owner = ""
    if visible_socket is not None and not context.caller.sees_everything:  # a directory may name another project
        visible_socket = replace(visible_socket, cwd="")
    observed = _observed(visible_socket, is_listening, is_observed, is_approved=probe is not hosts.NOT_APPROVED)
    moved = _moved_from(context, port, host, protocol, port_range) if allocation is None else None
    if allocation is not None:
        foreign = _foreign_process(context, allocation, sockets) if sees_allocation else ""
        sentence, step = _about_holder(allocation, asker, is_listening, sees_allocation, foreign)
        observed += f", and it is {foreign}" if foreign else ""
        owner = f" Owner: {allocation.owner}." if allocation.owner and sees_allocation else ""
    elif moved is not None:
        sentence = f"is the old port of {moved.label}, which now has {moved.port_number}"
        step = (
            f"If you run {moved.label}, start it on {moved.port_number}. Otherwise ask Portal for a port of your own."
        )
    elif port_range is None:
        sentence = "lies in no range"
        step = (
            "Ask Portal for a port of your project instead."
            if is_listening
            else "Add a range for it, or ask for a port."
        )
    elif not sees_range:
        sentence, step = "lies in a range of another project", "Ask Portal for a port of your own project."
    else:
        other = _use_of_other_protocol(context, port, host, protocol)
        sentence, step = _about_range(port_range, port, protocol, is_listening, is_other_used=bool(other))
        observed += other
    is_held = allocation is not None and allocation.status != Status.PENDING
    return Explanation(
        port_number=port,
        hostname=host,
        protocol=protocol,
        port_range=port_range if sees_range else None,
        allocation=allocation if sees_allocation else None,
        listener=visible_socket,
        is_observed=is_observed,
        probe=probe,
        sentence=f"{port}/{protocol} on {host} {sentence}; {observed}.{owner}",
        next_step=f"{step} {NOT_A_BUG}" if is_listening or is_held else step,
        is_yours=None if asker is None else allocation is not None and allocation.project_id == asker.pk,
    )


def _observed(socket: listeners.Socket | None, is_listening: bool, is_observed: bool, *, is_approved: bool) -> str:
    if not is_approved:
        return "whether anything listens on it is unknown, because no admin has approved the host"
    if not is_observed:
        return "whether anything listens on it cannot be seen from here"
    if not is_listening:
        return "nothing listens on it"
    if socket is None:
        return "something listens on it"
    if socket.pid is None and (reason := listeners.why_processes_are_unknown()):
        return f"a process that is unknown, because {reason}, listens on it"
    pid = f" (pid {socket.pid})" if socket.pid else ""
    return f"{process_name(socket.process)}{pid}{in_directory(socket.cwd)} listens on it"


def _foreign_process(context: Context, allocation: PortAllocation, sockets: list[listeners.Socket]) -> str:
    """Return what uses a service's port in its place, as far as the caller may know it, or an empty string."""
    if not sockets or allocation.status != Status.ALLOCATED:
        return ""
    process = find_foreign_process(allocation, sockets, listeners.environment)
    if process is None:
        return ""
    if not process.project:
        return "not the service's own process"
    visible = visible_project_names(context)
    return process.reason if visible is None or process.project in visible else HIDDEN


def _about_holder(
    allocation: PortAllocation, asker: Project | None, is_listening: bool, is_visible: bool, foreign: str
) -> tuple[str, str]:
    """Return the sentence and the next step for a port that is held."""
    status = Status(allocation.status)
    if not is_visible:
        return f"{HELD[status]} another project", "Ask Portal for a port of your own project."
    until = f" until {allocation.expires_at:%Y-%m-%d %H:%M}" if allocation.expires_at else ""
    holder = allocation.label if allocation.service_name else allocation.project.name
    sentence = f"{HELD[status]} {holder}{until}"
    if asker is not None and asker.pk == allocation.project_id:
        return sentence, _own_next_step(allocation, is_listening, foreign)
    if status == Status.PENDING:
        return sentence, f"A person decides about it: {holder} may use it once approved. Others take another port."
    use = "use it" if status == Status.ALLOCATED else "allocate exactly this port to take it"
    if foreign:
        use = f"wait until {foreign} has been moved, which is not up to you"
    return (
        sentence,
        f"If you are {holder}, {use}. Otherwise ask Portal for a port of your own, or ask its owner for this one.",
    )


def _own_next_step(allocation: PortAllocation, is_listening: bool, foreign: str) -> str:
    if allocation.status == Status.PENDING:
        return "Your own project requested it: wait until a person approves it, then ask again."
    if allocation.status == Status.RESERVED:
        return "It is reserved for your own project: allocate exactly this port to take it."
    if foreign:
        return (
            f"It belongs to your own project, for {allocation.service_name}, but {foreign} listens on it. Do not stop "
            "anything: ask whoever runs it to move it, or allocate a further instance for now."
        )
    if is_listening:
        return (
            f"It belongs to your own project: {allocation.service_name} is already running. Use it as it is, or ask "
            "for a further instance."
        )
    return f"It belongs to your own project, for {allocation.service_name}: use it, and do not allocate another."


def _moved_from(
    context: Context, port: int, host: str, protocol: str, port_range: PortRange | None
) -> PortAllocation | None:
    """Return the service that had this port before an import gave it another one.

    If the port lies in a range of another project, the metadata of a service proves nothing.
    """
    imported = PortAllocation.objects.visible_to(context.caller).held().filter(metadata__importedFrom=port)
    if port_range is not None:
        imported = imported.filter(project=port_range.project_id)
    return imported.filter(hostname=host, protocol=protocol).select_related("project").first()


def _use_of_other_protocol(context: Context, port: int, host: str, protocol: str) -> str:
    """Return how the same number is used with the other protocol, to continue a sentence; empty if it is not used."""
    (other,) = set(validators.PROTOCOLS) - {protocol}
    holder = PortAllocation.objects.held().at(port, host, other).select_related("project").first()
    if holder is not None:
        sees_holder = context.caller.sees_project(holder.project_id)
        return f"; {port}/{other} is held by {holder.label if sees_holder else 'another project'}"
    if listeners.is_this_host(host) and listeners.is_listening(port, other) is not None:
        return f"; something listens on {port}/{other}"
    return ""


def _about_range(
    port_range: PortRange, port: int, protocol: str, is_listening: bool, *, is_other_used: bool
) -> tuple[str, str]:
    """Return the sentence and the next step for a port of a range that nothing holds."""
    project = port_range.project.name
    where = f"{port_range.range_name} ({port_range.start_port}-{port_range.end_port}) of {project}"
    flag = "" if protocol == validators.TCP else f" --protocol {protocol}"
    if is_listening:
        return (
            f"lies in {where} and no service holds it",
            f"If it is yours, adopt it: ./manage.py allocate {project} SERVICE --port {port}{flag} --adopt. "
            "Otherwise ask for another port.",
        )
    if is_other_used:  # most programs expect a number to be theirs for both
        return (
            f"lies in {where} and no service holds it",
            f"Take another port of {project}, unless you mean {protocol} and can share the number.",
        )
    return f"lies in {where} and is free", f"Take it: ask for port {port}/{protocol} for a service of {project}."
