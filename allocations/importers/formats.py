"""The supported formats, and the detection of the format of an input."""

from __future__ import annotations

import re
from collections.abc import Callable

from .caddy import DIRECTIVES, caddyfile
from .containers import compose, docker
from .lists import KEYS, csv_list, json_list, yaml_list
from .nginx import nginx
from .rows import MAX_ROWS, ParsedInput, UnreadableInputError
from .sockets import lsof, netstat, ss
from .tunnels import cloudflared

FORMATS: dict[str, Callable[[str], ParsedInput]] = {
    "lsof": lsof,
    "ss": ss,
    "netstat": netstat,
    "docker": docker,
    "compose": compose,
    "cloudflared": cloudflared,
    "nginx": nginx,
    "caddyfile": caddyfile,
    "json": json_list,
    "yaml": yaml_list,
    "csv": csv_list,
}
# What stands in every input of a format. Reading 7 MB in each of these takes seconds, so others are not tried.
MARKS = {
    "compose": re.compile(r"services"),
    "cloudflared": re.compile(r"ingress"),
    "nginx": re.compile(r"\blisten\b|_pass\b"),
    "caddyfile": re.compile(rf"^\s*(?:{'|'.join(sorted(DIRECTIVES))})\b", re.MULTILINE),
}
# How an input of each format begins. If an input can't be parsed, the first match decides which error to report.
BEGINNINGS = {
    "nginx": re.compile(r"(?:\s*#.*\n)*\s*(?:server|http|stream|upstream|user|events|worker_processes)\b[^:\n]*[{;]"),
    "json": re.compile(r"\s*[\[{]"),
    "yaml": re.compile(r"(?:[ \t]*(?:#.*)?\n)*(?:---|- |[\w.-]+:(?:\s|\Z))"),
    "csv": re.compile(rf"[^\n]*[,;]|\s*(?:{'|'.join(KEYS)})\s*$", re.MULTILINE),
}


def parse_as(format: str, text: str) -> ParsedInput:
    """Parse a text in the given format, a key of FORMATS.

    Raises:
        UnreadableInputError: the text isn't in that format or contains no rows.
    """
    return _require_rows(FORMATS[format](text))


def detect_and_parse(text: str) -> ParsedInput:
    """Parse a text in the format that yields the most rows; of several, the first in FORMATS.

    Raises:
        UnreadableInputError: the text isn't in any of the formats or contains no rows.
    """
    candidates, errors = [], {}
    for name in _possible_formats(text):
        try:
            parsed = FORMATS[name](text)
        except UnreadableInputError as error:
            errors[name] = error
        else:
            candidates += [] if parsed.is_of_another_format else [parsed]
    if candidates:
        return _require_rows(max(candidates, key=lambda parsed: (len(parsed.rows), parsed.recognized)))
    for name, beginning in BEGINNINGS.items():
        if name in errors and beginning.match(text):
            raise UnreadableInputError(f"{errors[name]} (read as {name}; if that is wrong, use --format)")
    raise UnreadableInputError(
        f"the input contains no rows in any known format (tried {', '.join(FORMATS)}); use --format to see why"
    )


def _possible_formats(text: str) -> list[str]:
    """Return the formats to try: those whose mark stands in the text.

    A text that begins like JSON isn't tried as YAML, which would accept invalid JSON, such as trailing commas and ports
    in quotes.
    """
    left_out = {"yaml", "csv"} if BEGINNINGS["json"].match(text) else set()
    left_out |= {name for name, mark in MARKS.items() if not mark.search(text)}
    return [name for name in FORMATS if name not in left_out]


def _require_rows(parsed: ParsedInput) -> ParsedInput:
    count = len(parsed.rows) + len(parsed.skipped)
    if not count:
        raise UnreadableInputError(f"the input contains no rows ({parsed.format})")
    if count > MAX_ROWS:
        raise UnreadableInputError(f"the input contains {count} rows, but at most {MAX_ROWS} are allowed: split it")
    return parsed
