"""`docker ps` and Compose files: the ports they publish on the host."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from .placed import Fields, Items, from_yaml
from .rows import ForeignLineError, Reading, Row, RowError, UnreadableInputError, numbered, shown

PORTS = re.compile(r"(?:.*:)?(\d{1,5})(?:-(\d{1,5}))?->\d{1,5}(?:-\d{1,5})?/(tcp|udp)")
DEFAULT = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*:?-([^}]*)\}")
MOST_OF_A_SPAN = 1000


def docker(text: str) -> Reading:
    """`docker ps --format json`: one JSON object a line. Compose's labels name project and service."""
    reading = Reading("docker")
    for number, line in numbered(text):
        try:
            found = json.loads(line)
            if not isinstance(found, dict) or "Ports" not in found or "Names" not in found:
                raise ForeignLineError("not a line of docker ps --format json: Names or Ports is missing")
            rows = list(_published(number, found))
            reading.rows += rows
            reading.passed_over += not rows
        except RowError as error:
            reading.leave_out(number, line, error)
        except (ValueError, RecursionError):
            reading.leave_out(number, line, ForeignLineError("not JSON"))
    return reading


def _published(number: int, found: dict[str, Any]) -> Iterator[Row]:
    labels = dict(label.partition("=")[::2] for label in str(found.get("Labels", "")).split(","))
    service = labels.get("com.docker.compose.service") or str(found["Names"]).split(",")[0]
    seen: set[tuple[int, str]] = set()
    for entry in str(found["Ports"]).split(","):
        published = PORTS.fullmatch(entry.strip())
        if not published:
            continue  # exposed inside only
        for port in _span(published[1], published[2] or published[1]):
            if (port, published[3]) not in seen:  # IPv4 and IPv6 are listed apart
                seen.add((port, published[3]))
                yield Row(
                    number,
                    service=service.lower(),
                    project=labels.get("com.docker.compose.project") or None,
                    port=port,
                    protocol=published[3],
                    description=str(found.get("Image", ""))[:500],
                    process="docker",
                    is_hint=True,
                )


def compose(text: str) -> Reading:
    """A Compose file: the published ports of its services, in the short and the long form."""
    found = from_yaml(text)
    if not isinstance(found, dict) or not isinstance(found.get("services"), dict):
        raise UnreadableInputError("not a Compose file: it has no `services`")
    reading = Reading("compose")
    project = found.get("name") if isinstance(found.get("name"), str) else None
    for service, description in found["services"].items():
        for line, entry in _entries_of_ports(description):
            try:
                for port, protocol in _compose_ports(entry):
                    reading.rows.append(
                        Row(line, service=str(service), project=project, port=port, protocol=protocol, is_hint=True)
                    )
            except RowError as error:
                reading.leave_out(line, f"{service}: {entry}", error)
    return reading


def _entries_of_ports(description: Any) -> Iterator[tuple[int, Any]]:
    """The entries under `ports` of a service, each with its line."""
    if not isinstance(description, Fields) or "ports" not in description:
        return
    ports = description["ports"]
    if isinstance(ports, Items):
        yield from ports.placed()
    else:
        yield description.lines["ports"], ports


def _compose_ports(entry: Any) -> Iterator[tuple[int, str]]:
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
        raise RowError("no host port is published: Docker chooses one at every start")
    if protocol not in ("tcp", "udp"):
        raise RowError(f"the protocol {shown(protocol)} is neither tcp nor udp")
    span = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", published)
    if not span:
        raise RowError(f"{shown(published)} is not a port")
    for port in _span(span[1], span[2] or span[1]):
        yield port, protocol


def _span(first: str, last: str) -> range:
    ports = range(int(first), int(last) + 1)
    if not ports or ports[0] < 1 or ports[-1] > 65535 or len(ports) > MOST_OF_A_SPAN:
        raise RowError(f"{first}-{last} is not a span of at most {MOST_OF_A_SPAN} ports from 1 to 65535")
    return ports
