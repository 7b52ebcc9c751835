"""Parse the output of `docker ps` and Compose files for the ports that they publish on the host."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from .positions import DECODER, DictWithLines, ListWithLines, load_yaml
from .rows import (
    ParsedInput,
    Row,
    RowError,
    UnreadableInputError,
    UnrecognizedLineError,
    excerpt,
    numbered_lines,
    port_span,
)

PORTS = re.compile(r"(?:.*:)?(\d{1,5})(?:-(\d{1,5}))?->\d{1,5}(?:-\d{1,5})?/(tcp|udp)")
HEADER = re.compile(r"\s*CONTAINER ID\s+IMAGE\b")
HEADING = re.compile(r"[A-Z]+(?: [A-Z]+)*")
DEFAULT = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*:?-([^}]*)\}")


def docker(text: str) -> ParsedInput:
    """Parse the output of `docker ps`: the table, or with `--format json`, which is one JSON object per line.

    The labels of Compose, which are in the JSON only, provide the project and the service.
    """
    parsed = ParsedInput("docker")
    if HEADER.match(text):
        return _docker_table(parsed, text)
    for number, line in numbered_lines(text):
        try:
            container = DECODER.decode(line)
            if not isinstance(container, dict) or "Ports" not in container or "Names" not in container:
                raise UnrecognizedLineError("not a line of docker ps --format json: Names or Ports is missing")
            rows = list(_published_ports(number, container))
            parsed.rows += rows
            parsed.ignored += not rows
        except RowError as error:
            parsed.skip(number, line, error)
        except (ValueError, RecursionError):
            parsed.skip(number, line, UnrecognizedLineError("not JSON"))
    return parsed


def _docker_table(parsed: ParsedInput, text: str) -> ParsedInput:
    """Parse the table of `docker ps`, in which each column begins below its heading."""
    begins: list[tuple[str, int]] = []
    for number, line in numbered_lines(text):
        if HEADER.match(line):
            begins = [(match[0], match.start()) for match in HEADING.finditer(line)]
            parsed.ignored += 1
            continue
        ends = [begin for _, begin in begins[1:]] + [None]
        cells = {name: line[begin:end].strip() for (name, begin), end in zip(begins, ends, strict=True)}
        if not cells.get("NAMES"):
            parsed.skip(number, line, UnrecognizedLineError("not a line of docker ps: NAMES or PORTS is missing"))
            continue
        container = {"Names": cells["NAMES"], "Ports": cells.get("PORTS", ""), "Image": cells.get("IMAGE", "")}
        try:
            rows = list(_published_ports(number, container))
        except RowError as error:
            parsed.skip(number, line, error)
            continue
        parsed.rows += rows
        parsed.ignored += not rows
    return parsed


def _published_ports(number: int, container: dict[str, Any]) -> Iterator[Row]:
    labels = dict(label.partition("=")[::2] for label in str(container.get("Labels", "")).split(","))
    service = labels.get("com.docker.compose.service") or str(container["Names"]).split(",")[0]
    ports: set[tuple[int, str]] = set()
    for entry in str(container["Ports"]).split(","):
        published = PORTS.fullmatch(entry.strip())
        if not published:
            continue  # the port is only exposed to other containers
        for port in port_span(published[1], published[2] or published[1]):
            if (port, published[3]) not in ports:  # IPv4 and IPv6 are listed separately
                ports.add((port, published[3]))
                yield Row(
                    number,
                    service=service.lower(),
                    project=labels.get("com.docker.compose.project") or None,
                    port=port,
                    protocol=published[3],
                    description=str(container.get("Image", ""))[:500],
                    process="docker",
                    project_is_hint=True,
                )


def compose(text: str) -> ParsedInput:
    """Parse a Compose file for the published ports of its services, in the short and the long syntax."""
    content = load_yaml(text)
    if not isinstance(content, dict) or not isinstance(content.get("services"), dict):
        raise UnreadableInputError("not a Compose file: it has no `services`")
    parsed = ParsedInput("compose")
    project = content.get("name") if isinstance(content.get("name"), str) else None
    for service, definition in content["services"].items():
        for line, entry in _port_entries(definition):
            try:
                parsed.rows += [
                    Row(
                        line,
                        service=str(service),
                        project=project,
                        port=port,
                        protocol=protocol,
                        project_is_hint=True,
                    )
                    for port, protocol in _compose_ports(entry)
                ]
            except RowError as error:
                parsed.skip(line, f"{service}: {entry}", error)
    return parsed


def _port_entries(definition: Any) -> Iterator[tuple[int, Any]]:
    """Return the entries under `ports` in the definition of a service, each with its line."""
    if not isinstance(definition, DictWithLines) or "ports" not in definition:
        return
    ports = definition["ports"]
    if isinstance(ports, ListWithLines):
        yield from ports.with_lines()
    else:
        yield definition.lines["ports"], ports


def _compose_ports(entry: Any) -> Iterator[tuple[int, str]]:
    """Return the host ports that an entry publishes, with their protocols."""
    if isinstance(entry, dict):
        published, protocol = str(entry.get("published", "")), str(entry.get("protocol", "tcp"))
    else:
        address, _, protocol = DEFAULT.sub(r"\1", str(entry)).partition("/")
        parts = re.sub(r"\[.*\]", "", address).split(":")
        published, protocol = (parts[-2] if len(parts) > 1 else ""), protocol or "tcp"
    published = DEFAULT.sub(r"\1", published)
    if "$" in published or "$" in protocol:
        raise RowError("the port is a variable without a default")
    if not published:
        raise RowError("no host port is published, so Docker chooses one at every start")
    if protocol not in ("tcp", "udp"):
        raise RowError(f"the protocol {excerpt(protocol)} is neither tcp nor udp")
    match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", published)
    if not match:
        raise RowError(f"{excerpt(published)} is not a port")
    for port in port_span(match[1], match[2] or match[1]):
        yield port, protocol
