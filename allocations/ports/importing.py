"""Taking over services that exist already."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from django.db import transaction

from allocations import words
from allocations.access import Role
from allocations.audit import IMPORTED_FROM
from allocations.errors import InvalidValue, PortError, UnknownProject
from allocations.importers import Reading, Row, Skipped, shown
from allocations.models import PortAllocation, PortRange, Project, Status

from .allocating import Allocating
from .base import operation
from .wishes import Wish, wish

MOST_LISTED = 10


@dataclass(frozen=True, slots=True)
class Imported:
    """One row that has its port now; `line` is where it begins, `old` the port that it must move away from."""

    line: int
    allocation: PortAllocation
    old: int | None = None


@dataclass(slots=True)
class ImportReport:
    """What became of each row."""

    format: str
    imported: list[Imported] = field(default_factory=list)
    moved: list[Imported] = field(default_factory=list)
    already: list[Imported] = field(default_factory=list)
    left_out: list[Skipped] = field(default_factory=list)
    passed_over: int = 0
    is_dry_run: bool = False
    has_lines: bool = True


class Importing(Allocating):
    """import_rows."""

    @operation(Role.OPERATOR, "import services")
    def import_rows(self, reading: Reading, *, project: str | None = None, dry_run: bool = False) -> ImportReport:
        """Take over the services of an input, in one transaction.

        A port in a range of its project is taken over as it is; a service elsewhere gets a port of the range, and is
        among the moves. What is held already stays, so that a second run changes nothing.

        Args:
            project: for rows that name none and whose port lies in no range.
            dry_run: report, and write nothing.

        Raises:
            UnknownProject: of `project`; what is wrong with a row is in the report.
        """
        fallback = self._project(project) if project else None
        report = ImportReport(
            reading.format,
            left_out=list(reading.skipped),
            passed_over=reading.passed_over,
            is_dry_run=dry_run,
            has_lines=reading.has_lines,
        )
        for row in self._in_place_first(_undisputed(reading.rows, report)):
            try:
                with transaction.atomic():
                    self._import(row, fallback, report)
            except PortError as refusal:
                report.left_out.append(Skipped(row.line, f"{row.name} {row.port or ''}".strip(), refusal.sentence))
        report.left_out.sort(key=lambda skipped: skipped.line)
        if dry_run:
            transaction.set_rollback(True)
        return report

    def _in_place_first(self, rows: list[Row]) -> list[Row]:
        """What lies in a range first, so that no moved service is given the port of one that may stay."""
        spans = list(PortRange.objects.active().values_list("start_port", "end_port"))

        def lies_elsewhere(row: Row) -> bool:
            return row.port is None or not any(first <= row.port <= last for first, last in spans)

        return sorted(rows, key=lies_elsewhere)

    def _import(self, row: Row, fallback: Project | None, report: ImportReport) -> None:
        around = self._around(row)
        named = self._named(row)
        owner = named or self._owner(row, around, fallback)
        asked = wish(
            row.name,
            service_type=row.service_type,
            description=row.description,
            cloudflare_hostname=row.cloudflare_hostname,
            hostname=row.hostname,
            protocol=row.protocol,
        )
        known = self._known(row, asked, owner, is_named=named is not None)
        if known is not None:
            is_moved = row.port is not None and row.port != known.port_number
            report.already.append(Imported(row.line, self._decided(known), old=row.port if is_moved else None))
            return
        wanted = {
            "service_type": asked.service_type,
            "description": asked.description,
            "cloudflare_hostname": asked.cloudflare_hostname,
            "hostname": asked.hostname,
            "protocol": asked.protocol,
        }
        own = around is not None and (around.project_id == owner.pk or around.is_shared) and around.is_active
        if row.port is None:
            given = self.get_or_allocate(owner.name, row.name, **wanted)
            (report.imported if given.created else report.already).append(Imported(row.line, given))
        elif own and not self._is_held(row.port, asked, owner):
            report.imported.append(Imported(row.line, self.adopt(owner.name, row.name, port=row.port, **wanted)))
        else:
            given = self.allocate(owner.name, row.name, metadata={IMPORTED_FROM: row.port}, **wanted)
            report.moved.append(Imported(row.line, given, old=row.port))

    def _around(self, row: Row) -> PortRange | None:
        """The range that holds the row's port."""
        if row.port is None:
            return None
        return PortRange.objects.holding(words.port(row.port)).select_related("project").first()

    def _named(self, row: Row) -> Project | None:
        """The project that the row names; a hint that Portal does not know names none."""
        if row.project is None:
            return None
        try:
            return self._project(row.project)
        except (UnknownProject, InvalidValue):
            if not row.is_hint:
                raise
            return None

    def _owner(self, row: Row, around: PortRange | None, fallback: Project | None) -> Project:
        """Whose service it is where no project is named: the range that holds the port decides, else the fallback."""
        if around is not None:
            return self._project(around.project.name)
        if fallback is not None:
            return fallback
        place = f"port {row.port} lies in no range" if row.port is not None else "it has no port"
        raise UnknownProject(f"{place} and no project is named: name one with --project, or add a range.")

    def _known(self, row: Row, asked: Wish, owner: Project, *, is_named: bool) -> PortAllocation | None:
        """What holds this row's port already, or was given to it by an earlier run.

        Whoever holds the port is it, as far as the row does not say otherwise: only its owner, where the row names
        the project, and only that service, where it knows more than a process. In a shared range that matters.
        """
        held = PortAllocation.objects.held().exclude(status=Status.RESERVED).select_related("project", "port_range")
        ours = held.filter(project=owner, service_name=asked.service, **asked.place)
        if row.port is None:
            return ours.filter(instance=0).first()
        there = held.visible_to(self.caller).at(row.port, **asked.place)
        if is_named:
            there = there.filter(project=owner)
        if row.service is not None:
            there = there.filter(service_name=asked.service)
        return there.first() or ours.filter(metadata__importedFrom=row.port).first()

    def _is_held(self, port: int, asked: Wish, owner: Project) -> bool:
        """By a service or another project's reservation; one's own reservation gives way to what it was made for."""
        held = PortAllocation.objects.held().at(port, **asked.place)
        return held.exclude(project=owner, status=Status.RESERVED).exists()


def _undisputed(rows: Iterable[Row], report: ImportReport) -> list[Row]:
    """The rows but for those that claim one port for two services. What is there twice is already there later on."""
    claims: dict[tuple[str, str, int], list[Row]] = defaultdict(list)
    free: list[Row] = []
    for row in rows:
        if row.port is None:
            free.append(row)
        else:
            claims[row.hostname.lower(), row.protocol, row.port].append(row)
    for (_, protocol, port), claimed in claims.items():
        if len({(row.project, row.name) for row in claimed}) > 1:
            reason = f"{_listed(claimed)} all claim {port}/{protocol}"
            report.left_out += [Skipped(row.line, f"{row.name} {port}", reason) for row in claimed]
        else:
            free += claimed
    return sorted(free, key=lambda row: row.line)


def _listed(claimed: list[Row]) -> str:
    """`line 1 (a) and line 2 (b)`; of very many only the first, as each of them is told this."""
    lines = [f"line {row.line} ({shown(row.name)})" for row in claimed[:MOST_LISTED]]
    return words.listed([*lines, f"{len(claimed) - MOST_LISTED} more"] if len(claimed) > MOST_LISTED else lines)
