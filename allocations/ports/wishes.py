"""What a service asks for, every value checked by the rules of words.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from allocations import errors, words
from allocations.models import Status


@dataclass(frozen=True, slots=True)
class Wish:
    """What one service asks for. Made by `wish()`, which checks every value."""

    service: str | None
    service_type: str = ""
    description: str = ""
    cloudflare_hostname: str | None = None
    hostname: str = words.LOCALHOST
    protocol: str = words.TCP
    port: int | None = None
    range_name: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    expires_at: datetime | None = None
    status: str = Status.ALLOCATED

    @property
    def place(self) -> dict[str, str]:
        """Where it is to listen, as a filter."""
        return {"hostname": self.hostname, "protocol": self.protocol}


def wish(
    service: str | None,
    *,
    service_type: str = "",
    description: str = "",
    cloudflare_hostname: str | None = None,
    hostname: str | None = None,
    protocol: str | None = None,
    port: int | None = None,
    range_name: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Wish:
    """What a service asks for, every value checked by the rules of words.py."""
    return Wish(
        service=words.service_name(service),
        service_type=words.service_type(service_type),
        description=words.text(description, "description"),
        cloudflare_hostname=words.cloudflare_hostname(cloudflare_hostname),
        hostname=words.host(hostname),
        protocol=words.protocol(protocol),
        port=None if port is None else words.port(port),
        range_name=range_name or None,
        metadata=words.metadata(metadata),
    )


CHECKED_BY = {
    "new_name": ("service_name", words.service_name),
    "service_type": ("service_type", words.service_type),
    "description": ("description", lambda value: words.text(value, "description")),
    "cloudflare_hostname": ("cloudflare_hostname", words.cloudflare_hostname),
    "metadata": ("metadata", words.metadata),
    "expires_at": ("expires_at", words.expiry),
}


def checked_changes(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The columns to change, each value checked.

    Raises:
        InvalidValue: a change that does not exist, by name.
    """
    checked = {}
    for name, value in changes.items():
        if name not in CHECKED_BY:
            raise errors.InvalidValue(f"{name} cannot be changed: change {words.either(list(CHECKED_BY))}.", field=name)
        column, check = CHECKED_BY[name]
        checked[column] = check(value)
    return checked
