"""Standard streams of commands that may be closed, full, cut off, or in an encoding without some characters."""

import io
import os
import select
import sys


class OutputError(Exception):
    """Standard output cannot be written. The text says why."""


class _Output(io.FileIO):
    """An output that goes on if nobody reads it any more, as in `manage.py audit | head -1`.

    So the exit status of a command does not depend on its reader.
    """

    def __init__(self, descriptor: int, *, is_needed: bool) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.is_needed = is_needed
        self.has_failed = False

    def write(self, data: object) -> int:
        size = memoryview(data).nbytes  # type: ignore[arg-type]
        try:
            while not self.has_failed:
                written: int | None = super().write(data)  # type: ignore[arg-type]
                if written is not None:
                    return written
                select.select([], [self], [])  # somebody has made it non-blocking, and it is full
        except BrokenPipeError:
            self.has_failed = True
        except OSError as error:
            self.has_failed = True
            if self.is_needed:
                raise OutputError(f"Standard output cannot be written: {error.strerror}.") from None
        return size


def prepare() -> None:
    """Make the standard streams of this process safe to use, at its start."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, which is this one
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = _text(1, sys.stdout, is_needed=True)
    sys.stderr = _text(2, sys.stderr, is_needed=False)


def _text(descriptor: int, before: "io.TextIOBase | object | None", *, is_needed: bool) -> io.TextIOWrapper:
    output = _Output(descriptor, is_needed=is_needed)
    is_interactive = descriptor == 2 or output.isatty()
    return io.TextIOWrapper(
        io.BufferedWriter(output),
        encoding=getattr(before, "encoding", None) or "utf-8",
        errors="backslashreplace",
        line_buffering=is_interactive,
    )
