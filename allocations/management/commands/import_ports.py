"""manage.py import_ports: take over services that exist already."""

from __future__ import annotations

from typing import Any

from django.core.management import CommandParser

from allocations import importers, listeners, payloads
from allocations.errors import InvalidValue
from allocations.importers import Skipped
from allocations.management.command import PortCommand
from allocations.ports import Imported, ImportReport

NOTHING, SOME_LEFT_OUT = 1, 2


class Command(PortCommand):
    help = "Take over existing services. Exit status 0: all are in, 1: nothing was imported, 2: some were left out."
    example = "sudo lsof -i -P -n | grep LISTEN | manage.py import_ports -"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", nargs="?", metavar="FILE or -", help="what to read; - is standard input")
        parser.add_argument("--format", choices=[importers.AUTO, *importers.FORMATS], default=importers.AUTO)
        parser.add_argument("--scan", action="store_true", help="instead of a file: what listens on this host now")
        parser.add_argument("--project", help="for rows that name none and whose port lies in no range")
        parser.add_argument("--dry-run", action="store_true", help="print the same report, and write nothing")
        parser.add_argument("--json", action="store_true", help="print the report as JSON")

    def handle(self, **options: Any) -> None:
        if bool(options["file"]) == options["scan"]:
            raise InvalidValue("Name either a FILE (- is standard input) or --scan.", field="file")
        reading = self._reading(options)
        with self.working(f"Importing {len(reading.rows)} rows"):
            report = self.ports.import_rows(reading, project=options["project"], dry_run=options["dry_run"])
        if options["json"]:
            self.json(_payload(report))
        else:
            self._tell(report)
        if not (report.imported or report.moved or report.already):
            raise SystemExit(NOTHING)
        if report.left_out:
            raise SystemExit(SOME_LEFT_OUT)

    def _reading(self, options: dict[str, Any]) -> importers.Reading:
        if options["scan"]:
            if not listeners.sees_all_owners():
                self.say("Only your own processes are named: run as root to see those of other users.")
            return importers.scan(listeners.listening())
        try:
            return importers.read(importers.read_source(options["file"]), options["format"])
        except importers.UnreadableInputError as error:
            raise InvalidValue(f"Nothing was imported: {error}.", field="file") from None

    def _tell(self, report: ImportReport) -> None:
        if report.imported:
            self.print("Imported")
            self.table(("Port", "Protocol", "Service"), [_columns(i) for i in report.imported], numbers=(0,))
        if moves := _moves(report):
            self.print("Moves: update the configuration of these services")
            rows = [(i.old, "→", *_columns(i)) for i in moves]
            self.table(("Old", "", "New", "Protocol", "Service"), rows, numbers=(0, 2))
        if report.left_out:
            self.print("Left out")
            self._tell_left_out(report)
        would = "would be " if report.is_dry_run else ""
        self.print(
            f"{report.format}: {len(report.imported)} {would}imported, {len(report.moved)} {would}moved, "
            f"{len(report.already)} already there, {len(report.left_out)} left out."
        )
        if report.passed_over:
            lines = "line is" if report.passed_over == 1 else "lines are"
            self.say(f"{report.passed_over} {lines} passed over: headings and connections, no listeners.")

    def _tell_left_out(self, report: ImportReport) -> None:
        if report.has_lines:
            rows = [(s.line, s.reason, s.text) for s in report.left_out]
            self.table(("Line", "Reason", "Row"), rows, numbers=(0,))
        else:
            self.table(("Reason", "Row"), [(s.reason, s.text) for s in report.left_out])


def _moves(report: ImportReport) -> list[Imported]:
    """Each move once, also those of an earlier run: its list is lost."""
    moved = report.moved + [i for i in report.already if i.old is not None]
    return list({(i.old, i.allocation.pk): i for i in moved}.values())


def _columns(imported: Imported) -> tuple[object, ...]:
    a = imported.allocation
    return (a.port_number, a.protocol, a.label)


def _payload(report: ImportReport) -> dict[str, Any]:
    def line(of: Imported | Skipped) -> int | None:
        return of.line if report.has_lines else None

    def rows(found: list[Imported]) -> list[dict[str, Any]]:
        return [{"line": line(i), "old": i.old, **payloads.allocation(i.allocation)} for i in found]

    return {
        "success": True,
        "format": report.format,
        "dryRun": report.is_dry_run,
        "imported": rows(report.imported),
        "moved": rows(report.moved),
        "already": rows(report.already),
        "leftOut": [{"line": line(s), "reason": s.reason, "row": s.text} for s in report.left_out],
    }
