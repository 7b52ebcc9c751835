"""The formats of import_ports, tested with real output of the programs and with malformed input."""

import contextlib
import gzip
import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from allocations import importers
from allocations.importers import FORMATS, UnreadableInputError, parse, positions, read_source
from allocations.listeners import Socket

HOME = "/home"  # where people have their directories
DATA = Path(__file__).parent.parent / "data" / "import"
Services = set[tuple[int | None, str, str]]


def services(name: str, format: str = "auto") -> Services:
    """Return (port, protocol, service) for each row of a file."""
    return {(r.port, r.protocol, r.name) for r in parse((DATA / name).read_bytes(), format).rows}


SERVICES: Services = {
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
def test_real_output_is_parsed(name: str, format: str, expected: Services) -> None:
    assert services(name, format) == expected
    parsed = parse((DATA / name).read_bytes())
    assert parsed.format == format
    assert services(name) == expected


def test_lsof_ignores_headers_and_connections() -> None:
    assert parse((DATA / "lsof.txt").read_bytes()).ignored == 3


def test_lsof_command_is_unescaped() -> None:
    line = rb"Google\x20Chrome 812 rob 20u IPv4 0x1 0t0 TCP *:9222 (LISTEN)"
    assert parse(line, "lsof").rows[0].name == "google-chrome-9222"


def test_lsof_skips_unrecognized_lines() -> None:
    parsed = parse(b"what is this\nnode 1 r 1u IPv4 1 0t0 TCP *:3000 (LISTEN)\n", "lsof")
    assert [(s.line, s.text) for s in parsed.skipped] == [(1, "what is this")]
    assert [r.port for r in parsed.rows] == [3000]


def test_ss_accepts_zones_and_wildcards() -> None:
    text = b"udp UNCONN 0 0 127.0.0.53%lo:53 0.0.0.0:*\ntcp LISTEN 0 1 [fe80::1]%eth0:80 [::]:*\n"
    assert [r.port for r in parse(text, "ss").rows] == [53, 80]


def test_compose_says_why_ports_are_skipped() -> None:
    reasons = [s.reason for s in parse((DATA / "compose.yaml").read_bytes(), "compose").skipped]
    assert reasons == [
        "the port is a variable without a default",
        "no host port is published, so Docker chooses one at every start",
    ]


def test_derived_name_does_not_depend_on_other_rows() -> None:
    one = parse(b"node 1 r 1u IPv4 1 0t0 TCP *:3000 (LISTEN)\n").rows
    two = parse(b"node 2 r 1u IPv4 1 0t0 TCP *:3001 (LISTEN)\nnode 1 r 1u IPv4 1 0t0 TCP *:3000 (LISTEN)\n").rows
    assert one[0].name in {r.name for r in two}


@pytest.mark.parametrize("process", ["", "***", "ａ", "x" * 400, "../..", "=cmd|'/c calc'!A1", "\x1b[31m"])
def test_derived_name_is_always_valid(process: str) -> None:
    from allocations import validators

    name = importers.Row(1, port=3000, process=process).name
    assert validators.service_name(name) == name


class TestUnreadableInput:
    @pytest.mark.parametrize(
        ("data", "message"),
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
            (b"x" * (importers.MAX_INPUT_SIZE + 1), "larger than 10 MB"),
            (b"hello there", "no rows in any known format"),
        ],
    )
    def test_input_is_refused(self, data: bytes, message: str) -> None:
        with pytest.raises(UnreadableInputError, match=message):
            parse(data)

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
    def test_invalid_json_is_refused(self, data: bytes) -> None:
        with pytest.raises(UnreadableInputError):
            parse(data, "json")

    def test_json_error_names_the_line(self) -> None:
        with pytest.raises(UnreadableInputError, match="line 2"):
            parse(b'[{"service": "a"},\n x]', "json")

    def test_yaml_does_not_build_objects(self) -> None:
        parsed = parse(b"- !!python/object/apply:os.system ['true']\n", "yaml")
        assert parsed.rows == []

    @pytest.mark.parametrize("format", ["yaml", "compose", "auto"])
    def test_yaml_with_exponentially_expanding_aliases_is_refused(self, format: str) -> None:
        eights = [f"- &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]\n" for n in range(1, 8)]
        with pytest.raises(UnreadableInputError, match="aliases make it too large at line 7"):
            parse(f"- &a0 [{'x' * 400}]\n{''.join(eights)}- {{services: *a7}}".encode(), format)

    def test_sources_that_are_not_files_are_refused(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fifo")
        for name in (str(tmp_path), str(tmp_path / "missing"), str(tmp_path / "fifo"), "/dev/zero", "a\0b"):
            with pytest.raises(UnreadableInputError):
                read_source(name)


class TestDetection:
    @pytest.mark.parametrize(
        ("format", "head", "line"),
        [
            (
                "lsof",
                "COMMAND PID USER FD TYPE DEVICE SIZE/OFF NODE NAME\n",
                "node 1 me 3u IPv4 1 0t0 TCP *:%d (LISTEN)\n",
            ),
            ("ss", "", "tcp LISTEN 0 5 *:%d *:*\n"),
            ("netstat", "", "tcp 0 0 0.0.0.0:%d 0.0.0.0:* LISTEN 1/a\n"),
            ("csv", "service\n", "a%d\n"),
            ("yaml", "", "- service: a%d\n"),
        ],
    )
    def test_too_many_rows_are_refused_in_every_format(
        self, format: str, head: str, line: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("allocations.importers.formats.MAX_ROWS", 20)
        lines = [line % port for port in range(1, 22)]
        assert len(parse((head + "".join(lines[:20])).encode(), format).rows) == 20
        with pytest.raises(UnreadableInputError, match="21 rows, but at most 20 are allowed: split it"):
            parse((head + "".join(lines)).encode(), format)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("service,port\n", r"no rows \(csv\)"),
            ("service,port,port\na,1,1\n", r"the header contains port more than once \(read as csv"),
            ("service,bogus\na,1\n", "the header contains the unknown column bogus; the columns are project"),
            ("prot;number\na;1\n", "the header contains the unknown column prot;"),
            ("type\napi\n", "neither service nor port"),
            ("{}", r"not a list of services.*\(read as json"),
            (" \n[]", r"no rows \(json\)"),
            ('[{"service": "a"},\n {"service": "b"},]', r"not JSON: .* at line 2, column \d+ \(read as json"),
            ('\N{BYTE ORDER MARK}\n {"service": "a",}', "not JSON: .* at line 2, column"),
            ("{service: a, port: 3000}", "not JSON: .* at line 1, column 2"),
            ("[{service: a, port: 3000}]", "not JSON: .* at line 1, column 3"),
            ('{"Names": "a", "Ports": ""}\n{"Names": "b", "Ports": "80/tcp"}', r"no rows \(docker\)"),
            ("services:\n  web: {image: nginx}\n", r"no rows \(compose\)"),
            ("services:\n  web:\n\tports: []\n", r"not YAML: .*line 3, column 1 .*\(read as yaml"),
            ("# mine\n\nname: x\n", r"not a list of services.*\(read as yaml"),
            ("Netid State Recv-Q Send-Q Local Address:Port Peer Address:Port Process\n", r"no rows \(ss\)"),
            ("tcp ESTAB 0 0 127.0.0.1:80 127.0.0.1:5000\n", r"no rows \(ss\)"),
            ("CONTAINER ID   IMAGE   COMMAND   CREATED   STATUS   PORTS   NAMES\n", r"no rows \(docker\)"),
            ("Dear Sir,\n", "the header contains the unknown column Dear Sir;"),
        ],
    )
    def test_input_without_rows_is_refused_with_a_reason(self, text: str, message: str) -> None:
        with pytest.raises(UnreadableInputError, match=message):
            parse(text.encode())

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
    def test_skipped_rows_have_a_reason(self, text: str, format: str, reason: str) -> None:
        parsed = parse(text.encode())
        assert (parsed.format, parsed.rows) == (format, [])
        assert reason in parsed.skipped[0].reason

    def test_input_that_begins_like_json_may_be_in_another_format(self) -> None:
        assert parse(b'{"services": {"web": {"ports": ["3000:80"]}}}').format == "compose"
        assert parse(b"[root@host ~]# ss -tulpnH\ntcp LISTEN 0 5 127.0.0.1:80 0.0.0.0:*\n").format == "ss"
        assert parse(b'\n {"Names": "a", "Ports": "0.0.0.0:80->80/tcp"}').format == "docker"
        assert parse(b"[{service: a}]", "yaml").format == "yaml"


