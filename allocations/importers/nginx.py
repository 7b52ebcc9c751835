"""Parse configurations of nginx for the ports on which it listens and those to which it passes requests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import crossplane

from .rows import ParsedInput, Row, RowError, UnreadableInputError, parse_port, port_span
from .upstreams import SPAN, ConfigurationRows, Site, parse_upstreams

PASSES = {"proxy_pass", "grpc_pass", "fastcgi_pass", "uwsgi_pass", "scgi_pass"}
# A directive as crossplane describes it: directive, line, args and, if it has braces, block.
Directive = dict[str, Any]


def nginx(text: str) -> ParsedInput:
    """Parse the output of `nginx -T`, nginx.conf, or the file of a site.

    A service is named after the first server_name and the path of its location. Files that are included aren't read.
    """
    configuration = _Configuration(_directives(text))
    configuration.add_rows(configuration.directives, Site(), "tcp")
    if not configuration.rows.is_recognized:
        raise UnreadableInputError("not a configuration of nginx: it has neither `listen` nor `proxy_pass`")
    return configuration.rows.parsed


def _directives(text: str) -> list[Directive]:
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".conf") as file:  # crossplane only reads files
        file.write(text)
        file.flush()
        # `single`: an input must not make Portal read the files that it names.
        payload = crossplane.parse(file.name, single=True, check_ctx=False, check_args=False)
        for error in payload["errors"]:
            reason, line = error["error"].partition(f" in {file.name}")[0], error["line"]
            if line is None:  # Python's recursion limit
                raise UnreadableInputError("not a configuration of nginx: its blocks are nested too deeply")
            raise UnreadableInputError(f"not a configuration of nginx: line {line}: {reason}")
    directives: list[Directive] = payload["config"][0]["parsed"]
    return directives


class _Configuration:
    def __init__(self, directives: list[Directive]) -> None:
        self.directives = directives
        self.rows = ConfigurationRows(ParsedInput("nginx"))
        self.servers = {d["args"][0]: d["block"] for d in _upstream_blocks(directives)}

    def add_rows(self, directives: list[Directive], site: Site, protocol: str) -> None:
        """Add the rows of the directives, which are those of `site`."""
        for directive in directives:
            name, line, args = directive["directive"], directive["line"], directive["args"]
            words = [name, *args]
            if name == "listen":
                self.rows.add(line, words, partial(_listeners, line, args))
            elif name in PASSES:
                self.rows.add(line, words, partial(self._passed, directive, site, protocol))
            self.rows.is_recognized |= name == "listen" or name in PASSES
            if name == "server" and "block" in directive:
                self.add_rows(directive["block"], _site(directive["block"]), _protocol(directive["block"]))
            elif name == "location" and args and "block" in directive:
                self.add_rows(directive["block"], replace(site, path=args[-1].strip("^$") or "/"), protocol)
            elif "block" in directive and name != "upstream":
                self.add_rows(directive["block"], site, protocol)

    def _passed(self, directive: Directive, site: Site, protocol: str) -> list[Row]:
        address = " ".join(directive["args"])
        _, _, rest = address.rpartition("://")
        host = rest.partition("/")[0]
        if host in self.servers:
            upstreams = [
                upstream
                for server in self.servers[host]
                if server["directive"] == "server" and server["args"]
                for upstream in parse_upstreams(f"http://{server['args'][0]}")
            ]
            return site.rows(directive["line"], upstreams, host, protocol)
        if "$" in address:
            raise RowError("the address is a variable")
        if not any(c in host for c in ".:[") and host != "localhost":
            raise RowError(f"the upstream {host} is not in this input: `nginx -T` prints all files")
        return site.rows(directive["line"], list(parse_upstreams(address)), None, protocol)


def _upstream_blocks(directives: list[Directive]) -> Iterator[Directive]:
    for directive in directives:
        if directive["directive"] == "upstream" and directive["args"] and "block" in directive:
            yield directive
        else:
            yield from _upstream_blocks(directive.get("block", []))


def _site(block: list[Directive]) -> Site:
    names = [name for d in block if d["directive"] == "server_name" for name in d["args"]]
    usable = (name for name in names if name not in ("_", "", "localhost") and not name.startswith(("~", "$")))
    return Site(next(usable, ""))


def _protocol(block: list[Directive]) -> str:
    """Return "udp" for a server of the stream module that serves UDP."""
    return "udp" if any(d["directive"] == "listen" and "udp" in d["args"] for d in block) else "tcp"


def _listeners(line: int, args: list[str]) -> Iterator[Row]:
    address = args[0] if args else ""
    if address.startswith("unix:"):
        return
    port = address.rpartition(":")[2] if address[-1:] != "]" else ""
    span = SPAN.fullmatch(port)
    if span:
        ports = port_span(span[1], span[2])
    elif port.isdecimal():
        ports = range(parse_port(f":{port}"), int(port) + 1)
    elif "$" in address:
        raise RowError("the address is a variable")
    else:
        ports = range(80, 81)  # an address without a port
    protocol = "udp" if {"udp", "quic"} & set(args[1:]) else "tcp"
    for number in ports:
        yield Row(line, port=number, protocol=protocol, process="nginx")
