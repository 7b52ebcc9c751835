"""Helpers that put the registry into a certain state, always through PortManager, and check its invariants."""

from __future__ import annotations

import fcntl
import os
import tempfile
from datetime import timedelta
from pathlib import Path

from django.db import connection
from django.db.models import QuerySet
from django.utils import timezone

from allocations.models import PortAllocation, PortRange, Reservation
from allocations.ports import PortManager, projects

SLOTS = range(20_000, 32_000, 1_000)  # below the ports that the kernel gives to clients


def claim_ports() -> int:
    """Claim a thousand ports for this process and its children, and return the first of them.

    Tests open real sockets, and the allocator skips listeners. So each process of this run has ports of its own, and
    so has another run at the same time, for example in another worktree.
    """
    variable = f"PORTAL_TEST_FIRST_{os.environ.get('PYTEST_XDIST_WORKER', '')}"
    if variable not in os.environ:
        os.environ[variable] = str(next(filter(_lock, SLOTS)))
    return int(os.environ[variable])


def _lock(first: int) -> bool:
    """Lock these ports until this process ends, unless another process has locked them."""
    file = Path(tempfile.gettempdir()) / f"portal-tests-{first}.lock"
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


FIRST = claim_ports()
BANK = FIRST + 100  # the first port of the project bank


def manager(actor: str = "test") -> PortManager:
    """Return a manager that may do everything."""
    return PortManager(actor=actor)


def port_range(project: str = "shop", start: int = FIRST, size: int = 20, *, shared: bool = False) -> PortRange:
    """Create a project with one range and return the range."""
    return projects.add(manager().context, project, start_port=start, size=size, is_shared=shared).ranges.get()


def allocation(service: str = "api", project: str = "shop") -> PortAllocation:
    """Allocate a port to a service, creating its project first if it does not exist."""
    if not PortRange.objects.filter(project__name=project).exists():
        port_range(project)
    return manager().allocate(project, service)


def expire(rows: QuerySet[PortAllocation]) -> None:
    """Let these requests and reservations expire. Of a block, all ports expire."""
    past = timezone.now() - timedelta(seconds=1)
    Reservation.objects.filter(allocations__in=rows.filter(status="reserved")).update(expires_at=past)
    rows.filter(status="pending").update(expires_at=past)


def broken_invariants() -> list[str]:
    """Return one line per breach of an invariant of the registry.

    Each invariant is a query whose rows are breaches.
    """
    breaches = []
    with connection.cursor() as cursor:
        for name, query in INVARIANTS.items():
            cursor.execute(query)
            breaches += [f"{name}: {row}" for row in cursor.fetchall()]
    return breaches


INVARIANTS = {
    "1 ranges overlap": """
        SELECT a.range_name, b.range_name FROM port_ranges a JOIN port_ranges b ON a.id < b.id
         WHERE a.start_port <= b.end_port AND b.start_port <= a.end_port""",
    "2 two holders": """
        SELECT hostname, protocol, port_number, count(*) FROM port_allocations
         WHERE status <> 'released' GROUP BY 1, 2, 3 HAVING count(*) > 1""",
    "3 outside its range": """
        SELECT a.port_number, r.start_port, r.end_port FROM port_allocations a
          LEFT JOIN port_ranges r ON r.id = a.port_range_id
         WHERE a.status <> 'released' AND (r.id IS NULL OR NOT a.port_number BETWEEN r.start_port AND r.end_port)""",
    "4 one instance twice": """
        SELECT project_id, service_name, hostname, protocol, instance FROM port_allocations
         WHERE status <> 'released' AND service_name IS NOT NULL
         GROUP BY 1, 2, 3, 4, 5 HAVING count(*) > 1""",
    "6 released_at": """
        SELECT id FROM port_allocations WHERE (status = 'released') <> (released_at IS NOT NULL)""",
    "7 Cloudflare hostname twice": """
        SELECT cloudflare_hostname FROM port_allocations
         WHERE status <> 'released' AND cloudflare_hostname IS NOT NULL GROUP BY 1 HAVING count(*) > 1""",
    "8 in a range of others": """
        SELECT a.id FROM port_allocations a JOIN port_ranges r ON r.id = a.port_range_id
         WHERE a.status <> 'released' AND a.project_id <> r.project_id AND NOT r.is_shared""",
    "10 without an event": """
        SELECT a.id FROM port_allocations a
         WHERE a.reservation_id IS NULL
           AND (NOT EXISTS (SELECT FROM events e
                             WHERE e.subject_id = a.id AND e.verb IN ('allocated', 'requested'))
                OR (a.status = 'released' AND 1 <> (SELECT count(*) FROM events e
                                                     WHERE e.subject_id = a.id AND e.verb = 'released')))""",
    "11 reservation without an event": """
        SELECT v.id FROM reservations v
         WHERE NOT EXISTS (SELECT FROM events e WHERE e.subject_id = v.id)
            OR (v.released_at IS NOT NULL AND 1 <> (SELECT count(*) FROM events e
                                                     WHERE e.subject_id = v.id AND e.verb = 'released'))""",
    "12 reservation without its ports": """
        SELECT v.id FROM reservations v
         WHERE (SELECT array_agg(a.port_number ORDER BY a.port_number) FROM port_allocations a
                 WHERE a.reservation_id = v.id AND a.status = 'reserved')
               IS DISTINCT FROM CASE WHEN v.released_at IS NULL
                                     THEN (SELECT array_agg(port) FROM generate_series(v.start_port, v.end_port) port)
                                END""",
    "13 port unlike its reservation": """
        SELECT a.id FROM port_allocations a JOIN reservations v ON v.id = a.reservation_id
         WHERE (a.project_id, a.hostname, a.protocol) <> (v.project_id, v.hostname, v.protocol)
            OR (a.status = 'reserved' AND (a.description, a.expires_at) IS DISTINCT FROM (v.description, v.expires_at))
            OR (a.status = 'released') <> (v.released_at IS NOT NULL)
            OR a.port_number NOT BETWEEN v.start_port AND v.end_port""",
}
