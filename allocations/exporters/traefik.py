"""Export a dynamic configuration for the HTTP provider of Traefik.

The provider is described at https://doc.traefik.io/traefik/providers/http/.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from allocations.models import PortAllocation


def configuration(allocations: Iterable[PortAllocation]) -> dict[str, Any]:
    """Return a router and a service for each allocation with a Cloudflare hostname.

    If there are none, return an empty dictionary.
    """
    routers: dict[str, Any] = {}
    services: dict[str, Any] = {}
    for a in allocations:
        if not a.cloudflare_hostname:
            continue
        # The start of the ID makes the name unique. Traefik treats a dot as a separator in some places.
        name = re.sub(r"[^a-z0-9-]", "-", f"{a.project.name}-{a.service_name}-{str(a.pk)[:8]}")
        host = f"[{a.hostname}]" if ":" in a.hostname else a.hostname
        routers[name] = {"rule": _rule(a.cloudflare_hostname), "service": name}
        services[name] = {"loadBalancer": {"servers": [{"url": f"http://{host}:{a.port_number}"}]}}
    return {"http": {"routers": routers, "services": services}} if routers else {}


def _rule(hostname: str) -> str:
    if not hostname.startswith("*."):
        return f"Host(`{hostname}`)"
    return f"HostRegexp(`^[a-z0-9-]+\\.{re.escape(hostname[2:])}$`)"
