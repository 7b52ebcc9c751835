"""Limit how many requests a caller may send."""

from __future__ import annotations

import math

from allocations import sql
from allocations.errors import TooManyRequests

from .operations import Context

# One address may have many agents behind it.
ADDRESS_FACTOR = 5


def count_request(context: Context, kind: str, per_minute: int, address: str = "") -> None:
    """Count one request of the caller.

    Args:
        kind: what is counted together: change or audit.
        per_minute: how many the caller may send; its address may send five times as many.
        address: where the request comes from.

    Raises:
        TooManyRequests: `retry_after` in the details is in seconds.
    """
    limits = {f"{kind} {context.caller.identity}": per_minute}
    if address:
        limits[f"{kind} address:{address}"] = per_minute * ADDRESS_FACTOR
    wait = sql.count_request(limits)
    if wait:
        seconds = math.ceil(wait)
        raise TooManyRequests(
            f"Too many requests: {per_minute} per minute are allowed. Wait {seconds} s, and ask less often.",
            retry_after=seconds,
        )
