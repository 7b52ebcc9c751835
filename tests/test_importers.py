"""Every format on real output, and the inputs that people get wrong."""

import contextlib
import gzip
import json
import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from allocations import importers
from allocations.importers import FORMATS, UnreadableInputError, placed, read, read_source

DATA = Path(__file__).parent / "data" / "import"
Seen = set[tuple[int | None, str, str]]


def seen(name: str, format: str = "auto") -> Seen:
    """(port, protocol, service) of each row."""
    return {(r.port, r.protocol, r.name) for r in read((DATA / name).read_bytes(), format).rows}


SERVICES: Seen = {
    (3101, "tcp", "python3-3101"),
    (3102, "tcp", "node-3102"),
    (8080, "tcp", "node-8080"),
    (3402, "tcp", "python3-3402"),
    (3403, "udp", "python3-3403"),
    (5433, "tcp", "postgres-5433"),
}


@pytest.mark.parametrize(
    ("name", "format", "expected"),
    [
        ("lsof.txt", "lsof", SERVICES),
        ("lsof_piped.txt", "lsof", {s for s in SERVICES if s[1] == "tcp"}),
        ("ss.txt", "ss", SERVICES | {(22, "tcp", "port-22")}),
        ("ss_header.txt", "ss", SERVICES | {(22, "tcp", "port-22")}),
        ("netstat.txt", "netstat", SERVICES | {(22, "tcp", "port-22")}),
        (
            *("docker.jsonl", "docker"),
            {(3110, "tcp", "db"), (8081, "tcp", "proxy"), *((p, "udp", "proxy") for p in (9100, 9101, 9102))},
        ),
        (
            *("compose.yaml", "compose"),
            {
                *((3120, "tcp", "web"), (3121, "tcp", "web"), (22, "tcp", "ssh"), (3122, "udp", "dns")),
                *((9200, "tcp", "dns"), (9201, "tcp", "dns"), (3123, "tcp", "api"), (3124, "tcp", "worker")),
            },
        ),
        ("services.csv", "csv", {(3130, "tcp", "api-server"), (8080, "tcp", "legacy")}),
        ("services.json", "json", {(3130, "tcp", "api-server"), (8080, "tcp", "legacy"), (None, "tcp", "worker")}),
        ("services.yaml", "yaml", {(3130, "tcp", "api-server"), (3131, "tcp", "no")}),
    ],
)
def test_real_output(name: str, format: str, expected: Seen) -> None:
    assert seen(name, format) == expected
    reading = read((DATA / name).read_bytes())
    assert reading.format == format
    assert seen(name) == expected


def test_lsof_passes_over_headings_and_connections() -> None:
    assert read((DATA / "lsof.txt").read_bytes()).passed_over == 3


def test_lsof_unescapes_commands() -> None:
    line = rb"Google\x20Chrome 812 rob 20u IPv4 0x1 0t0 TCP *:9222 (LISTEN)"
    assert read(line, "lsof").rows[0].name == "google-chrome-9222"


def test_lsof_leaves_out_what_is_no_line_of_it() -> None:
    reading = read(b"what is this\nnode 1 r 1u IPv4 1 0t0 TCP *:3000 (LISTEN)\n", "lsof")
    assert [(s.line, s.text) for s in reading.skipped] == [(1, "what is this")]
    assert [r.port for r in reading.rows] == [3000]


def test_ss_takes_zones_and_wildcards() -> None:
    text = b"udp UNCONN 0 0 127.0.0.53%lo:53 0.0.0.0:*\ntcp LISTEN 0 1 [fe80::1]%eth0:80 [::]:*\n"
    assert [r.port for r in read(text, "ss").rows] == [53, 80]


def test_compose_says_why_a_port_cannot_be_taken() -> None:
    reasons = [s.reason for s in read((DATA / "compose.yaml").read_bytes(), "compose").skipped]
    assert reasons == [
        "the port is a variable without a default",
        "no host port is published: Docker chooses one at every start",
    ]


