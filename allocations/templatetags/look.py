"""How values look on a page."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django import template
from django.utils import timezone
from django.utils.timesince import timesince

register = template.Library()

STATES = {"up": "listening", "down": "not-running"}
WORDS = {"not-running": "not running", "allocated": "not audited yet", "unallocated": "unallocated listener"}


@register.filter
def ago(moment: datetime) -> str:
    """`3 hours ago`, `in 2 days`, `just now`: one unit is enough, the exact moment stands in the title."""
    seconds = (timezone.now() - moment).total_seconds()
    if abs(seconds) < 60:
        return "just now" if seconds >= 0 else "in a moment"
    length = timesince(*((moment, None) if seconds > 0 else (timezone.now(), moment)), depth=1)
    return f"{length} ago" if seconds > 0 else f"in {length}"


@register.filter
def in_words(state: str) -> str:
    """What a state is called."""
    return WORDS.get(state, state)


@register.filter
def value(field: Any) -> str:
    """A value of the history: text as it is, nothing as a dash."""
    return "–" if field in (None, "", {}) else str(field)


@register.filter
def minutes(length: timedelta) -> int:
    """A length of time in whole minutes, rounded up."""
    return -(-int(length.total_seconds()) // 60)


@register.filter
def verdict(status: str) -> str:
    """The state that a check's verdict puts an allocation in."""
    return STATES.get(status, status)
