"""Import existing services."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from django.db import transaction

from allocations import validators
from allocations.allocation_spec import AllocationSpec, allocation_spec
from allocations.audit import IMPORTED_FROM
from allocations.auth.roles import Role
from allocations.errors import InvalidValue, PortError, UnknownProject
from allocations.importers import ParsedInput, Row, Skipped, excerpt
from allocations.models import PortAllocation, PortRange, Project, Status
from allocations.text import join_and

from . import allocations
from .allocator import decided
from .operations import Context, operation
from .queries import MOST_LISTED, get_project

BATCH = 500  # rows


@dataclass(frozen=True, slots=True)
class ImportedRow:
    """A row that has its port now.

    Args:
        line: where the row begins in the input.
        old: the port that the service must move away from, if it got another one.
    """

    line: int
    allocation: PortAllocation
    old: int | None = None


@dataclass(slots=True)
class ImportReport:
    """The outcome of an import for each of its rows."""

    format: str
    imported: list[ImportedRow] = field(default_factory=list)
    moved: list[ImportedRow] = field(default_factory=list)
    already: list[ImportedRow] = field(default_factory=list)
    left_out: list[Skipped] = field(default_factory=list)
    ignored: int = 0
    is_dry_run: bool = False
    has_lines: bool = True

    def add(self, other: ImportReport) -> None:
        """Add the rows of another report."""
        self.imported += other.imported
        self.moved += other.moved
        self.already += other.already
        self.left_out += other.left_out


def import_rows(
    context: Context,
    parsed: ParsedInput,
    *,
    project: str | None = None,
    dry_run: bool = False,
    progress: Callable[[int], None] | None = None,
) -> ImportReport:
    """Import the services of an input, in transactions of BATCH rows.

    A service on a port in a range of its project keeps that port. A service on any other port gets one from the range,
    and is listed among the moves. Existing allocations stay as they are, so a second run changes nothing, and goes on
    where an earlier one was interrupted.

    Args:
        project: the project of rows that name none and whose port lies in no range.
        dry_run: report, but write nothing. This takes one transaction, because each row depends on those before it.
        progress: called with the number of rows that are done.

    Raises:
        UnknownProject: `project` does not exist. Errors in rows are listed in the report.
    """
    report = ImportReport(
        parsed.format,
        left_out=list(parsed.skipped),
        ignored=parsed.ignored,
        is_dry_run=dry_run,
        has_lines=parsed.has_lines,
    )
    rows = _in_place_first(_without_disputes(parsed.rows, report))
    size = BATCH if not dry_run else max(len(rows), 1)
    for done in range(0, max(len(rows), 1), size):
        advance = functools.partial(_advance, progress, done)
        report.add(_import_batch(context, rows[done : done + size], project, dry_run, advance))
    report.left_out.sort(key=lambda skipped: skipped.line)
    return report


def _advance(progress: Callable[[int], None] | None, done: int, more: int) -> None:
    if progress is not None:
        progress(done + more)


@operation(Role.OPERATOR, "import services")
def _import_batch(
    context: Context, rows: list[Row], project: str | None, dry_run: bool, advance: Callable[[int], None]
) -> ImportReport:
    """Import some of the rows in one transaction, and report only on these."""
    fallback = get_project(context, project) if project else None
    report = ImportReport(format="")
    for done, row in enumerate(rows, start=1):
        try:
            with transaction.atomic():
                _import_row(context, row, fallback, report)
        except PortError as error:
            report.left_out.append(Skipped(row.line, f"{row.name} {row.port or ''}".strip(), error.sentence))
        advance(done)
    if dry_run:
        transaction.set_rollback(True)
    return report


def _without_disputes(rows: Iterable[Row], report: ImportReport) -> list[Row]:
    """Return the rows except those that claim one port for different services, which are reported as left out.

    A row that is repeated counts as already there.
    """
    claims: dict[tuple[str, str, int], list[Row]] = defaultdict(list)
    undisputed: list[Row] = []
    for row in rows:
        if row.port is None:
            undisputed.append(row)
        else:
            claims[row.hostname.lower(), row.protocol, row.port].append(row)
    for (_, protocol, port), claimants in claims.items():
        if len({(row.project, row.name) for row in claimants}) > 1:
            reason = f"{_list_lines(claimants)} all claim {port}/{protocol}"
            report.left_out += [Skipped(row.line, f"{row.name} {port}", reason) for row in claimants]
        else:
            undisputed += claimants
    return sorted(undisputed, key=lambda row: row.line)


def _list_lines(rows: list[Row]) -> str:
    """Return `line 1 (a) and line 2 (b)`; only the first of many lines, because each of them reports this."""
    lines = [f"line {row.line} ({excerpt(row.name)})" for row in rows[:MOST_LISTED]]
    return join_and([*lines, f"{len(rows) - MOST_LISTED} more"] if len(rows) > MOST_LISTED else lines)


def _in_place_first(rows: list[Row]) -> list[Row]:
    """Return the rows inside a range first, so that no moved service gets the port of one that can stay."""
    spans = list(PortRange.objects.active().values_list("start_port", "end_port"))

    def is_outside(row: Row) -> bool:
        return row.port is None or not any(start <= row.port <= end for start, end in spans)

    return sorted(rows, key=is_outside)


def _import_row(context: Context, row: Row, fallback: Project | None, report: ImportReport) -> None:
    port_range = _range_of(row)
    named = _named_project(context, row)
    project = named or _guess_project(context, row, port_range, fallback)
    details: dict[str, Any] = {
        "service_type": row.service_type,
        "description": row.description,
        "cloudflare_hostname": row.cloudflare_hostname,
        "hostname": row.hostname,
        "protocol": row.protocol,
    }
    spec = allocation_spec(row.name, **details)
    existing = _existing(context, row, spec, project, is_named=named is not None)
    if existing is not None:
        is_moved = row.port is not None and row.port != existing.port_number
        old = row.port if is_moved else None
        report.already.append(ImportedRow(row.line, decided(context, existing), old=old))
        return
    is_usable = (
        port_range is not None
        and port_range.is_active
        and (port_range.project_id == project.pk or port_range.is_shared)
    )
    if row.port is None:
        allocation = allocations.get_or_allocate(context, project.name, row.name, **details)
        (report.imported if allocation.created else report.already).append(ImportedRow(row.line, allocation))
    elif is_usable and not _is_held(row.port, spec, project):
        allocation = allocations.adopt(context, project.name, row.name, port_number=row.port, **details)
        report.imported.append(ImportedRow(row.line, allocation))
    else:
        metadata = {IMPORTED_FROM: row.port}
        allocation = allocations.allocate(context, project.name, row.name, metadata=metadata, **details)
        report.moved.append(ImportedRow(row.line, allocation, old=row.port))


def _range_of(row: Row) -> PortRange | None:
    """Return the range that contains the row's port."""
    if row.port is None:
        return None
    port_number = validators.port_number(row.port)
    return PortRange.objects.containing(port_number).select_related("project").first()


