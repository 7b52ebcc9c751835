"""Test the validators of names, hosts, ports, protocols, text, metadata and expiries."""

from __future__ import annotations

import socket
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from allocations import text, validators
from allocations.errors import InvalidName, InvalidValue, PortError, PortOutOfRange


@pytest.mark.parametrize("name", ["a", "0", "consilio", "api-server_v2.1", "a" * 255])
def test_valid_names_are_returned_unchanged(name: str) -> None:
    assert validators.project_name(name) == validators.service_name(name) == validators.range_name(name) == name


@pytest.mark.parametrize("name", ["", "a" * 256, "Web", "a b", "-x", ".x", "ａ", "web\n", "a/b", "a\0", None, 3, True])
def test_invalid_names_are_refused(name: Any) -> None:
    with pytest.raises(InvalidName, match="is not valid: use 1 to 255 of a-z 0-9") as refused:
        validators.service_name(name)
    assert refused.value.field == "service_name"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *(
            (None, "localhost"),
            ("", "localhost"),
            ("Web-1.Example.com.", "web-1.example.com"),
            ("192.0.2.1", "192.0.2.1"),
        ),
        *(
            ("[2001:db8::2]", "2001:db8::2"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:DB8::1", "2001:db8::1"),
            ("a1", "a1"),
            ("3com.example", "3com.example"),
        ),
    ],
)
def test_hosts_are_normalized(name: Any, expected: str) -> None:
    assert validators.hostname(name) == expected


@pytest.mark.parametrize(
    "name",
    [
        *("127.0.0.1", "127.0.0.2", "::1", "[::1]", "::ffff:127.0.0.1", "0.0.0.0", "::", "LOCALHOST."),
        *("localhost.localdomain", "ip6-localhost", "ip6-loopback", "app.localhost"),
        *(socket.gethostname(), socket.gethostname().upper()),
    ],
)
def test_every_name_of_this_host_becomes_localhost(name: str) -> None:
    """Under a second name, the same port could be allocated again."""
    assert validators.hostname(name) == "localhost"


@pytest.mark.parametrize(
    "host",
    [
        *("a b", "-a", "a-", "a..b", "a" * 64, "x." * 130, "127.1", "2130706433"),
        *("0x7f000001.1", "0x7f000001", "a.0x7f", "①②⑦.0.0.1"),
        *("a\nservice: http://169.254.169.254", "a\0", "[::1", "fe80::1%eth0", 3, "host_name", "300.1.1.1"),
    ],
)
def test_invalid_hosts_are_refused(host: Any) -> None:
    with pytest.raises(InvalidName, match="is not valid"):
        validators.hostname(host)


@pytest.mark.parametrize("port", [1, 3000, 65535])
def test_valid_port_numbers_are_returned(port: int) -> None:
    assert validators.port_number(port) == validators.parse_port_number(f" {port} ") == port


@pytest.mark.parametrize("port", [0, -1, 65536, 10**40, True, 80.0, 3e3, "3000", "", None, [1], {"$gt": 1}])
def test_invalid_port_numbers_are_refused(port: Any) -> None:
    with pytest.raises(PortOutOfRange):
        validators.port_number(port)


@pytest.mark.parametrize(
    "text", ["", "1_000", "３０００", "٣", "-1", "+1", "0x50", "1e3", "80.0", "99999", "0", "1\n2"]
)
def test_text_that_is_not_a_port_number_is_refused(text: str) -> None:
    with pytest.raises(PortOutOfRange):
        validators.parse_port_number(text)


@pytest.mark.parametrize(("text", "span"), [("3000", (3000, 3000)), ("3000-3009", (3000, 3009))])
def test_spans_are_parsed(text: str, span: tuple[int, int]) -> None:
    assert validators.parse_port_span(text) == span


@pytest.mark.parametrize("text", ["3009-3000", "-3000", "3000-", "a-b", "1-70000", "1-2-3"])
def test_invalid_spans_are_refused(text: str) -> None:
    with pytest.raises(InvalidValue):
        validators.parse_port_span(text)


@pytest.mark.parametrize("protocol", ["sctp", "TCP", "tcp ", 6])
def test_invalid_protocols_are_refused(protocol: Any) -> None:
    with pytest.raises(InvalidValue, match="use tcp or udp"):
        validators.protocol(protocol)


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "\x1b[31m", "x" * 2001, 3])
def test_invalid_text_is_refused(text: Any) -> None:
    with pytest.raises(InvalidValue):
        validators.text(text, "description")


@pytest.mark.parametrize(
    ("name", "expected"), [("API.Example.com", "api.example.com"), ("*.a.de", "*.a.de"), ("", None)]
)
def test_cloudflare_hostnames_are_normalized(name: str, expected: str | None) -> None:
    assert validators.cloudflare_hostname(name) == expected


@pytest.mark.parametrize("name", ["localhost", "a b.c", "a.b/c", "http://a.b", "x" * 250 + ".com", "a.b\n", "*.", 3])
def test_invalid_cloudflare_hostnames_are_refused(name: Any) -> None:
    with pytest.raises(InvalidName):
        validators.cloudflare_hostname(name)


def nested(levels: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for _ in range(levels):
        metadata = {"a": metadata}
    return metadata


@pytest.mark.parametrize(
    "value",
    [
        [1],
        "x",
        {"a": "\0"},
        {"\0": 1},
        {"a": "\ud800"},
        {"a": float("nan")},
        nested(17),
        nested(5000),
        {"a": "x" * 17000},
        {"a": object()},
    ],
)
def test_invalid_metadata_is_refused(value: Any) -> None:
    with pytest.raises(InvalidValue):
        validators.metadata(value)


def test_valid_metadata_is_returned() -> None:
    assert validators.metadata({"a": [1, {"b": None}]}) == {"a": [1, {"b": None}]}
    assert validators.metadata(None) == {}


@pytest.mark.parametrize(
    ("text", "length"), [("2h", timedelta(hours=2)), ("7d", timedelta(days=7)), ("2w", timedelta(weeks=2))]
)
def test_relative_expiries_are_parsed(text: str, length: timedelta) -> None:
    expires_at = validators.parse_expires_at(text)
    assert expires_at is not None
    assert abs(expires_at - timezone.now() - length) < timedelta(seconds=10)


def test_expiry_can_be_a_date_or_empty() -> None:
    assert validators.parse_expires_at(f"{timezone.now() + timedelta(days=3):%Y-%m-%d}") is not None
    assert validators.parse_expires_at("") is None


@pytest.mark.parametrize("text", ["soon", "2020-01-01", "9999-01-01", "0d", "99999w", "-3d", "2027-13-01"])
def test_invalid_expiries_are_refused(text: str) -> None:
    with pytest.raises(InvalidValue):
        validators.parse_expires_at(text)


def test_nearest_finds_similar_names() -> None:
    assert text.nearest("consilo", ["odin", "consilio", "openhorizon"]) == ["consilio"]
    assert text.nearest("zzz", ["odin"]) == []


ANY_VALUE = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.lists(st.text()))
VALIDATORS = [
    *(
        validators.project_name,
        validators.hostname,
        validators.protocol,
        validators.port_number,
        validators.service_type,
        validators.cloudflare_hostname,
    ),
    *(validators.metadata, validators.expires_at),
]


@given(ANY_VALUE, st.sampled_from(VALIDATORS))
def test_every_validator_returns_a_value_or_raises_a_readable_error(value: Any, validator: Any) -> None:
    sentence = ""
    try:
        validator(value)
    except PortError as error:
        sentence = error.sentence
    assert len(sentence) < 400
    assert not sentence or sentence.isprintable()
