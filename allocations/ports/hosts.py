"""Approve other hosts, and connect to those that are approved."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count

from allocations import listeners, probes, sql, validators
from allocations.auth.roles import Role
from allocations.errors import InvalidValue, NotPermitted, UnknownHost
from allocations.hosts import LOCALHOST
from allocations.models import Host, PortAllocation
from allocations.text import did_you_mean

from .operations import Context, operation

NOT_APPROVED = probes.Probe(probes.UNKNOWN, "host not approved")


@dataclass(frozen=True, slots=True)
class HostUse:
    """A host that is approved, or on which ports are held.

    `approved_at` is None if it is not approved.
    """

    name: str
    held: int
    approved_by: str = ""
    approved_at: datetime | None = None

    @property
    def is_approved(self) -> bool:
        """Return whether audits connect to the host. This machine is always approved."""
        return self.approved_at is not None


def probe(targets: Collection[probes.Target], *, deadline: float = 15.0) -> dict[probes.Target, probes.Probe]:
    """Connect to the targets whose hosts are approved. The others are unknown, and nothing is sent to them.

    Every door that connects to another host comes through here.

    Args:
        targets: hosts, as the registry writes them, and ports.
        deadline: seconds for all targets together.
    """
    if not targets:
        return {}
    approved = set(Host.objects.filter(name__in={host for host, _ in targets}).values_list("name", flat=True))
    results = dict.fromkeys(targets, NOT_APPROVED)
    return results | probes.connect([target for target in targets if target[0] in approved], deadline=deadline)


@operation(Role.ADMIN, "approve hosts")
def approve(context: Context, hostname: str) -> Host:
    """Let audits connect to a host. Approving it twice changes nothing.

    Raises:
        InvalidName, NotPermitted.
        InvalidValue: it is an address that is never probed.
    """
    _require_all_projects(context)
    name = validators.hostname(hostname)
    if probes.is_forbidden(name):
        raise InvalidValue(
            f"{name} is never probed: it is link-local, or a cloud provider serves credentials there. Approve the "
            "address or the name that the services of that host have.",
            field="hostname",
        )
    return Host.objects.get_or_create(name=name, defaults={"approved_by": context.actor})[0]


@operation(Role.ADMIN, "approve hosts")
def withdraw(context: Context, hostname: str) -> None:
    """Withdraw the approval of a host. Its allocations stay, and audits report them as unknown.

    Raises:
        InvalidName, NotPermitted.
        UnknownHost: it is not approved.
        InvalidValue: it is this machine.
    """
    _require_all_projects(context)
    name = validators.hostname(hostname)
    if name == LOCALHOST:
        raise InvalidValue(f"{name} is this machine, which is always audited.", field="hostname")
    hosts = Host.objects.filter(name=name)
    if not hosts.exists():
        hint = did_you_mean(name, list(Host.objects.exclude(name=LOCALHOST).values_list("name", flat=True)))
        raise UnknownHost(f"{name} is not approved, so nothing was changed. {hint}".rstrip(), field="hostname")
    hosts.delete()


def list_hosts(context: Context) -> list[HostUse]:
    """Return the approved hosts, and the others on which ports are held, by name.

    Raises:
        NotPermitted: the caller is not an admin, or is limited to some projects.
    """
    context.caller.require(Role.ADMIN, "list hosts")
    _require_all_projects(context)
    counts = PortAllocation.objects.held().order_by().values_list("hostname").annotate(Count("pk"))
    held = dict(counts)
    approved = {host.name: host for host in Host.objects.all()}
    return [
        HostUse(name, held.get(name, 0), host.approved_by, host.approved_at)
        if (host := approved.get(name))
        else HostUse(name, held[name])
        for name in sorted({*held, *approved})
    ]


def unapproved(context: Context) -> list[str]:
    """Return the hosts that await approval: ports are held on them. Empty for callers who may not approve them."""
    if not _may_approve(context):
        return []
    return [name for name in sql.unapproved_hosts() if not listeners.is_this_host(name)]


def _may_approve(context: Context) -> bool:
    return context.caller.may_administer and context.caller.projects is None


def _require_all_projects(context: Context) -> None:
    if context.caller.projects is not None:
        raise NotPermitted(
            "You are limited to some projects, so you cannot approve hosts. Ask an admin who sees all projects."
        )