def test_one_name_whatever_else_the_input_holds() -> None:
    one = read(b"node 1 r 1u IPv4 1 0t0 TCP *:3000 (LISTEN)\n").rows
    two = read(b"node 2 r 1u IPv4 1 0t0 TCP *:3001 (LISTEN)\nnode 1 r 1u IPv4 1 0t0 TCP *:3000 (LISTEN)\n").rows
    assert one[0].name in {r.name for r in two}


@pytest.mark.parametrize("process", ["", "***", "ａ", "x" * 400, "../..", "=cmd|'/c calc'!A1", "\x1b[31m"])
def test_a_derived_name_is_always_a_name(process: str) -> None:
    from allocations import words

    name = importers.Row(1, port=3000, process=process).name
    assert words.service_name(name) == name


class TestWhatIsNoInput:
    @pytest.mark.parametrize(
        ("data", "said"),
        [
            (b"", "empty"),
            (b"  \n\n", "empty"),
            (b"service,port\n", "no rows"),
            (gzip.compress(b"service,port\napi,1\n", mtime=0), "not text"),
            (b"\x89PNG\r\n\x1a\n", "not text"),
            (b"\x7fELF\x02\x01", "not text"),
            (b"PK\x03\x04", "not text"),
            (b"service\0,port\n", "not text"),
            ("service,port\ncafé,1\n".encode("latin-1"), "not UTF-8"),
            (b"x" * (importers.LARGEST_INPUT + 1), "larger than 10 MB"),
            (b"hello there", "no rows of any known format"),
        ],
    )
    def test_it_is_refused_as_a_whole(self, data: bytes, said: str) -> None:
        with pytest.raises(UnreadableInputError, match=said):
            read(data)

    @pytest.mark.parametrize(
        "data",
        [
            b"{}",
            b'{"a": 1}',
            b"3",
            b'"x"',
            b'[{"service": "a", "port": 1},]',
            b"[" * 100_000,
            b"[" + b"9" * 5000 + b"]",
        ],
    )
    def test_json_that_is_no_list(self, data: bytes) -> None:
        with pytest.raises(UnreadableInputError):
            read(data, "json")

    def test_json_errors_name_the_line(self) -> None:
        with pytest.raises(UnreadableInputError, match="line 2"):
            read(b'[{"service": "a"},\n x]', "json")

    def test_yaml_builds_no_objects(self) -> None:
        reading = read(b"- !!python/object/apply:os.system ['true']\n", "yaml")
        assert reading.rows == []

    @pytest.mark.parametrize("format", ["yaml", "compose", "auto"])
    def test_yaml_whose_aliases_explode(self, format: str) -> None:
        eights = [f"- &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]\n" for n in range(1, 8)]
        with pytest.raises(UnreadableInputError, match="aliases make it too large in line 7"):
            read(f"- &a0 [{'x' * 400}]\n{''.join(eights)}- {{services: *a7}}".encode(), format)

    def test_files(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fifo")
        for name in (str(tmp_path), str(tmp_path / "missing"), str(tmp_path / "fifo"), "/dev/zero", "a\0b"):
            with pytest.raises(UnreadableInputError):
                read_source(name)


class TestWhatAutoSaysOfInputWithoutRows:
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("service,port\n", r"no rows \(csv\)"),
            ("service,port,port\na,1,1\n", r"the heading names port twice \(taken for csv"),
            ("service,bogus\na,1\n", "the heading names bogus; known are project"),
            ("prot;number\na;1\n", "the heading names prot; known"),
            ("type\napi\n", "neither service nor port"),
            ("{}", r"not a list of services.*\(taken for json"),
            (" \n[]", r"no rows \(json\)"),
            ('[{"service": "a"},\n {"service": "b"},]', r"not JSON: .* in line 2, column \d+ \(taken for json"),
            ('\N{BYTE ORDER MARK}\n {"service": "a",}', "not JSON: .* in line 2, column"),
            ("{service: a, port: 3000}", "not JSON: .* in line 1, column 2"),
            ("[{service: a, port: 3000}]", "not JSON: .* in line 1, column 3"),
            ('{"Names": "a", "Ports": ""}\n{"Names": "b", "Ports": "80/tcp"}', r"no rows \(docker\)"),
            ("services:\n  web: {image: nginx}\n", r"no rows \(compose\)"),
            ("services:\n  web:\n\tports: []\n", r"not YAML: .*line 3, column 1 .*\(taken for yaml"),
            ("# mine\n\nname: x\n", r"not a list of services.*\(taken for yaml"),
            ("Netid State Recv-Q Send-Q Local Address:Port Peer Address:Port Process\n", r"no rows \(ss\)"),
            ("tcp ESTAB 0 0 127.0.0.1:80 127.0.0.1:5000\n", r"no rows \(ss\)"),
            ("CONTAINER ID   IMAGE   COMMAND   CREATED   STATUS   PORTS   NAMES\n", "no rows of any known format"),
            ("Dear Sir,\n", "the heading names Dear Sir; known"),
        ],
    )
    def test_a_sentence(self, text: str, said: str) -> None:
        with pytest.raises(UnreadableInputError, match=said):
            read(text.encode())

    @pytest.mark.parametrize(
        ("text", "format", "reason"),
        [
            ("service,port\na,1,2\nb\n", "csv", "3 columns instead of 2"),
            ("service,port\na,x\n", "csv", "port must be a whole number"),
            ("[1]", "json", "not an object"),
            ('{"services": [{"port": "3180"}]}', "json", "port must be a whole number"),
            ('[{"service": "a",\n"port": "3180"}]', "json", "port must be a whole number"),
            ("- service: a\n  port: x\n", "yaml", "port must be a whole number"),
            ("services: {web: {ports: ['80']}}", "compose", "no host port is published"),
            ('{"services": {"web": {"ports": ["80"]}}}', "compose", "no host port is published"),
            ("tcp LISTEN 0 5 127.0.0.1:99999 0.0.0.0:*\n", "ss", "no port from 1 to 65535"),
            ("node 1 r 1u IPv4 1 0t0 TCP *:0 (LISTEN)\n", "lsof", "no port from 1 to 65535"),
        ],
    )
    def test_reasons(self, text: str, format: str, reason: str) -> None:
        reading = read(text.encode())
        assert (reading.format, reading.rows) == (format, [])
        assert reason in reading.skipped[0].reason

    def test_what_begins_like_json_may_be_something_else(self) -> None:
        assert read(b'{"services": {"web": {"ports": ["3000:80"]}}}').format == "compose"
        assert read(b"[root@host ~]# ss -tulpnH\ntcp LISTEN 0 5 127.0.0.1:80 0.0.0.0:*\n").format == "ss"
        assert read(b'\n {"Names": "a", "Ports": "0.0.0.0:80->80/tcp"}').format == "docker"
        assert read(b"[{service: a}]", "yaml").format == "yaml"


