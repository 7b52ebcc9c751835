"""The results of the tools, in addition to the schemas that all doors share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from operator import not_
from typing import Any, Literal

from pydantic import Field

from allocations.models import PortAllocation, Status
from allocations.schemas import Allocation, AllocationRow, Output

LONGEST_METADATA = 2000
# The longest text inside each of these members, in characters. Other people wrote it, and it is not worth many tokens.
LONGEST_TEXT = {"allocation": 300, "ports": 120, "conflicts": 80, "unallocated": 80, "listener": 80}
WAIT = (
    "In this project a person approves new ports. {port} is held for this service until {until:%Y-%m-%d %H:%M} UTC: do "
    "not bind it yet. Ask your user to approve it on Portal's dashboard, then {retry}."
)


class ServicePort(Output):
    """The port of a service. `pending` and `next_step` are there while a person has to approve it."""

    success: Literal[True] = True
    port: int
    created: bool
    allocation: Allocation
    pending: bool = Field(False, exclude_if=not_)
    next_step: str = Field("", exclude_if=not_)

    @classmethod
    def of(
        cls, source: PortAllocation, *, retry: str = "call get-port again", created: bool | None = None
    ) -> ServicePort:
        """Build the result for an allocation.

        Args:
            retry: what the caller does once the port is approved.
            created: whether this call created it; None means what the allocation says.
        """
        is_pending = source.status == Status.PENDING
        return cls(
            port=source.port_number,
            created=source.created if created is None else created,
            allocation=Allocation.of(source),
            pending=is_pending,
            next_step=WAIT.format(port=source.port_number, until=source.expires_at, retry=retry) if is_pending else "",
        )


class ChangedPort(Output):
    """A port that was changed, reserved or released."""

    success: Literal[True] = True
    port: int
    allocation: Allocation

    @classmethod
    def of(cls, source: PortAllocation) -> ChangedPort:
        return cls(port=source.port_number, allocation=Allocation.of(source))


class ListedPorts(Output):
    """The first ports of a list, and how many there are."""

    success: Literal[True] = True
    ports: list[AllocationRow]
    total: int


def shorten(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return a result with the texts that other people wrote shortened."""
    return {
        name: _shorten(value, LONGEST_TEXT[name]) if name in LONGEST_TEXT else value for name, value in result.items()
    }


def _shorten(value: Any, longest: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= longest else f"{value[: longest - 1]}…"
    if isinstance(value, list):
        return [_shorten(item, longest) for item in value]
    if isinstance(value, dict):
        return {
            name: _shorten_metadata(member) if name == "metadata" else _shorten(member, longest)
            for name, member in value.items()
        }
    return value


def _shorten_metadata(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    if len(json.dumps(metadata)) <= LONGEST_METADATA:
        return metadata
    return {"cut": f"more than {LONGEST_METADATA} characters: names are {', '.join(metadata)}"[:300]}
