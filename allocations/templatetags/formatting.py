"""Template filters that format the values of the registry."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django import template
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timesince import timesince

register = template.Library()

STATES = {"up": "listening", "down": "not-running"}
LABELS = {"not-running": "not running", "allocated": "not audited yet", "unallocated": "unallocated listener"}


@register.filter
def relative_time(at: datetime) -> SafeString:
    """Return a time such as `3 hours ago`, `in 2 days` or `just now`, with the exact time as its title."""
    exact = f"{at:%Y-%m-%d %H:%M:%S} UTC"
    return format_html('<time datetime="{}" title="{}">{}</time>', at.isoformat(), exact, _relative(at))


def _relative(at: datetime) -> str:
    now = timezone.now()
    if abs(now - at) < timedelta(minutes=1):
        return "just now" if at <= now else "in a moment"
    return f"{timesince(at, now, depth=1)} ago" if at < now else f"in {timesince(now, at, depth=1)}"


@register.filter
def state_label(state: str) -> str:
    """Return the name of a state as people read it."""
    return LABELS.get(state, state)


@register.filter
def state_after(verdict: str) -> str:
    """Return the state of an allocation after a check with this verdict."""
    return STATES.get(verdict, verdict)


@register.filter
def or_dash(value: Any) -> str:
    """Return a value of the history as text, and a dash if it is empty."""
    return "–" if value in (None, "", {}) else str(value)


@register.filter
def in_minutes(duration: timedelta) -> int:
    """Return a duration in whole minutes, rounded up."""
    return -(-int(duration.total_seconds()) // 60)
