"""What Portal's commands share: one line instead of a traceback, JSON, tables, and help with an example."""

from __future__ import annotations

import argparse
import csv
import getpass
import io
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, CommandParser
from django.db import Error as DatabaseFault
from django_rich.management import RichCommand
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from allocations.errors import PortError, Unavailable
from allocations.ports import PortManager
from allocations.ports.refusals import refusal_of
from portal.embedded.server import Server

REFUSED, INTERRUPTED = 1, 130


def unix_user() -> str:
    """Who runs the command, for the history: `cli:robert`."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # a uid without a name, in a container
        return f"cli:{os.getuid()}"


class PortCommand(RichCommand):
    """A command that parses, calls one operation and prints its result.

    Subclasses set `help` and `example`, and print with `print` (standard output), `say` (standard error), `table` and
    `json`. A PortError becomes its sentence on standard error and exit status `refused`.
    """

    example = ""
    refused = REFUSED
    # Whether it may begin where no Portal is yet.
    sets_up = False
    # The registry's commands need no check of pages and admin before they may run.
    requires_system_checks: tuple[str, ...] = ()
    # They work, but are Django's, not Portal's: --help tells of Portal.
    suppressed_base_arguments = {
        "--version",
        "--settings",
        "--pythonpath",
        "--traceback",
        "--no-color",
        "--force-color",
        "--verbosity",
        "-v",
    }

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        epilog = f"example:\n  {self.example}" if self.example else ""
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        return super().create_parser(prog_name, subcommand, epilog=epilog, **kwargs)

    def execute(self, *args: Any, **options: Any) -> str | None:
        try:
            self._refuse_nowhere()
            return super().execute(*args, **options)
        except (PortError, DatabaseFault, ImproperlyConfigured) as error:
            refusal = self._refusal(error)
            if refusal is None or options.get("traceback"):
                raise
            self._end(refusal.sentence, self.on_refusal(refusal, **options))
        except KeyboardInterrupt:
            self._end("Stopped.", INTERRUPTED)
        except BrokenPipeError:  # `| head` has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            self._end("", 0)
        return None

    def _refuse_nowhere(self) -> None:
        """A shell that looks in the wrong place is told so, instead of being given a new, empty Portal there."""
        home = settings.PORTAL_HOME
        if self.sets_up or not settings.EMBEDDED_DATABASE:
            return
        try:
            if Server(home).data.exists():
                return
        except PermissionError:  # somebody else's: the first connection says so
            return
        others = [path for path in (settings.BASE_DIR / ".portal", Path("/var/lib/portal")) if path.exists()]
        there = "".join(f" There is one in {path}: PORTAL_HOME={path}." for path in others if path != home)
        raise Unavailable(
            f"There is no Portal in {home}: run `make up` to set one up there, or set PORTAL_HOME to where yours is, "
            f"in the environment or in .env.{there}"
        )

    def on_refusal(self, refusal: PortError, **options: Any) -> int:
        """The exit status for a refusal; a command that promises JSON prints it here."""
        return self.refused

    def _refusal(self, error: Exception) -> PortError | None:
        if isinstance(error, PortError):
            return error
        if isinstance(error, DatabaseFault):
            return refusal_of(error)
        return Unavailable(str(error))

    def _end(self, sentence: str, status: int) -> None:
        if not getattr(self, "_called_from_command_line", False):
            raise CommandError(sentence, returncode=status)
        if sentence:
            self.stderr.write(sentence)
        sys.exit(status)

    @property
    def ports(self) -> PortManager:
        """The manager in the name of whoever runs the command."""
        return PortManager(actor=unix_user(), source="shell")

    # Output. Results go to standard output, everything else to standard error.

    def print(self, text: object) -> None:
        """A line of the result, as it is: no markup, no wrapping."""
        self.stdout.write(str(text))

    def json(self, value: object) -> None:
        """The result as JSON, legible to people; what a terminal would obey is escaped."""
        written = json.dumps(value, indent=2, ensure_ascii=False)
        self.print(re.sub(r"[^\n -~]", lambda c: c[0] if c[0].isprintable() else json.dumps(c[0])[1:-1], written))

    def csv(self, headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """The result as CSV, safe to open in a spreadsheet."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(headings)
        writer.writerows([_harmless(cell) for cell in row] for row in rows)
        self.print(text.getvalue().rstrip("\n"))

    def table(self, headings: Sequence[str], rows: Iterable[Sequence[object]], numbers: Sequence[int] = ()) -> None:
        """The result as a table on a terminal, as columns of plain text in a pipe.

        Args:
            numbers: which columns are right-aligned.
        """
        written = [["" if cell is None else str(cell) for cell in row] for row in rows]
        if self.console.is_terminal:
            drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
            for place, heading in enumerate(headings):
                drawn.add_column(heading, justify="right" if place in numbers else "left", overflow="fold")
            for row in written:
                drawn.add_row(*(escape(cell) for cell in row))
            self.console.print(drawn)
            return
        widths = [max(map(len, column)) for column in zip(headings, *written, strict=True)]
        for row in [list(headings), *written]:
            cells = (
                c.rjust(w) if i in numbers else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
            )
            self.print("  ".join(cells).rstrip())

    def say(self, text: str) -> None:
        """A remark on standard error, for people."""
        self.stderr.write(text, lambda line: line)

    @contextmanager
    def working(self, what: str) -> Iterator[None]:
        """A moving bar on standard error while something takes its time; in a pipe or under cron, nothing."""
        errors = Console(stderr=True)
        if not errors.is_terminal:  # Progress would leave an empty line, and cron sends a mail for less
            yield
            return
        with Progress(TextColumn(what), BarColumn(), TimeElapsedColumn(), console=errors, transient=True) as progress:
            progress.add_task(what, total=None)
            yield


def bar(percent: int, width: int = 10) -> str:
    """`████░░░░` for a utilisation in percent; anything held shows. Short enough for a table in 80 columns."""
    full = min(width, max(1 if percent else 0, round(percent * width / 100)))
    return "█" * full + "░" * (width - full)


def _harmless(cell: object) -> str:
    """A spreadsheet runs a cell that begins like a formula."""
    text = "" if cell is None else str(cell)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
