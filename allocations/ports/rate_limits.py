"""Limit how many requests a caller may send, and how often somebody may try to log in."""

from __future__ import annotations

import math
from collections.abc import Mapping

from django.conf import settings

from allocations import sql
from allocations.errors import TooManyRequests

from .operations import Context

# One address may have many agents behind it.
ADDRESS_FACTOR = 5
# How many changes a request counts as. An audit only reads, but costs as much as several changes.
COSTS = {"change": 1, "audit": 10}
LOGINS_PER_ADDRESS, LOGINS_PER_USER = 20, 10  # attempts per minute


def count_request(context: Context, kind: str, address: str = "") -> None:
    """Count one request of the caller.

    Args:
        kind: what is counted together, a key of COSTS.
        address: where the request comes from. It may send five times as many as a caller.

    Raises:
        TooManyRequests: `retry_after` in the details is in seconds.
    """
    per_minute = settings.PORTAL_RATE_LIMIT // COSTS[kind]
    limits = {f"{kind} {context.caller.identity}": per_minute}
    if address:
        limits[f"{kind} address:{address}"] = per_minute * ADDRESS_FACTOR
    _count(limits, f"Too many requests: {per_minute} per minute are allowed. Wait {{}} s, and ask less often.")


def count_login(username: str, address: str, device: str) -> None:
    """Count one attempt to log in.

    Args:
        device: the id of a browser that has logged in as this user before, or an empty string. It is counted on its
            own, so that nobody else can use up its attempts.

    Raises:
        TooManyRequests: `retry_after` in the details is in seconds.
    """
    if device:
        limits = {f"login device:{device}": LOGINS_PER_USER}
    else:
        limits = {f"login address:{address}": LOGINS_PER_ADDRESS, f"login user:{username}": LOGINS_PER_USER}
    _count(limits, "Too many login attempts. Try again in {} s.")


def _count(limits: Mapping[str, int], sentence: str) -> None:
    wait = math.ceil(sql.count_request(limits))
    if wait:
        raise TooManyRequests(sentence.format(wait), retry_after=wait)
