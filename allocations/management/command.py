"""The base class of Portal's commands: errors on one line, JSON, tables, and help with an example."""

from __future__ import annotations

import argparse
import csv
import getpass
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management import BaseCommand, CommandError, CommandParser
from django_rich.management import RichCommand
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from allocations import validators
from allocations.errors import PortError, Unavailable
from allocations.ports.db_errors import translated
from allocations.ports.operations import Context
from portal.embedded.server import Server
from portal.streams import OutputError

REFUSED, INTERRUPTED = 1, 130


def unix_user() -> str:
    """Return the user who runs the command, as the history names them: `cli:anna`."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # in a container, a uid may have no name
        return f"cli:{os.getuid()}"


class HelpfulCommand(BaseCommand):
    """A command whose help ends with an example, and lists no options that are the same for all commands."""

    example = ""
    # Django's options work, but --help lists only those of the command.
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


class PortCommand(HelpfulCommand, RichCommand):
    """A command that parses its arguments, calls one operation and prints the result.

    Subclasses set `help` and `example`, and print with `print` (standard output), `say` (standard error), `table` and
    `json`. A PortError is printed as one line on standard error, with exit status `refused`.
    """

    refused = REFUSED
    # The exit status if standard output is full.
    unwritable = REFUSED
    # Whether the command may run before Portal has been set up.
    sets_up = False
    # Commands do not need the system checks of the pages and the admin.
    requires_system_checks: tuple[str, ...] = ()

    def execute(self, *args: Any, **options: Any) -> str | None:
        try:
            self._refuse_missing_portal()
            with translated():
                try:
                    return super().execute(*args, **options)
                finally:
                    sys.stdout.flush()
        except (PortError, ImproperlyConfigured) as error:
            if options.get("traceback"):
                raise
            refusal = error if isinstance(error, PortError) else Unavailable(str(error))
            self._end(refusal.sentence, self.on_refusal(refusal, **options))
        except KeyboardInterrupt:
            self._end("Stopped.", INTERRUPTED)
        except OutputError as error:
            self._end(str(error), self.unwritable)
        return None

    def _refuse_missing_portal(self) -> None:
        """Refuse to run if PORTAL_HOME contains no Portal, instead of setting up an empty one in the wrong place.

        Raises:
            Unavailable: the sentence says where one is.
        """
        home = settings.PORTAL_HOME
        if self.sets_up or not settings.EMBEDDED_DATABASE:
            return
        try:
            if Server(home).data.exists():
                return
        except PermissionError:  # it belongs to somebody else; the first connection reports that
            return
        homes = [path for path in (settings.BASE_DIR / ".portal", Path("/var/lib/portal")) if path.exists()]
        hint = "".join(f" There is one in {path}: PORTAL_HOME={path}." for path in homes if path != home)
        raise Unavailable(
            f"There is no Portal in {home}: run `make up` to set one up, or set PORTAL_HOME to the directory of yours, "
            f"in the environment or in .env.{hint}"
        )

    def on_refusal(self, refusal: PortError, **options: Any) -> int:
        """Return the exit status for a refusal. A command that reports refusals as JSON prints it here."""
        return self.refused

    def _end(self, sentence: str, status: int) -> None:
        if not getattr(self, "_called_from_command_line", False):
            raise CommandError(sentence, returncode=status)
        if sentence:
            self.stderr.write(sentence)
        sys.exit(status)

    @property
    def context(self) -> Context:
        """Return the context of whoever runs the command, who has all rights."""
        return Context.trusted(unix_user(), "shell")

    # Arguments that name one allocation of a service

    def add_service(self, parser: CommandParser) -> None:
        """Add the arguments that name one of the ports that a service holds; `which()` reads them."""
        parser.add_argument("project")
        parser.add_argument("service")
        parser.add_argument("--instance", type=int, metavar="N", help="which one, if the service holds several ports")
        parser.add_argument("--host", dest="hostname", metavar="HOST", help="which one, if it runs on several hosts")
        parser.add_argument("--protocol", choices=validators.PROTOCOLS, help="which one, if it holds both")

    def which(self, options: dict[str, Any]) -> dict[str, Any]:
        """Return which of its ports is meant, as the operations take it."""
        return {name: options[name] for name in ("instance", "hostname", "protocol")}

    # Output. Results go to standard output, everything else to standard error.

    def print(self, text: object) -> None:
        """Print a line of the result as it is, without markup or wrapping."""
        self.stdout.write(str(text))

    def json(self, value: object) -> None:
        """Print the result as readable JSON, with control characters escaped."""
        written = json.dumps(value, indent=2, ensure_ascii=False)
        self.print(re.sub(r"[^\n -~]", lambda c: c[0] if c[0].isprintable() else json.dumps(c[0])[1:-1], written))

    def csv(self, headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Print the result as CSV that is safe to open in a spreadsheet."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(headings)
        writer.writerows([_escape_formula(cell) for cell in row] for row in rows)
        self.print(text.getvalue().rstrip("\n"))

    def table(self, headings: Sequence[str], rows: Iterable[Sequence[object]], numbers: Sequence[int] = ()) -> None:
        """Print the result as a table on a terminal, or as columns of plain text in a pipe.

        Args:
            numbers: the indexes of the right-aligned columns.
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
        """Print a remark for people on standard error."""
        self.stderr.write(text, lambda line: line)

    @contextmanager
    def working(self, what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Show a progress bar on standard error during long work, but nothing in a pipe or under cron.

        Args:
            total: how many steps there are, if that is known.

        Returns:
            a function to call with the number of steps that are done.
        """
        errors = Console(stderr=True)
        if not errors.is_terminal:  # Progress would print an empty line, and cron would mail it
            yield lambda done: None
            return
        columns = [TextColumn(what), BarColumn(), *([MofNCompleteColumn()] if total else []), TimeElapsedColumn()]
        with Progress(*columns, console=errors, transient=True) as progress:
            task = progress.add_task(what, total=total)
            yield lambda done: progress.update(task, completed=done)


def bar(percent: int, width: int = 10) -> str:
    """Return a bar such as `████░░░░` for a utilization in percent. Anything above 0 shows at least one block."""
    full = min(width, max(1 if percent else 0, round(percent * width / 100)))
    return "█" * full + "░" * (width - full)


def _escape_formula(cell: object) -> str:
    """Quote a cell that begins like a formula, because a spreadsheet would run it."""
    text = "" if cell is None else str(cell)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
