"""Traefik's HTTP provider (https://doc.traefik.io/traefik/providers/http/)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from allocations.models import PortAllocation


def configuration(allocations: Iterable[PortAllocation]) -> dict[str, Any]:
    """A router and a service for each allocation that has a public hostname; an empty object where none has."""
    routers: dict[str, Any] = {}
    services: dict[str, Any] = {}
    for a in allocations:
        if not a.cloudflare_hostname:
            continue
        # Unique, because the hostname is; Traefik takes a dot for a separator in some places.
        name = re.sub(r"[^a-z0-9-]", "-", f"{a.project.name}-{a.service_name}-{str(a.pk)[:8]}")
        host = f"[{a.hostname}]" if ":" in a.hostname else a.hostname
        routers[name] = {"rule": _rule(a.cloudflare_hostname), "service": name}
        services[name] = {"loadBalancer": {"servers": [{"url": f"http://{host}:{a.port_number}"}]}}
    return {"http": {"routers": routers, "services": services}} if routers else {}


def _rule(hostname: str) -> str:
    if not hostname.startswith("*."):
        return f"Host(`{hostname}`)"
    return f"HostRegexp(`^[a-z0-9-]+\\.{re.escape(hostname[2:])}$`)"
