"""The formats that can be read, and which of them an input is."""

from __future__ import annotations

import re
from collections.abc import Callable

from .containers import compose, docker
from .lists import KEYS, csv_list, json_list, yaml_list
from .rows import Reading, UnreadableInputError
from .sockets import lsof, netstat, ss

FORMATS: dict[str, Callable[[str], Reading]] = {
    "lsof": lsof,
    "ss": ss,
    "netstat": netstat,
    "docker": docker,
    "compose": compose,
    "json": json_list,
    "yaml": yaml_list,
    "csv": csv_list,
}
# What an input is meant to be of which nothing can be read: how it begins. The first that fits says what is wrong.
LOOKS = {
    "json": re.compile(r"\s*[\[{]"),
    "yaml": re.compile(r"(?:[ \t]*(?:#.*)?\n)*(?:---|- |[\w.-]+:(?:\s|\Z))"),
    "csv": re.compile(rf"[^\n]*[,;]|\s*(?:{'|'.join(KEYS)})\s*$", re.MULTILINE),
}


def read_as(format: str, text: str) -> Reading:
    """Read a text in a format that somebody named.

    Raises:
        UnreadableInputError: it is not of that format, or holds no rows.
    """
    return _with_rows(FORMATS[format](text))


def recognise(text: str) -> Reading:
    """Read a text in the format in which most of it makes sense; of equals, the first of FORMATS.

    Raises:
        UnreadableInputError: there is none; or it holds no rows, and none that were left out for a reason.
    """
    readings, complaints = [], {}
    for name in _candidates(text):
        try:
            reading = FORMATS[name](text)
        except UnreadableInputError as error:
            complaints[name] = error
        else:
            readings += [] if reading.is_of_another_format else [reading]
    if readings:
        return _with_rows(max(readings, key=lambda reading: (len(reading.rows), reading.understood)))
    for name, looks in LOOKS.items():
        if name in complaints and looks.match(text):
            complaint = f"{complaints[name]} (taken for {name}: if it is something else, name its --format)"
            raise UnreadableInputError(complaint)
    raise UnreadableInputError(
        f"the input holds no rows of any known format (tried {', '.join(FORMATS)}): name its --format to hear more"
    )


def _candidates(text: str) -> list[str]:
    """JSON that is wrong would be good YAML: trailing commas, ports as text. It is never read as that unasked."""
    if LOOKS["json"].match(text):
        return [name for name in FORMATS if name not in ("yaml", "csv")]
    return list(FORMATS)


def _with_rows(reading: Reading) -> Reading:
    if not reading.rows and not reading.skipped:
        raise UnreadableInputError(f"the input holds no rows ({reading.format})")
    return reading
