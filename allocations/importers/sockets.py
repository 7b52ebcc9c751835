"""lsof, ss, netstat: tables of sockets as administrators paste them, and the scan of this host."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Protocol

from .rows import ForeignLineError, Reading, Row, RowError, numbered, port_of

# None: the line is no listener.
Parse = Callable[[int, list[str]], Row | None]
PROCESS = re.compile(r'users:\(\("((?:[^"\\]|\\.)*)"')


class SeenSocket(Protocol):
    """What a scan delivers; see allocations.listeners.Socket."""

    @property
    def protocol(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def process(self) -> str: ...


def _table(name: str, text: str, parse: Parse) -> Reading:
    """One row for each listener; IPv4 and IPv6 of one socket, and the workers that share one, are one row."""
    reading = Reading(name)
    seen: set[tuple[int, str]] = set()
    for number, line in numbered(text):
        try:
            row = parse(number, line.split())
        except RowError as error:
            reading.leave_out(number, line, error)
            continue
        except IndexError:
            reading.leave_out(number, line, ForeignLineError(f"not a line of {name}"))
            continue
        if row is None or row.port is None:
            reading.passed_over += 1
        elif (row.port, row.protocol) not in seen:
            seen.add((row.port, row.protocol))
            reading.rows.append(row)
    return reading


def lsof(text: str) -> Reading:
    """`lsof -i -P -n`: COMMAND PID USER FD TYPE DEVICE SIZE/OFF NODE NAME (STATE), with or without its heading."""

    def parse(line: int, words: list[str]) -> Row | None:
        if words[0] == "COMMAND":
            return None
        place = next((i for i, word in enumerate(words) if word in ("TCP", "UDP")), None)
        if place is None or place < 3:
            raise ForeignLineError("not a line of lsof -i: TCP or UDP is missing")
        address, state = words[place + 1], " ".join(words[place + 2 :])
        if "->" in address or (words[place] == "TCP" and state != "(LISTEN)"):
            return None
        if address.endswith(":*"):  # bound to nothing yet
            return None
        return Row(line, port=port_of(address), protocol=words[place].lower(), process=_unescaped(words[0]))

    return _table("lsof", text, parse)


def ss(text: str) -> Reading:
    """`ss -tulpnH`: Netid State Recv-Q Send-Q Local Peer Process; without -u and -t the Netid is missing."""

    def parse(line: int, words: list[str]) -> Row | None:
        if words[0] in ("Netid", "State"):
            return None
        protocol = words[0] if words[0] in ("tcp", "udp") else "tcp"
        columns = words[1:] if words[0] in ("tcp", "udp") else words
        if columns[0] not in ("LISTEN", "UNCONN"):
            if re.fullmatch(r"[A-Z][A-Z0-9-]+", columns[0]) and columns[1].isdigit() and columns[2].isdigit():
                return None  # a connection, or a protocol without ports
            raise ForeignLineError("not a line of ss -tulpn: LISTEN or UNCONN is missing")
        owner = PROCESS.search(" ".join(columns[5:]))
        return Row(line, port=port_of(columns[3]), protocol=protocol, process=owner[1] if owner else "")

    return _table("ss", text, parse)


def netstat(text: str) -> Reading:
    """`netstat -tulpn`: Proto Recv-Q Send-Q Local Foreign State PID/Program; UDP has no state."""

    def parse(line: int, words: list[str]) -> Row | None:
        if words[0] in ("Active", "Proto", "Prot"):
            return None
        if not re.fullmatch(r"(tcp|udp)6?", words[0]) or not words[1].isdigit():
            raise ForeignLineError("not a line of netstat -tulpn: it begins with tcp or udp and a number")
        protocol, local, foreign = words[0][:3], words[3], words[4]
        if protocol == "tcp" and words[5] != "LISTEN":
            return None
        if protocol == "udp" and not foreign.endswith(":*"):
            return None
        rest = " ".join(words[6:] if protocol == "tcp" else words[5:])
        return Row(line, port=port_of(local), protocol=protocol, process=rest.partition("/")[2].split(":")[0].strip())

    return _table("netstat", text, parse)


def scan(sockets: Iterable[SeenSocket]) -> Reading:
    """What listens on this host now."""
    reading = Reading("scan", has_lines=False)
    seen: set[tuple[int, str]] = set()
    for number, found in enumerate(sockets, start=1):
        if (found.port, found.protocol) not in seen:
            seen.add((found.port, found.protocol))
            reading.rows.append(Row(number, port=found.port, protocol=found.protocol, process=found.process))
    return reading


def _unescaped(command: str) -> str:
    """lsof writes a blank in a command as `\\x20`."""
    return re.sub(r"\\x([0-9a-fA-F]{2})", lambda found: chr(int(found[1], 16)), command)
