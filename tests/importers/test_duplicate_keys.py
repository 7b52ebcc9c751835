"""Objects that contain a key twice, of which nobody knows which value is meant."""

from __future__ import annotations

import pytest

from allocations.importers import UnreadableInputError, parse


@pytest.mark.parametrize(
    ("text", "format", "message"),
    [
        ('[{"service": "a", "port": 3000},\n{"port": 1, "service": "b", "port": 2}]', "json", "key port .* at line 2"),
        ('{"services": [], "note": 1,\n"services": [{"service": "a"}]}', "json", "key services .* at line 2"),
        ('{"note": {"a": 1, "a": 2},\n"services": [{"service": "a"}]}', "json", "key a .* at line 1"),
        ("- service: a\n  port: 1\n  port: 2\n", "yaml", "key port .* at line 3"),
        ("services:\n  web:\n    ports: [1:1]\n  web:\n    ports: [2:2]\n", "compose", "key web .* at line 4"),
    ],
)
@pytest.mark.parametrize("is_detected", [False, True])
def test_duplicate_keys_are_refused(text: str, format: str, message: str, is_detected: bool) -> None:
    with pytest.raises(UnreadableInputError, match=message):
        parse(text.encode(), "auto" if is_detected else format)


def test_a_line_of_docker_with_a_duplicate_key_is_left_out() -> None:
    line = '{"Names": "web", "Ports": "0.0.0.0:3001->1/tcp"}'
    parsed = parse(f'{line}\n{line[:-1]}, "Names": "api"}}'.encode(), "docker")
    assert [(row.line, row.service) for row in parsed.rows] == [(1, "web")]
    assert [(skipped.line, skipped.reason) for skipped in parsed.skipped] == [
        (2, "the key Names occurs more than once in one object")
    ]


def test_a_quoted_key_is_sanitized() -> None:
    with pytest.raises(UnreadableInputError, match="key \N{REPLACEMENT CHARACTER} occurs"):
        parse(b'[{"service": "a", "\\u001b": 1, "\\u001b": 2}]', "json")
