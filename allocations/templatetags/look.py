"""How values look on a page."""

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
FIELDS = {
    "service_name": "service",
    "service_type": "type",
    "expires_at": "expires",
    "released_at": "released",
    "range_name": "name",
    "start_port": "from port",
    "end_port": "to port",
    "is_shared": "shared",
    "is_active": "active",
    "agent_quota": "ports per token",
    "cloudflare_hostname": "Cloudflare hostname",
}
WORDS = {"not-running": "not running", "allocated": "not audited yet", "unallocated": "unallocated listener"}


@register.filter
def moment(at: datetime) -> SafeString:
    """`3 hours ago`, `in 2 days`, `just now`: one unit is enough, the exact moment stands in the title."""
    exact = f"{at:%Y-%m-%d %H:%M:%S} UTC"
    return format_html('<time datetime="{}" title="{}">{}</time>', at.isoformat(), exact, _ago(at))


def _ago(at: datetime) -> str:
    now = timezone.now()
    if abs(now - at) < timedelta(minutes=1):
        return "just now" if at <= now else "in a moment"
    return f"{timesince(at, now, depth=1)} ago" if at < now else f"in {timesince(now, at, depth=1)}"


@register.filter
def in_words(state: str) -> str:
    """What a state is called."""
    return WORDS.get(state, state)


@register.filter
def field_in_words(column: str) -> str:
    """A column of the history, as the forms call it."""
    return FIELDS.get(column, column.replace("_", " "))


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