def _named_project(context: Context, row: Row) -> Project | None:
    """Return the project that the row names, or None. A hint from Docker or Compose may be unknown; it is ignored."""
    if row.project is None:
        return None
    try:
        return get_project(context, row.project)
    except (UnknownProject, InvalidValue):
        if not row.project_is_hint:
            raise
        return None


def _guess_project(context: Context, row: Row, port_range: PortRange | None, fallback: Project | None) -> Project:
    """Return the project of a row that names none: the one whose range contains the port, else the fallback."""
    if port_range is not None:
        return get_project(context, port_range.project.name)
    if fallback is not None:
        return fallback
    place = f"port {row.port} lies in no range" if row.port is not None else "it has no port"
    raise UnknownProject(f"{place} and no project is named: name one with --project, or add a range.")


def _existing(
    context: Context, row: Row, spec: AllocationSpec, project: Project, *, is_named: bool
) -> PortAllocation | None:
    """Return the allocation that already holds the row's port, or that an earlier run made for the service.

    The holder of the port is taken to be the service of the row, unless the row names another project or, if it knows
    more than a process, another service. This matters in a shared range.
    """
    held = PortAllocation.objects.held().exclude(status=Status.RESERVED).select_related("project", "port_range")
    own = held.filter(project=project, service_name=spec.service_name, **spec.socket)
    if row.port is None:
        return own.filter(instance=0).first()
    holders = held.visible_to(context.caller).at(row.port, **spec.socket)
    if is_named:
        holders = holders.filter(project=project)
    if row.service is not None and not row.service_is_hint:
        holders = holders.filter(service_name=spec.service_name)
    return holders.first() or own.filter(metadata__importedFrom=row.port).first()


def _is_held(port_number: int, spec: AllocationSpec, project: Project) -> bool:
    """Return whether a service or another project's reservation holds the port.

    The project's own reservation does not count: it gives way to the service.
    """
    held = PortAllocation.objects.held().at(port_number, **spec.socket)
    return held.exclude(project=project, status=Status.RESERVED).exists()
