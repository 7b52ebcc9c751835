"""JSON, YAML and CSV: lists of `{project, service, port?, type?, …}` that people write."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping
from typing import Any

from .placed import Items, from_json, from_yaml
from .rows import Reading, Row, RowError, Skipped, UnreadableInputError, shown

# What a list may say -> the field of a Row.
KEYS = {
    "project": "project",
    "service": "service",
    "port": "port",
    "type": "service_type",
    "description": "description",
    "hostname": "hostname",
    "protocol": "protocol",
    "cloudflareHostname": "cloudflare_hostname",
}
MOST_ROWS = 100_000


def json_list(text: str) -> Reading:
    """A JSON list of objects, or an object with one under `services` or `allocations`. Ports are JSON numbers."""
    return _reading("json", _entries(from_json(text)), strict=True)


def yaml_list(text: str) -> Reading:
    """The same in YAML. Every value is read as text: no `no` becomes false, no `22:22` a number."""
    return _reading("yaml", _entries(from_yaml(text)), strict=False)


def csv_list(text: str) -> Reading:
    """CSV with a heading of the same names, separated by commas or semicolons."""
    heading = text.split("\n", 1)[0]
    separator = ";" if heading.count(";") > heading.count(",") else ","
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    reading = Reading("csv")
    begin = 1
    try:
        names = [name.strip() for name in next(rows, [])]
        _check_heading(names)
        begin = rows.line_num + 1
        for values in rows:
            line, begin = begin, rows.line_num + 1  # a quoted value may hold line feeds
            if not any(value.strip() for value in values):
                continue
            if len(values) != len(names):
                reason = f"{len(values)} columns instead of {len(names)}"
                reading.skipped.append(Skipped(line, separator.join(values), reason))
                continue
            entry = {name: value.strip() for name, value in zip(names, values, strict=True) if value.strip()}
            _add(reading, line, entry, strict=False)
    except csv.Error as error:
        reading.skipped.append(Skipped(begin, "", f"{error}: from here on the rest was not read"))
    return reading


def _check_heading(names: list[str]) -> None:
    if double := {name for name in names if names.count(name) > 1}:
        raise UnreadableInputError(f"the heading names {', '.join(sorted(map(shown, double)))} twice")
    if unknown := [name for name in names if name not in KEYS]:
        raise UnreadableInputError(f"the heading names {shown(unknown[0])}; known are {', '.join(KEYS)}")
    if "service" not in names and "port" not in names:
        raise UnreadableInputError("the heading names neither service nor port")


def _entries(found: Any) -> Items:
    if isinstance(found, dict):
        found = next((found[key] for key in ("services", "allocations") if isinstance(found.get(key), Items)), found)
    if not isinstance(found, Items):
        raise UnreadableInputError("not a list of services, nor an object with one under `services` or `allocations`")
    if len(found) > MOST_ROWS:
        raise UnreadableInputError(f"{len(found)} rows are too many: at most {MOST_ROWS}")
    return found


def _reading(name: str, entries: Items, strict: bool) -> Reading:
    reading = Reading(name)
    for line, entry in entries.placed():
        if isinstance(entry, dict):
            _add(reading, line, entry, strict)
        else:
            reading.skipped.append(Skipped(line, str(entry), "not an object with project, service and port"))
    return reading


def _add(reading: Reading, line: int, entry: Mapping[Any, Any], strict: bool) -> None:
    try:
        reading.rows.append(_row(line, entry, strict))
    except RowError as error:
        reading.leave_out(line, str(entry), error)


def _row(line: int, entry: Mapping[Any, Any], strict: bool) -> Row:
    fields: dict[str, Any] = {}
    for key, value in entry.items():
        if key not in KEYS:
            raise RowError(f"unknown key {shown(key)}; known are {', '.join(KEYS)}")
        if value is None or (not strict and value in ("", "~", "null")):
            continue
        fields[KEYS[key]] = _port(value, strict) if key == "port" else _text(key, value)
    if "service" not in fields and "port" not in fields:
        raise RowError("neither service nor port is given")
    return Row(line, **fields)


def _text(key: Any, value: object) -> str:
    if not isinstance(value, str):
        raise RowError(f"{key} must be text, not {shown(json.dumps(value, default=str))}")
    return value


def _port(value: object, strict: bool) -> int:
    if not strict and isinstance(value, str) and re.fullmatch(r"[0-9]{1,6}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 65535:
        given = json.dumps(value, default=str)
        raise RowError(f"port must be a whole number from 1 to 65535, not {shown(given)}")
    return value
