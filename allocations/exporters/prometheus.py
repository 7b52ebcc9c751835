"""Export targets for the HTTP service discovery of Prometheus.

The format is described at https://prometheus.io/docs/prometheus/latest/http_sd/.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from allocations.models import PortAllocation


def targets(allocations: Iterable[PortAllocation]) -> list[dict[str, Any]]:
    """Return one target group for each allocation, in the same order.

    Prometheus discards labels that begin with __meta_ unless the scrape configuration relabels them.
    """
    return [
        {
            "targets": [f"[{a.hostname}]:{a.port_number}" if ":" in a.hostname else f"{a.hostname}:{a.port_number}"],
            "labels": {
                "__meta_portal_project": a.project.name,
                "__meta_portal_service": a.service_name or "",
                "__meta_portal_instance": str(a.instance),
                "__meta_portal_type": a.service_type,
                "__meta_portal_hostname": a.hostname,
                "__meta_portal_cloudflare_hostname": a.cloudflare_hostname or "",
                "__meta_portal_health": a.health or "",
            },
        }
        for a in allocations
    ]
