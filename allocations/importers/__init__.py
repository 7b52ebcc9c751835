"""What people have, read into rows: one module per family of formats, and a table of them. Pure: no database."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from .formats import FORMATS, read_as, recognise
from .rows import Reading, Row, Skipped, UnreadableInputError, shown
from .sockets import scan

__all__ = [
    "AUTO",
    "FORMATS",
    "Reading",
    "Row",
    "Skipped",
    "UnreadableInputError",
    "read",
    "read_source",
    "scan",
    "shown",
]

AUTO = "auto"
LARGEST_INPUT = 10 * 1024 * 1024  # bytes


def read(data: bytes, format: str = AUTO) -> Reading:
    """Read an input.

    Args:
        format: a name of FORMATS, or auto: the one in which most of it makes sense.

    Raises:
        UnreadableInputError: it is no text, too large, empty, or of none of the formats.
    """
    text = _text(data)
    return recognise(text) if format == AUTO else read_as(format, text)


def _text(data: bytes) -> str:
    if len(data) > LARGEST_INPUT:
        raise UnreadableInputError(f"the input is larger than {LARGEST_INPUT // 1024 // 1024} MB")
    if b"\0" in data or data.startswith((b"\x1f\x8b", b"\x89PNG", b"\x7fELF", b"PK\x03\x04")):
        raise UnreadableInputError("the input is not text")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableInputError(
            f"the input is not UTF-8 text: byte {error.start} is {data[error.start]:#04x}"
        ) from None
    if not text.strip():
        raise UnreadableInputError("the input is empty: no rows")
    return text


def read_source(name: str) -> bytes:
    """The bytes of a file, or of standard input for `-`; at most a little more than is accepted.

    Raises:
        UnreadableInputError: it is missing, unreadable, or no plain file.
    """
    if name == "-":
        return sys.stdin.buffer.read(LARGEST_INPUT + 1)
    try:
        if not stat.S_ISREG(os.stat(name).st_mode):  # noqa: PTH116 before anything is opened: a FIFO would block
            raise UnreadableInputError(f"{name} is not a file")
        with Path(name).open("rb") as file:
            return file.read(LARGEST_INPUT + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, UnreadableInputError):
            raise
        said = error.strerror if isinstance(error, OSError) else "not a file name"
        raise UnreadableInputError(f"{name} cannot be read: {said}") from None