class TestInvalidRows:
    @pytest.mark.parametrize(
        ("entry", "message"),
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
    def test_json_rows_are_skipped(self, entry: str, message: str) -> None:
        parsed = parse(f'[{entry}, {{"service": "ok", "port": 3000}}]'.encode(), "json")
        assert [r.service for r in parsed.rows] == ["ok"]
        with pytest.raises(AssertionError, match=message):
            raise AssertionError(parsed.skipped[0].reason)

    def test_csv_row_with_too_many_columns_is_skipped(self) -> None:
        parsed = parse(b"service,port\na,1,2\nb,3000\n", "csv")
        assert parsed.skipped[0].line == 2
        assert [r.service for r in parsed.rows] == ["b"]

    def test_csv_unclosed_quote_is_reported(self) -> None:
        parsed = parse(b'service,port\na,3000\n"b,3001\nc,3002\n', "csv")
        assert [r.service for r in parsed.rows] == ["a"]
        assert "not read" in parsed.skipped[0].reason

    @pytest.mark.parametrize("header", [b"service,port,port", b"service,bogus", b"project,type"])
    def test_csv_with_an_invalid_header_is_refused(self, header: bytes) -> None:
        with pytest.raises(UnreadableInputError, match="header"):
            parse(header + b"\na,1,1\n", "csv")

    def test_csv_with_a_bom_and_semicolons_is_read(self) -> None:
        parsed = parse("\N{BYTE ORDER MARK}service;port\na;3000\n".encode(), "csv")
        assert [(r.service, r.port) for r in parsed.rows] == [("a", 3000)]


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


class TestLineNumbers:
    @pytest.mark.parametrize(
        ("text", "format", "rows", "skipped"),
        [
            (PRETTY, "json", [6], [6, 7]),
            (PRETTY.replace("\n", "\r\n"), "json", [6], [6, 7]),
            ('\n\n[\n{"service": "a"},\n{}]', "json", [4], [5]),
            (YAML, "yaml", [3], [6, 7]),
            (COMPOSE, "compose", [6, 9, 11], [8, 11, 13]),
            ('service,port,description\n\na,3000,"two\nlines"\nb\nc,3001,\n"', "csv", [3, 6], [5, 7]),
            ("service,port,description\na,3000,one\u2028line\nb\n", "csv", [2], [3]),
            ("\ntcp LISTEN 0 5 1.1.1.1:80 *:* a\x85b\nx\n", "ss", [2], [3]),
            ('\n{"Names": "a\u2028", "Ports": "0.0.0.0:80->80/tcp"}\nx', "docker", [2], [3]),
        ],
    )
    def test_every_format_has_line_numbers(self, text: str, format: str, rows: list[int], skipped: list[int]) -> None:
        parsed = parse(text.encode(), format)
        assert ([r.line for r in parsed.rows], [s.line for s in parsed.skipped]) == (rows, skipped)

    def test_scan_has_no_line_numbers(self) -> None:
        assert parse(b"service\na", "csv").has_lines
        assert not importers.scan([]).has_lines


@given(
    st.recursive(st.none() | st.text() | st.integers(), lambda kind: st.lists(kind) | st.dictionaries(st.text(), kind))
)
@example({"services": [[], {"a": [1]}, '"]}']})
def test_load_json_equals_json_loads(value: object) -> None:
    for indent in (None, 2):
        assert positions.load_json(json.dumps(value, indent=indent)) == value


@given(st.binary(max_size=400), st.sampled_from(sorted(FORMATS)))
def test_random_bytes_raise_no_other_error(data: bytes, format: str) -> None:
    with contextlib.suppress(UnreadableInputError):
        parse(data, format)


@given(st.text(max_size=400), st.sampled_from([*sorted(FORMATS), "auto"]))
def test_random_text_raises_no_other_error(text: str, format: str) -> None:
    with contextlib.suppress(UnreadableInputError):
        parse(text.encode("utf-8", "surrogatepass"), format)


LINES = [line for file in sorted(DATA.iterdir()) for line in file.read_text().splitlines()]


@given(st.lists(st.sampled_from(LINES), max_size=8), st.sampled_from([*sorted(FORMATS), "auto"]))
def test_mixed_lines_raise_no_other_error(lines: list[str], format: str) -> None:
    with contextlib.suppress(UnreadableInputError):
        parse("\n".join(lines).encode(), format)


@pytest.mark.parametrize(
    ("container", "cwd", "process", "name"),
    [
        ("billing-api.service", "/", "node", "billing-api"),
        ("worker@3.service", "/srv/jobs", "python3", "worker"),
        ("docker.service", "/", "docker-proxy", "docker-proxy-3102"),
        ("containerd.service", "/srv/shop", "node", "shop"),
        ("user@1000.service", "/srv/Shop Front", "node", "shop-front"),
        ("ssh.service", "/", "sshd", "ssh"),
        ("ssh.service", f"{HOME}/anna/shop", "node", "shop"),
        ("ssh.service", f"{HOME}/anna", "node", "node-3102"),
        ("", "/srv/shop/api", "python3", "api"),
        ("", "/root", "python3", "python3-3102"),
        ("", "/tmp", "python3", "python3-3102"),
        ("", "/", "python3", "python3-3102"),
        ("", "", "", "port-3102"),
        ("0123456789ab", "/app", "node", "node-3102"),
    ],
)
def test_a_scan_names_services(container: str, cwd: str, process: str, name: str) -> None:
    socket = Socket("tcp", "::", 3102, process=process, container=container, cwd=cwd)
    assert [row.name for row in importers.scan([socket]).rows] == [name]


@pytest.mark.parametrize("format", ["docker", "auto"])
def test_table_of_docker_ps(format: str) -> None:
    parsed = parse((DATA / "docker_table.txt").read_bytes(), format)
    assert {(r.port, r.protocol, r.name, r.description) for r in parsed.rows} == {
        (3101, "tcp", "billing-api-1", "billing/api:1.4"),
        (5433, "tcp", "billing-db-1", "postgres:17"),
        (5353, "udp", "dns", "coredns/coredns"),
    }
    assert (parsed.format, parsed.skipped, parsed.ignored) == ("docker", [], 2)


@pytest.mark.parametrize("format", ["netstat", "auto"])
@pytest.mark.parametrize(
    ("name", "ports"),
    [
        ("netstat_macos.txt", {(3101, "tcp"), (8080, "tcp"), (5433, "tcp"), (5353, "udp")}),
        ("netstat_windows.txt", {(3101, "tcp"), (5433, "tcp"), (5353, "udp")}),
    ],
)
def test_netstat_of_other_systems(name: str, ports: set[tuple[int, str]], format: str) -> None:
    parsed = parse((DATA / name).read_bytes(), format)
    assert {(r.port, r.protocol) for r in parsed.rows} == ports
    assert (parsed.format, parsed.skipped) == ("netstat", [])


@pytest.mark.parametrize("format", ["cloudflared", "auto"])
def test_configuration_of_cloudflared(format: str) -> None:
    parsed = parse((DATA / "cloudflared.yml").read_bytes(), format)
    assert [(r.line, r.name, r.port, r.hostname, r.cloudflare_hostname) for r in parsed.rows] == [
        (4, "shop", 3101, "localhost", "shop.example.com"),
        (6, "docs", 3102, "localhost", "*.docs.example.com"),
        (11, "db", 5432, "db-1.example.com", "db.example.com"),
    ]
    assert [(s.line, s.reason) for s in parsed.skipped] == [(15, "http://localhost:99999 has no port from 1 to 65535")]
    assert parsed.ignored == 2


def test_strange_configuration_of_cloudflared() -> None:
    with pytest.raises(UnreadableInputError, match="no list `ingress`"):
        parse(b"ingress: 5\n", "cloudflared")
    rows = b"ingress:\n  - 5\n  - {hostname: a.example.com, service: x://y}\n"
    assert [s.reason for s in parse(rows, "cloudflared").skipped] == [
        "not a rule with hostname and service",
        "x://y has no port",
    ]


@pytest.mark.parametrize("format", ["nginx", "auto"])
def test_configuration_of_nginx(format: str) -> None:
    parsed = parse((DATA / "nginx.conf").read_bytes(), format)
    assert [(r.line, r.name, r.port, r.protocol, r.hostname, r.description) for r in parsed.rows] == [
        (14, "nginx-80", 80, "tcp", "localhost", ""),
        (20, "nginx-443", 443, "tcp", "localhost", ""),
        (21, "nginx-8443", 8443, "tcp", "localhost", ""),
        (23, "shop", 3101, "tcp", "localhost", "www.shop.example.com/"),
        (25, "shop-api-v2", 3102, "tcp", "localhost", "www.shop.example.com/api/v2/"),
        (28, "shop-jobs-3103", 3103, "tcp", "localhost", "www.shop.example.com/jobs"),
        (28, "shop-jobs-3104", 3104, "tcp", "localhost", "www.shop.example.com/jobs"),
        (30, "shop-elsewhere", 50051, "tcp", "10.0.0.5", "www.shop.example.com/elsewhere"),
        (34, "port-3105", 3105, "tcp", "localhost", ""),
        (37, "nginx-5353", 5353, "udp", "localhost", ""),
        (37, "port-3106", 3106, "udp", "localhost", ""),
        (38, "nginx-4000", 4000, "tcp", "localhost", ""),
        (38, "nginx-4001", 4001, "tcp", "localhost", ""),
        (38, "nginx-4002", 4002, "tcp", "localhost", ""),
        (38, "port-3107", 3107, "tcp", "localhost", ""),
    ]
    assert [(s.line, s.reason) for s in parsed.skipped] == [
        (31, "the address is a variable"),
        (32, "the upstream missing is not in this input: `nginx -T` prints all files"),
    ]


@pytest.mark.parametrize("format", ["caddyfile", "auto"])
def test_caddyfile(format: str) -> None:
    """`caddy adapt` finds the same ports in this file."""
    parsed = parse((DATA / "Caddyfile").read_bytes(), format)
    assert [(r.line, r.name, r.port, r.hostname, r.description) for r in parsed.rows] == [
        (12, "caddy-443", 443, "localhost", ""),
        (17, "shop-api", 3102, "localhost", "shop.example.com/api/"),
        (19, "shop-ws", 3103, "localhost", "shop.example.com"),
        (24, "shop", 3101, "localhost", "shop.example.com"),
        (31, "caddy-8080", 8080, "localhost", ""),
        (32, "docs", 3104, "localhost", "docs.example.com"),
        (41, "caddy-8081", 8081, "localhost", ""),
        (9, "port-3108", 3108, "localhost", ""),
        (9, "port-3109", 3109, "localhost", ""),
        (44, "port-3110", 3110, "localhost", ""),
        (44, "port-3111", 3111, "localhost", ""),
        (45, "port-80", 80, "10.0.0.5", ""),
    ]
    assert [(s.line, s.reason) for s in parsed.skipped] == [(43, "{$MISSING} is a variable without a default")]


def test_caddyfile_of_one_site_without_braces() -> None:
    parsed = parse(b"example.com\n\nreverse_proxy localhost:3000\n")
    assert [(r.name, r.port) for r in parsed.rows] == [("caddy-443", 443), ("example", 3000)]


@pytest.mark.parametrize(
    ("format", "text", "message"),
    [
        ("nginx", "server { listen 80;", 'line 1: unexpected end of file, expecting "}"'),
        ("auto", "server {\n  listen 80;\n}\n}", r'line 4: unexpected "}"'),
        ("nginx", "worker_processes 4;", "neither `listen` nor `proxy_pass`"),
        ("caddyfile", "a {\n", "the block of line 1 is not closed"),
        ("caddyfile", "}\n", "line 1 closes a block that is not open"),
        ("caddyfile", "Dear diary\n", "no site has"),
    ],
    ids=str,
)
def test_strange_configuration_of_a_proxy(format: str, text: str, message: str) -> None:
    with pytest.raises(UnreadableInputError, match=message):
        parse(text.encode(), format)


@pytest.mark.parametrize("format", ["nginx", "caddyfile"])
def test_deep_configuration_of_a_proxy(format: str) -> None:
    with pytest.raises(UnreadableInputError, match="nested too deeply"):
        parse(b"a {\n" * 5000 + b"\n}" * 5000, format)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("server { listen 99999; }", ":99999 has no port from 1 to 65535"),
        ("server { listen 80-70000; }", "80-70000 is not a span of at most 1000 ports between 1 and 65535"),
        ("server { listen $port; }", "the address is a variable"),
        ("server { location / { proxy_pass http://localhost:99999; } }", "http://localhost:99999 has no port"),
        ("a.com {\n reverse_proxy localhost:99999\n}", "localhost:99999 has no port from 1 to 65535"),
        (":99999 {\n respond x\n}", ":99999 has no port from 1 to 65535"),
        ("{$SITE} {\n respond x\n}", r"\{\$SITE\} is a variable without a default"),
    ],
    ids=str,
)
def test_proxy_without_a_usable_port(text: str, reason: str) -> None:
    assert re.match(reason, parse(text.encode()).skipped[0].reason)


def test_nginx_reads_no_other_file(tmp_path: Path) -> None:
    other = tmp_path / "other.conf"
    other.write_text("server { listen 3999; }")
    parsed = parse(f"include {other};\nserver {{ listen 3000; }}\n".encode(), "nginx")
    assert [row.port for row in parsed.rows] == [3000]


def test_snippets_that_import_each_other() -> None:
    text = b"(a) {\n import b\n}\n(b) {\n import a\n reverse_proxy localhost:3000\n}\nx.com {\n import a\n}\n"
    assert [row.name for row in parse(text).rows] == ["caddy-443", "x"]
