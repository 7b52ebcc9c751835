"""Open files in directories that belong to the account of the server, in which that account can change anything.

If Portal runs as root, a link there would make root read or write the file that it points to, and opening a FIFO would
wait forever.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


class NotOurs(OSError):
    """Raised if a file is not what the server writes: a regular file of its account, under one name."""


@contextmanager
def opened(path: Path, mode: str, owner: int) -> Iterator[IO[str]]:
    """Open a file without following links, neither its own nor that of its directory.

    Args:
        path: the file.
        mode: `r` to read, or `r+` to read and write.
        owner: the id of the account of the server.

    Raises:
        FileNotFoundError: there is no such file.
        NotOurs: it is not a regular file of that account, or it has several names.
    """
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | (os.O_RDWR if "+" in mode else os.O_RDONLY)
    directory = os.open(path.parent, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        descriptor = os.open(path.name, flags, dir_fd=directory)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise NotOurs(error.errno, f"{path} is not a regular file") from error
    finally:
        os.close(directory)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != owner or status.st_nlink != 1:
        os.close(descriptor)
        raise NotOurs(f"{path} is not a regular file that belongs to the account of PostgreSQL")
    with open(descriptor, mode, encoding="utf-8", errors="replace") as file:  # noqa: PTH123 it is a descriptor
        yield file
