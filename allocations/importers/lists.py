"""Parse lists of services that people write as JSON, YAML or CSV."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping
from typing import Any

from .positions import ListWithLines, load_json, load_yaml
from .rows import ParsedInput, Row, RowError, Skipped, UnreadableInputError, excerpt

# The keys of an entry, as the API names them, and the fields of Row that they fill.
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


def json_list(text: str) -> ParsedInput:
    """Parse a JSON list of objects, or an object with such a list under `services` or `allocations`.

    Ports must be numbers, not strings.
    """
    return _parse_entries("json", _entries(load_json(text)), strict=True)


def yaml_list(text: str) -> ParsedInput:
    """Parse a YAML list of the same structure. All values are read as text, so ports may be quoted."""
    return _parse_entries("yaml", _entries(load_yaml(text)), strict=False)


def csv_list(text: str) -> ParsedInput:
    """Parse CSV, separated by commas or semicolons, with a header that contains the same keys."""
    header = text.split("\n", 1)[0]
    separator = ";" if header.count(";") > header.count(",") else ","
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    parsed = ParsedInput("csv")
    begin = 1
    try:
        names = [name.strip() for name in next(rows, [])]
        _check_header(names)
        begin = rows.line_num + 1
        for values in rows:
            line, begin = begin, rows.line_num + 1  # a row spans several lines if a quoted value contains line feeds
            if not any(value.strip() for value in values):
                continue
            if len(values) != len(names):
                reason = f"{len(values)} columns instead of {len(names)}"
                parsed.skipped.append(Skipped(line, separator.join(values), reason))
                continue
            entry = {name: value.strip() for name, value in zip(names, values, strict=True) if value.strip()}
            _add_row(parsed, line, entry, strict=False)
    except csv.Error as error:
        parsed.skipped.append(Skipped(begin, "", f"{error}; the rest of the input was not read"))
    return parsed


def _check_header(names: list[str]) -> None:
    if duplicates := {name for name in names if names.count(name) > 1}:
        raise UnreadableInputError(f"the header contains {', '.join(sorted(map(excerpt, duplicates)))} more than once")
    if unknown := [name for name in names if name not in KEYS]:
        raise UnreadableInputError(
            f"the header contains the unknown column {excerpt(unknown[0])}; the columns are {', '.join(KEYS)}"
        )
    if "service" not in names and "port" not in names:
        raise UnreadableInputError("the header contains neither service nor port")


def _entries(content: Any) -> ListWithLines:
    if isinstance(content, dict):
        keys = (key for key in ("services", "allocations") if isinstance(content.get(key), ListWithLines))
        content = next((content[key] for key in keys), content)
    if not isinstance(content, ListWithLines):
        raise UnreadableInputError("not a list of services, or an object with one under `services` or `allocations`")
    return content


def _parse_entries(name: str, entries: ListWithLines, strict: bool) -> ParsedInput:
    parsed = ParsedInput(name)
    for line, entry in entries.with_lines():
        if isinstance(entry, dict):
            _add_row(parsed, line, entry, strict)
        else:
            parsed.skipped.append(Skipped(line, str(entry), "not an object with project, service and port"))
    return parsed


def _add_row(parsed: ParsedInput, line: int, entry: Mapping[Any, Any], strict: bool) -> None:
    try:
        parsed.rows.append(_parse_row(line, entry, strict))
    except RowError as error:
        parsed.skip(line, str(entry), error)


def _parse_row(line: int, entry: Mapping[Any, Any], strict: bool) -> Row:
    fields: dict[str, Any] = {}
    for key, value in entry.items():
        if key not in KEYS:
            raise RowError(f"unknown key {excerpt(key)}; the keys are {', '.join(KEYS)}")
        if value is None or (not strict and value in ("", "~", "null")):
            continue
        fields[KEYS[key]] = _parse_port(value, strict) if key == "port" else _parse_text(key, value)
    if "service" not in fields and "port" not in fields:
        raise RowError("neither service nor port is given")
    return Row(line, **fields)


def _parse_text(key: Any, value: object) -> str:
    if not isinstance(value, str):
        raise RowError(f"{key} must be text, not {excerpt(json.dumps(value, default=str))}")
    return value


def _parse_port(value: object, strict: bool) -> int:
    if not strict and isinstance(value, str) and re.fullmatch(r"[0-9]{1,6}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 65535:
        raise RowError(f"port must be a whole number from 1 to 65535, not {excerpt(json.dumps(value, default=str))}")
    return value
