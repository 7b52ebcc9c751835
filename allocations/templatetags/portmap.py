"""The cells of a port map. A template that includes another for each of 1,000 cells takes ten times as long."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from django import template
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from allocations.auth.roles import Caller
from allocations.models import PortRange, Project
from allocations.portmap import Cell

register = template.Library()

LINK = '<a class="cell" data-state="{}" href="{}" title="{}" aria-label="{}">{}</a>'
PLAIN = '<span class="cell" data-state="{}" role="img" title="{}" aria-label="{}">{}</span>'
ANY = UUID(int=0)


@register.simple_tag
def port_cells(cells: Iterable[Cell], port_range: PortRange, project: Project, caller: Caller) -> SafeString:
    """Return the cells: links to what holds a port, listens on it, or allocates it, as far as the caller may."""
    allocation = reverse("allocation", args=[ANY])  # a thousand calls of reverse() would take 20 ms
    listeners, page = reverse("listeners"), reverse("project", args=[project.name])
    may_allocate = caller.may_change and port_range.is_active

    def html(cell: Cell) -> SafeString:
        label = cell.label
        if cell.allocation is not None:
            address = allocation.replace(str(ANY), str(cell.allocation.pk))
        elif cell.state == "unallocated":
            address = f"{listeners}#port-{cell.port}"
        elif cell.state == "free" and may_allocate:
            address, label = f"{page}?port={cell.port}", f"{cell.label}: allocate it"
        else:
            return format_html(PLAIN, cell.state, cell.label, label, cell.port)
        return format_html(LINK, cell.state, address, cell.label, label, cell.port)

    return mark_safe("".join(map(html, cells)))  # noqa: S308 each part comes from format_html