class TestRowsThatAreWrong:
    @pytest.mark.parametrize(
        ("entry", "said"),
        [
            ('{"service": "a", "port": "3000"}', 'whole number from 1 to 65535, not "3000"'.replace('"', ".")),
            ('{"service": "a", "port": true}', "whole number"),
            ('{"service": "a", "port": 3e3}', "whole number"),
            ('{"service": "a", "port": 0}', "whole number"),
            ('{"service": "a", "port": 70000}', "whole number"),
            ('{"service": 1, "port": 3000}', "service must be text"),
            ('{"service": "a", "prot": "tcp"}', "unknown key prot"),
            ('{"project": "a"}', "neither service nor port"),
            ("7", "not an object"),
        ],
    )
    def test_json(self, entry: str, said: str) -> None:
        reading = read(f'[{entry}, {{"service": "ok", "port": 3000}}]'.encode(), "json")
        assert [r.service for r in reading.rows] == ["ok"]
        with pytest.raises(AssertionError, match=said):
            raise AssertionError(reading.skipped[0].reason)

    def test_csv_ragged(self) -> None:
        reading = read(b"service,port\na,1,2\nb,3000\n", "csv")
        assert reading.skipped[0].line == 2
        assert [r.service for r in reading.rows] == ["b"]

    def test_csv_unclosed_quote_swallows_nothing_silently(self) -> None:
        reading = read(b'service,port\na,3000\n"b,3001\nc,3002\n', "csv")
        assert [r.service for r in reading.rows] == ["a"]
        assert "not read" in reading.skipped[0].reason

    @pytest.mark.parametrize("heading", [b"service,port,port", b"service,bogus", b"project,type"])
    def test_csv_heading(self, heading: bytes) -> None:
        with pytest.raises(UnreadableInputError, match="heading"):
            read(heading + b"\na,1,1\n", "csv")

    def test_csv_bom_and_semicolons(self) -> None:
        reading = read("\N{BYTE ORDER MARK}service;port\na;3000\n".encode(), "csv")
        assert [(r.service, r.port) for r in reading.rows] == [("a", 3000)]


