"""Statements about the hosts on which ports are held."""

from __future__ import annotations

from django.db import connection

# DISTINCT would read every row. This reads one for each host: https://wiki.postgresql.org/wiki/Loose_indexscan
_UNAPPROVED = """
    WITH RECURSIVE used (hostname) AS (
        (SELECT hostname FROM port_allocations WHERE NOT (status = 'released') ORDER BY hostname LIMIT 1)
        UNION ALL
        SELECT (SELECT a.hostname FROM port_allocations a
                 WHERE NOT (a.status = 'released') AND a.hostname > used.hostname ORDER BY a.hostname LIMIT 1)
          FROM used WHERE used.hostname IS NOT NULL
    )
    SELECT used.hostname FROM used
     WHERE NOT EXISTS (SELECT FROM hosts WHERE hosts.name = used.hostname)
       AND EXISTS (SELECT FROM port_allocations a
                    WHERE NOT (a.status = 'released') AND a.hostname = used.hostname AND a.status = 'allocated')
     ORDER BY used.hostname
"""


def unapproved_hosts() -> list[str]:
    """Return the names of the hosts on which services hold ports and that no admin has approved, sorted."""
    with connection.cursor() as cursor:
        cursor.execute(_UNAPPROVED)
        return [name for (name,) in cursor.fetchall()]
