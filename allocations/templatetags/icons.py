"""The icons, each rendered once: a page with a table has hundreds."""

from __future__ import annotations

import functools

from django import template
from django.template.loader import render_to_string
from django.utils.safestring import SafeString

register = template.Library()


@register.simple_tag
@functools.cache
def icon(name: str) -> SafeString:
    """Return one of the icons in `_icon.html`."""
    return render_to_string("_icon.html", {"name": name})
