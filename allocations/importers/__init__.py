"""Parse the output of other programs, and lists that people write, into rows that can be imported.

There is one module for each family of formats, and `FORMATS` lists them all. Everything here is pure: it doesn't use
the database.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from .formats import FORMATS, detect_and_parse, parse_as
from .rows import ParsedInput, Row, Skipped, UnreadableInputError, excerpt
from .sockets import scan

__all__ = [
    "AUTO",
    "FORMATS",
    "ParsedInput",
    "Row",
    "Skipped",
    "UnreadableInputError",
    "excerpt",
    "parse",
    "read_source",
    "scan",
]

AUTO = "auto"
MAX_INPUT_SIZE = 10 * 1024 * 1024  # bytes


def parse(data: bytes, format: str = AUTO) -> ParsedInput:
    """Parse an input into rows.

    Args:
        data: the whole input.
        format: a key of FORMATS, or "auto" to detect the format.

    Raises:
        UnreadableInputError: the input is empty, too large, not text, or not in the given format or any other.
    """
    text = _decode(data)
    return detect_and_parse(text) if format == AUTO else parse_as(format, text)


def _decode(data: bytes) -> str:
    if len(data) > MAX_INPUT_SIZE:
        raise UnreadableInputError(f"the input is larger than {MAX_INPUT_SIZE // 1024 // 1024} MB")
    if b"\0" in data or data.startswith((b"\x1f\x8b", b"\x89PNG", b"\x7fELF", b"PK\x03\x04")):
        raise UnreadableInputError("the input is not text")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableInputError(
            f"the input is not UTF-8 text: byte {error.start} is {data[error.start]:#04x}"
        ) from None
    if not text.strip():
        raise UnreadableInputError("the input is empty")
    return text


def read_source(name: str) -> bytes:
    """Return the content of a file, or of standard input if the name is "-".

    No more than one byte above the accepted size is read.

    Raises:
        UnreadableInputError: the file doesn't exist, can't be read or isn't a regular file.
    """
    try:
        if name == "-":
            return sys.stdin.buffer.read(MAX_INPUT_SIZE + 1)
        if not stat.S_ISREG(os.stat(name).st_mode):  # noqa: PTH116 checked first, because opening a FIFO would block
            raise UnreadableInputError(f"{name} is not a file")
        with Path(name).open("rb") as file:
            return file.read(MAX_INPUT_SIZE + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, UnreadableInputError):
            raise
        reason = error.strerror if isinstance(error, OSError) else "not a valid file name"
        source = "standard input" if name == "-" else name
        raise UnreadableInputError(f"{source} cannot be read: {reason}") from None
