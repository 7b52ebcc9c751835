"""The specification of an allocation: what a caller asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from allocations import validators
from allocations.errors import InvalidValue
from allocations.models import Status
from allocations.text import join_or

LONGEST_OWNER = 255
# The details of an allocation, which can be changed later, each with its validator.
DETAILS: dict[str, Callable[[object], Any]] = {
    "service_type": validators.service_type,
    "description": validators.description,
    "owner": lambda value: validators.text(value, "owner", LONGEST_OWNER),
    "cloudflare_hostname": validators.cloudflare_hostname,
    "metadata": validators.metadata,
}
CHANGES: dict[str, Callable[[object], Any]] = {
    "service_name": validators.service_name,
    **DETAILS,
    "expires_at": validators.expires_at,
}


@dataclass(frozen=True, slots=True)
class AllocationSpec:
    """The specification of one allocation. Use `allocation_spec()` to make one: it validates every value.

    The fields are named like the columns of `port_allocations` and the parameters of the SQL function `hold_port`.
    """

    service_name: str | None
    service_type: str = ""
    description: str = ""
    owner: str = ""
    cloudflare_hostname: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    hostname: str = validators.LOCALHOST
    protocol: str = validators.TCP
    port_number: int | None = None
    status: str = Status.ALLOCATED
    expires_at: datetime | None = None
    range_name: str | None = None

    @property
    def socket(self) -> dict[str, str]:
        """Return the host and the protocol, as arguments to filter allocations by."""
        return {"hostname": self.hostname, "protocol": self.protocol}

    @property
    def columns(self) -> dict[str, Any]:
        """Return the values by column, without the range, which is looked up by its name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "range_name"}


def allocation_spec(
    service_name: str | None,
    *,
    hostname: str | None = None,
    protocol: str | None = None,
    port_number: int | None = None,
    range_name: str | None = None,
    **details: Any,
) -> AllocationSpec:
    """Return the specification of a service's allocation, with every value validated.

    Args:
        service_name: the service.
        hostname: where it runs; None means this host.
        protocol: tcp or udp; None means tcp.
        port_number: exactly this port; None means the lowest free one.
        range_name: a range of the project, or a shared one; None means the project's own ranges.
        **details: any of service_type, description, owner, cloudflare_hostname and metadata.

    Raises:
        InvalidValue, InvalidName, PortOutOfRange: a value is not valid.
    """
    return AllocationSpec(
        service_name=validators.service_name(service_name),
        hostname=validators.hostname(hostname),
        protocol=validators.protocol(protocol),
        port_number=None if port_number is None else validators.port_number(port_number),
        range_name=range_name or None,
        **_validated(details, DETAILS),
    )


def validated_changes(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the new values of an allocation's columns, each validated.

    Raises:
        InvalidValue: a value is not valid, or a field cannot be changed.
    """
    return _validated(changes, CHANGES)


def _validated(values: Mapping[str, Any], validators: Mapping[str, Callable[[object], Any]]) -> dict[str, Any]:
    for name in values:
        if name not in validators:
            raise InvalidValue(f"{name} cannot be set: use {join_or(list(validators))}.", field=name)
    return {name: validators[name](value) for name, value in values.items()}
