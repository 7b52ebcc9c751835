"""What an importer delivers: rows with the lines on which they begin, and what was left out and why."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

LONGEST_SHOWN = 160


class UnreadableInputError(ValueError):
    """The whole input is no use; the sentence says what was expected."""

    def __init__(self, sentence: str) -> None:
        super().__init__(harmless(sentence))


class RowError(ValueError):
    """One row is no use; the sentence says why."""


class ForeignLineError(RowError):
    """A line that is nothing of the format. An input of many such lines is of another format."""


@dataclass(frozen=True, slots=True)
class Row:
    """One service as the input tells of it. Names and hosts are not checked yet: PortManager does that.

    `service` is None where only a process is known. `is_hint`: the project is a name from elsewhere (Docker,
    Compose), which counts only if Portal knows it.
    """

    line: int
    service: str | None = None
    project: str | None = None
    port: int | None = None
    service_type: str = ""
    description: str = ""
    hostname: str = "localhost"
    protocol: str = "tcp"
    cloudflare_hostname: str | None = None
    process: str = ""
    is_hint: bool = False

    @property
    def name(self) -> str:
        """The service's name: as given, or from the process and the port, whatever else the input holds."""
        if self.service is not None:
            return self.service
        process = re.sub(r"[^a-z0-9._-]+", "-", self.process.lower()).strip("-._") or "port"
        return f"{process[:240]}-{self.port}"


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row that was left out. However it came here, what it says may be printed: input is not to be trusted."""

    line: int
    text: str
    reason: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", shown(self.text))
        object.__setattr__(self, "reason", harmless(self.reason))


@dataclass(slots=True)
class Reading:
    """What was read of an input."""

    format: str
    rows: list[Row] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    # Lines that are no listeners (established connections): counted, and no fault of the input.
    passed_over: int = 0
    # Whether it was a text: the rows of a scan are only numbered.
    has_lines: bool = True
    # How many of those that were skipped are nothing of this format.
    foreign: int = 0

    @property
    def understood(self) -> int:
        """How much of it is of this format, whether it is of use or not."""
        return len(self.rows) + len(self.skipped) - self.foreign + self.passed_over

    @property
    def is_of_another_format(self) -> bool:
        """Whether it looks like something else, in which some line may look like this by chance."""
        return not self.rows and self.foreign > 0 and self.foreign >= self.understood

    def leave_out(self, line: int, text: str, error: RowError) -> None:
        """Skip a row, for the reason that its error tells."""
        self.skipped.append(Skipped(line, text, str(error)))
        self.foreign += isinstance(error, ForeignLineError)


def numbered(text: str) -> Iterator[tuple[int, str]]:
    """The lines of a text that are not blank, with their numbers as editors count: a form feed ends no line."""
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        if line.strip():
            yield number, line.rstrip("\n")


def harmless(text: str) -> str:
    """The text without what a terminal obeys or UTF-8 cannot carry: controls, marks of direction, lone surrogates."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def shown(text: object) -> str:
    """A piece of the input as a sentence shows it: short and harmless."""
    plain = harmless(str(text))
    return plain if len(plain) <= LONGEST_SHOWN else plain[: LONGEST_SHOWN - 1] + "…"


def port_of(text: str) -> int:
    """The port in an address such as `*:3000`, `127.0.0.1:3000`, `[::1]:3000` or `:::3000`.

    Raises:
        RowError: there is none.
    """
    _, colon, port = text.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        raise RowError(f"{shown(text)} has no port from 1 to 65535")
    return int(port)
