"""What the configurations of proxies have in common: a public host name leads to services on ports."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from .rows import ParsedInput, Row, RowError, excerpt, port_span

THIS_HOST = {"", "localhost", "127.0.0.1", "::1", "0.0.0.0", "::"}  # noqa: S104 as people write it
DEFAULT_PORTS = {"http": 80, "https": 443, "ssh": 22, "grpc": 80, "grpcs": 443, "h2c": 80}
SPAN = re.compile(r"(\d{1,5})-(\d{1,5})")


@dataclass(frozen=True, slots=True)
class Upstream:
    """A port to which a proxy passes requests."""

    port: int
    hostname: str = "localhost"


@dataclass(frozen=True, slots=True)
class Site:
    """The public name and the path that lead to an upstream."""

    public_name: str = ""
    path: str = ""

    @property
    def service(self) -> str | None:
        """Return the first label of the public name, without `www`, and the words of the path."""
        label = re.sub(r"^(\*?\.)?(www\.)?", "", self.public_name.lower()).partition(".")[0]
        words = re.findall(r"[a-z0-9_]+", self.path.lower())
        return "-".join([label, *words])[:255] if label else None

    @property
    def description(self) -> str:
        return self.public_name + (self.path if self.path.startswith("/") else "")

    def rows(self, line: int, upstreams: list[Upstream], name: str | None = None, protocol: str = "tcp") -> list[Row]:
        """Return a row for each upstream; instances of one service are told apart by their ports.

        Args:
            line: the line of the upstreams.
            upstreams: the ports to which the same requests are passed.
            name: the name of the service if there is no public name.
            protocol: "tcp" or "udp".
        """
        service = self.service or name
        return [
            Row(
                line,
                service=f"{service[:240]}-{upstream.port}" if service and len(upstreams) > 1 else service,
                port=upstream.port,
                hostname=upstream.hostname,
                protocol=protocol,
                description=self.description[:500] if self.public_name else "",
                service_is_hint=True,
            )
            for upstream in upstreams
        ]


@dataclass(slots=True)
class ConfigurationRows:
    """Collects the rows of a configuration, each port of a host once: many sites share the ports 80 and 443."""

    parsed: ParsedInput
    is_recognized: bool = False
    seen: set[tuple[str, int | None, str]] = field(default_factory=set)

    def add(self, line: int, words: list[str], rows: Callable[[], Iterable[Row]]) -> None:
        """Add the rows of a directive, or record why they can't be used."""
        try:
            found = {(row.hostname, row.port, row.protocol): row for row in reversed(list(rows()))}
        except RowError as error:
            self.parsed.skip(line, " ".join(words), error)
            return
        new = [row for place, row in reversed(found.items()) if place not in self.seen]
        self.seen.update(found)
        self.parsed.rows += new
        self.parsed.ignored += not new


def parse_upstreams(address: str, default_port: int | None = None) -> Iterator[Upstream]:
    """Return the ports of an address such as `127.0.0.1:3000`, `http://app:3000/path` or `localhost:3000-3003`.

    A Unix socket has none.

    Args:
        address: the address, with or without a scheme.
        default_port: the port of an address that has none, if none is usual for its scheme.

    Raises:
        RowError: the address has no port, and there is no default.
    """
    if address.startswith("unix"):
        return
    scheme, _, rest = address.rpartition("://")
    try:
        place = urlsplit(f"//{rest}")
        host, span = place.hostname or "", SPAN.fullmatch(place.netloc.rpartition(":")[2])
        ports = port_span(span[1], span[2]) if span else [place.port or DEFAULT_PORTS.get(scheme, default_port)]
    except RowError:
        raise
    except ValueError:
        raise RowError(f"{excerpt(address)} has no port from 1 to 65535") from None
    for port in ports:
        if port is None:
            raise RowError(f"{excerpt(address)} has no port")
        yield Upstream(port, "localhost" if host in THIS_HOST else host)
