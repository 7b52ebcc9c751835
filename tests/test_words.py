"""The rules about names, hosts, ports and protocols."""

from __future__ import annotations

import socket
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from allocations import words
from allocations.errors import InvalidName, InvalidValue, PortError, PortOutOfRange


@pytest.mark.parametrize("name", ["a", "0", "consilio", "api-server_v2.1", "a" * 255])
def test_names(name: str) -> None:
    assert words.project_name(name) == words.service_name(name) == words.range_name(name) == name


@pytest.mark.parametrize("name", ["", "a" * 256, "Web", "a b", "-x", ".x", "ａ", "web\n", "a/b", "a\0", None, 3, True])
def test_what_is_no_name(name: Any) -> None:
    with pytest.raises(InvalidName, match="is not a name: use 1 to 255 of a-z 0-9") as refused:
        words.service_name(name)
    assert refused.value.field == "service"


@pytest.mark.parametrize(
    ("given", "expected"),
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
def test_hosts(given: Any, expected: str) -> None:
    assert words.host(given) == expected


@pytest.mark.parametrize(
    "name",
    [
        *("127.0.0.1", "127.0.0.2", "::1", "[::1]", "::ffff:127.0.0.1", "0.0.0.0", "::", "LOCALHOST."),
        *("localhost.localdomain", "ip6-localhost", "ip6-loopback", "app.localhost"),
        *(socket.gethostname(), socket.gethostname().upper()),
    ],
)
def test_this_host_has_one_name(name: str) -> None:
    """Under a second one its ports would be handed out a second time."""
    assert words.host(name) == "localhost"


@pytest.mark.parametrize(
    "host",
    [
        *("a b", "-a", "a-", "a..b", "a" * 64, "x." * 130, "127.1", "2130706433"),
        *("0x7f000001.1", "0x7f000001", "a.0x7f", "①②⑦.0.0.1"),
        *("a\nservice: http://169.254.169.254", "a\0", "[::1", "fe80::1%eth0", 3, "host_name", "300.1.1.1"),
    ],
)
def test_what_is_no_host(host: Any) -> None:
    with pytest.raises(InvalidName, match="is not a host"):
        words.host(host)


@pytest.mark.parametrize("port", [1, 3000, 65535])
def test_ports(port: int) -> None:
    assert words.port(port) == words.port_text(f" {port} ") == port


@pytest.mark.parametrize("port", [0, -1, 65536, 10**40, True, 80.0, 3e3, "3000", "", None, [1], {"$gt": 1}])
def test_what_is_no_port(port: Any) -> None:
    with pytest.raises(PortOutOfRange):
        words.port(port)


@pytest.mark.parametrize(
    "text", ["", "1_000", "３０００", "٣", "-1", "+1", "0x50", "1e3", "80.0", "99999", "0", "1\n2"]
)
def test_what_is_no_port_in_text(text: str) -> None:
    with pytest.raises(PortOutOfRange):
        words.port_text(text)


@pytest.mark.parametrize(("text", "span"), [("3000", (3000, 3000)), ("3000-3009", (3000, 3009))])
def test_spans(text: str, span: tuple[int, int]) -> None:
    assert words.span_text(text) == span


@pytest.mark.parametrize("text", ["3009-3000", "-3000", "3000-", "a-b", "1-70000", "1-2-3"])
def test_what_is_no_span(text: str) -> None:
    with pytest.raises(InvalidValue):
        words.span_text(text)


@pytest.mark.parametrize("protocol", ["sctp", "TCP", "tcp ", 6])
def test_what_is_no_protocol(protocol: Any) -> None:
    with pytest.raises(InvalidValue, match="use tcp or udp"):
        words.protocol(protocol)


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "\x1b[31m", "x" * 2001, 3])
def test_what_is_no_text(text: Any) -> None:
    with pytest.raises(InvalidValue):
        words.text(text, "description")


@pytest.mark.parametrize(
    ("given", "expected"), [("API.Example.com", "api.example.com"), ("*.a.de", "*.a.de"), ("", None)]
)
def test_cloudflare_hostnames(given: str, expected: str | None) -> None:
    assert words.cloudflare_hostname(given) == expected


@pytest.mark.parametrize("name", ["localhost", "a b.c", "a.b/c", "http://a.b", "x" * 250 + ".com", "a.b\n", "*.", 3])
def test_what_is_no_cloudflare_hostname(name: Any) -> None:
    with pytest.raises(InvalidName):
        words.cloudflare_hostname(name)


def nested(levels: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(levels):
        found = {"a": found}
    return found


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
def test_what_is_no_metadata(value: Any) -> None:
    with pytest.raises(InvalidValue):
        words.metadata(value)


def test_metadata() -> None:
    assert words.metadata({"a": [1, {"b": None}]}) == {"a": [1, {"b": None}]}
    assert words.metadata(None) == {}


@pytest.mark.parametrize(
    ("text", "length"), [("2h", timedelta(hours=2)), ("7d", timedelta(days=7)), ("2w", timedelta(weeks=2))]
)
def test_expiries(text: str, length: timedelta) -> None:
    found = words.expiry_text(text)
    assert found is not None
    assert abs(found - timezone.now() - length) < timedelta(seconds=10)


def test_an_expiry_may_be_a_date_or_never() -> None:
    assert words.expiry_text(f"{timezone.now() + timedelta(days=3):%Y-%m-%d}") is not None
    assert words.expiry_text("") is None


@pytest.mark.parametrize("text", ["soon", "2020-01-01", "9999-01-01", "0d", "99999w", "-3d", "2027-13-01"])
def test_what_is_no_expiry(text: str) -> None:
    with pytest.raises(InvalidValue):
        words.expiry_text(text)


def test_nearest_names() -> None:
    assert words.nearest("consilo", ["odin", "consilio", "openhorizon"]) == ["consilio"]
    assert words.nearest("zzz", ["odin"]) == []


ANYTHING = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.lists(st.text()))
RULES = [
    *(words.project_name, words.host, words.protocol, words.port, words.service_type, words.cloudflare_hostname),
    *(words.metadata, words.expiry),
]


@given(ANYTHING, st.sampled_from(RULES))
def test_every_rule_answers_with_a_value_or_a_sentence(value: Any, rule: Any) -> None:
    said = ""
    try:
        rule(value)
    except PortError as refused:
        said = refused.sentence
    assert len(said) < 400
    assert not said or said.isprintable()