PRETTY = """{
  "note": ["a", {"b": "]"}],
  "services":

  [
    {"service": "a", "port": 3000}, 7,
    {
      "service": "b",
      "port": "3001"
    }
  ]
}"""
COMPOSE = """services:
  web:
    image: nginx

    ports:
      - "3000:80"
      # nobody knows
      - "${PORT}:81"
      - target: 82
        published: "3001"
  db: {ports: ["3002:5432", "5433"]}
  odd:
    ports: "x:1"
"""
YAML = """# mine
services:
  - service: a
    port: 3000

  - {service: b, port: x}
  - c
"""


class TestLinesAreThoseOfTheText:
    @pytest.mark.parametrize(
        ("text", "format", "rows", "skipped"),
        [
            (PRETTY, "json", [6], [6, 7]),
            (PRETTY.replace("\n", "\r\n"), "json", [6], [6, 7]),
            ('\n\n[\n{"service": "a"},\n{}]', "json", [4], [5]),
            ('{"services": [], "services": [\n{"service": "a"}]}', "json", [2], []),
            (YAML, "yaml", [3], [6, 7]),
            (COMPOSE, "compose", [6, 9, 11], [8, 11, 13]),
            ('service,port,description\n\na,3000,"two\nlines"\nb\nc,3001,\n"', "csv", [3, 6], [5, 7]),
            ("service,port,description\na,3000,one\u2028line\nb\n", "csv", [2], [3]),
            ("\ntcp LISTEN 0 5 1.1.1.1:80 *:* a\x85b\nx\n", "ss", [2], [3]),
            ('\n{"Names": "a\u2028", "Ports": "0.0.0.0:80->80/tcp"}\nx', "docker", [2], [3]),
        ],
    )
    def test_of_each_format(self, text: str, format: str, rows: list[int], skipped: list[int]) -> None:
        reading = read(text.encode(), format)
        assert ([r.line for r in reading.rows], [s.line for s in reading.skipped]) == (rows, skipped)

    def test_a_scan_has_none(self) -> None:
        assert read(b"service\na", "csv").has_lines
        assert not importers.scan([]).has_lines


@given(
    st.recursive(st.none() | st.text() | st.integers(), lambda kind: st.lists(kind) | st.dictionaries(st.text(), kind))
)
@example({"services": [[], {"a": [1]}, '"]}']})
def test_json_is_what_json_says(value: object) -> None:
    for indent in (None, 2):
        assert placed.from_json(json.dumps(value, indent=indent)) == value


@given(st.binary(max_size=400), st.sampled_from(sorted(FORMATS)))
def test_nothing_but_a_sentence_comes_of_bytes(data: bytes, format: str) -> None:
    with contextlib.suppress(UnreadableInputError):
        read(data, format)


@given(st.text(max_size=400), st.sampled_from([*sorted(FORMATS), "auto"]))
def test_nothing_but_a_sentence_comes_of_text(text: str, format: str) -> None:
    with contextlib.suppress(UnreadableInputError):
        read(text.encode("utf-8", "surrogatepass"), format)


LINES = [line for file in sorted(DATA.iterdir()) for line in file.read_text().splitlines()]


@given(st.lists(st.sampled_from(LINES), max_size=8), st.sampled_from([*sorted(FORMATS), "auto"]))
def test_nothing_but_a_sentence_comes_of_mixed_lines(lines: list[str], format: str) -> None:
    with contextlib.suppress(UnreadableInputError):
        read("\n".join(lines).encode(), format)
