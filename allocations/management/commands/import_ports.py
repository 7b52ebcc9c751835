"""manage.py import_ports: import existing services."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

from django.core.management import CommandParser

from allocations import containers, importers, listeners, schemas
from allocations.errors import InvalidValue, PortError
from allocations.importers import Skipped
from allocations.management.command import PortCommand
from allocations.ports.imports import BATCH, ImportedRow, ImportReport, import_rows

NOTHING_IMPORTED, SOME_LEFT_OUT = 1, 2
MOST_ALIKE = 5  # rows that are left out for one reason and listed one by one


class Command(PortCommand):
    help = "Import existing services. Exit status: 0 all imported, 1 nothing imported, 2 some rows left out."
    example = "sudo lsof -i -P -n | grep LISTEN | manage.py import_ports -"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", nargs="?", metavar="FILE or -", help="the file to read; - is standard input")
        parser.add_argument("--format", choices=[importers.AUTO, *importers.FORMATS], default=importers.AUTO)
        parser.add_argument("--scan", action="store_true", help="import what is listening on this host")
        parser.add_argument("--project", help="the project of rows that name none and whose port lies in no range")
        parser.add_argument("--dry-run", action="store_true", help="print the same report, but write nothing")
        parser.add_argument("--verbose", action="store_true", help="list every row that was left out")
        parser.add_argument("--json", action="store_true", help="print the report as JSON")

    def handle(self, **options: Any) -> None:
        if bool(options["file"]) == options["scan"]:
            raise InvalidValue("Name either a FILE (- is standard input) or --scan.", field="file")
        parsed = self._parse(options)
        report = self._import(parsed, options)
        if options["json"]:
            self.json(schemas.ImportReport.of(report).dump())
        else:
            self._print(report, options["verbose"])
        if not (report.imported or report.moved or report.already):
            raise SystemExit(NOTHING_IMPORTED)
        if report.left_out:
            raise SystemExit(SOME_LEFT_OUT)

    def _import(self, parsed: importers.ParsedInput, options: dict[str, Any]) -> ImportReport:
        """Import the rows. If that ends early, say that the first of them have been imported."""
        done = 0
        try:
            with self.working("Importing", len(parsed.rows)) as show:

                def progress(rows: int) -> None:
                    nonlocal done
                    done = rows
                    show(rows)

                how = {"project": options["project"], "dry_run": options["dry_run"]}
                return import_rows(self.context, parsed, progress=progress, **how)
        except (PortError, KeyboardInterrupt):
            saved = done - done % BATCH
            if saved and not options["dry_run"]:
                self.say(f"{saved} of {len(parsed.rows)} rows are done. Run the same command again to go on.")
            raise

    def _parse(self, options: dict[str, Any]) -> importers.ParsedInput:
        if options["scan"]:
            if reason := listeners.why_processes_are_unknown():
                self.say(f"Only the names of your own processes are known: {reason}.")
            return importers.scan(listeners.listening(), self._containers())
        try:
            return importers.parse(importers.read_source(options["file"]), options["format"])
        except importers.UnreadableInputError as error:
            raise InvalidValue(f"Nothing was imported: {error}.", field="file") from None

    def _containers(self) -> list[containers.Container]:
        """Return the containers on this machine. Say which engines could not be asked."""
        running: list[containers.Container] = []
        for path in containers.sockets():
            try:
                running += containers.running(path)
            except containers.EngineUnavailable as error:
                self.say(f"The names of containers are not known: {error}. Root may ask, for example with sudo.")
        return running

    def _print(self, report: ImportReport, is_verbose: bool) -> None:
        if report.imported:
            self.print("Would be imported" if report.is_dry_run else "Imported")
            self.table(("Port", "Protocol", "Service"), [_columns(i) for i in report.imported], numbers=(0,))
        if moves := _moves(report):
            would = "Would be moved" if report.is_dry_run else "Moves"
            self.print(f"{would}: update the configuration of these services")
            rows = [(i.old, "→", *_columns(i)) for i in moves]
            self.table(("Old", "", "New", "Protocol", "Service"), rows, numbers=(0, 2))
        if report.left_out:
            self.print("Left out")
            self._print_left_out(report, is_verbose)
        would = "would be " if report.is_dry_run else ""
        self.print(
            f"{report.format}: {len(report.imported)} {would}imported, {len(report.moved)} {would}moved, "
            f"{len(report.already)} already there, {len(report.left_out)} left out."
        )
        if report.ignored:
            lines = "line is" if report.ignored == 1 else "lines are"
            self.say(f"{report.ignored} {lines} ignored: headings and connections, not listeners.")

    def _print_left_out(self, report: ImportReport, is_verbose: bool) -> None:
        """Print the rows that were left out. Many that differ in their ports only are one line, except if verbose."""
        alike: dict[str, list[Skipped]] = defaultdict(list)
        for skipped in report.left_out:
            alike[re.sub(r"\bport \d+ ", "it ", skipped.reason)].append(skipped)
        rows: list[tuple[object, str, str]] = []
        for reason, left_out in alike.items():
            if len(left_out) > MOST_ALIKE and not is_verbose:
                rows.append(("", reason, f"{len(left_out)} rows (--verbose lists them)"))
            else:
                rows += [(skipped.line, skipped.reason, skipped.text) for skipped in left_out]
        if report.has_lines:
            self.table(("Line", "Reason", "Row"), rows, numbers=(0,))
        else:
            self.table(("Reason", "Row"), [row[1:] for row in rows])


def _moves(report: ImportReport) -> list[ImportedRow]:
    """Return each move once, including those of an earlier run, whose report may be lost."""
    moved = report.moved + [i for i in report.already if i.old is not None]
    return list({(i.old, i.allocation.pk): i for i in moved}.values())


def _columns(imported: ImportedRow) -> tuple[object, ...]:
    a = imported.allocation
    return (a.port_number, a.protocol, a.label)
