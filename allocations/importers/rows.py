"""The result of parsing an input: rows with their line numbers, and rows that were skipped with the reason."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

MAX_EXCERPT_LENGTH = 160
MAX_ROWS = 100_000
MAX_PORTS_PER_ENTRY = 1000


class UnreadableInputError(ValueError):
    """Raised if no row of an input can be used; the message says what is wrong with the input."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sanitize(sentence))


class RowError(ValueError):
    """Raised if a row can't be used; the message says why."""


class UnrecognizedLineError(RowError):
    """Raised if a line isn't in the expected format. An input with many such lines is in another format."""


@dataclass(frozen=True, slots=True)
class Row:
    """One service in an input.

    Names and hosts haven't been validated yet; the import does that. `service` is None if only a process is known. If
    `project_is_hint` is True, the project comes from another program, such as Docker, and is ignored unless Portal has
    a project of that name. If `service_is_hint` is True, so does the name of the service, and whatever holds the port
    already is that service.
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
    project_is_hint: bool = False
    service_is_hint: bool = False

    @property
    def name(self) -> str:
        """Return the name of the service.

        If the input doesn't contain it, derive it from the process and the port only, so that it doesn't depend on the
        other rows.
        """
        if self.service is not None:
            return self.service
        process = re.sub(r"[^a-z0-9._-]+", "-", self.process.lower()).strip("-._") or "port"
        return f"{process[:240]}-{self.port}"


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row that was skipped, and why. Both texts are safe to print, even if the input was malicious."""

    line: int
    text: str
    reason: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", excerpt(self.text))
        object.__setattr__(self, "reason", sanitize(self.reason))


@dataclass(slots=True)
class ParsedInput:
    """The rows of an input, in the given format."""

    format: str
    rows: list[Row] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    # The number of valid lines without a listener, such as headings and established connections.
    ignored: int = 0
    # False for a scan of this host, whose rows have only consecutive numbers.
    has_lines: bool = True
    # The number of skipped lines that aren't in this format.
    unrecognized: int = 0

    @property
    def recognized(self) -> int:
        """Return the number of lines that are in this format, whether or not they can be used."""
        return len(self.rows) + len(self.skipped) - self.unrecognized + self.ignored

    @property
    def is_of_another_format(self) -> bool:
        """Return True if the input is probably in another format and only resembles this one in a few lines."""
        return not self.rows and self.unrecognized > 0 and self.unrecognized >= self.recognized

    def skip(self, line: int, text: str, error: RowError) -> None:
        """Record a row that can't be used."""
        self.skipped.append(Skipped(line, text, str(error)))
        self.unrecognized += isinstance(error, UnrecognizedLineError)


def numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    """Return the lines that aren't blank with their numbers, counted as editors do: a form feed doesn't end a line."""
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        if line.strip():
            yield number, line.rstrip("\n")


def sanitize(text: str) -> str:
    """Replace control characters, bidirectional marks and lone surrogates, so that the text is safe to print."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def excerpt(text: object) -> str:
    """Return a piece of the input as error messages quote it: sanitized and truncated."""
    sanitized = sanitize(str(text))
    return sanitized if len(sanitized) <= MAX_EXCERPT_LENGTH else sanitized[: MAX_EXCERPT_LENGTH - 1] + "…"


def parse_port(address: str) -> int:
    """Return the port of an address such as `*:3000`, `127.0.0.1:3000`, `[::1]:3000` or `:::3000`.

    Raises:
        RowError: the address doesn't end with a port from 1 to 65535.
    """
    _, colon, port = address.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        raise RowError(f"{excerpt(address)} has no port from 1 to 65535")
    return int(port)


def port_span(first: str, last: str) -> range:
    """Return the ports of a span such as `3000-3003`.

    Raises:
        RowError: the span isn't one of 1 to MAX_PORTS_PER_ENTRY ports between 1 and 65535.
    """
    ports = range(int(first), int(last) + 1)
    if not ports or ports[0] < 1 or ports[-1] > 65535 or len(ports) > MAX_PORTS_PER_ENTRY:
        raise RowError(f"{first}-{last} is not a span of at most {MAX_PORTS_PER_ENTRY} ports between 1 and 65535")
    return ports
