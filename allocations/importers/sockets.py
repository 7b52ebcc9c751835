"""Parse the output of lsof, ss and netstat, and turn a scan of this host into rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from tempfile import gettempdir
from typing import Protocol

from .rows import ParsedInput, Row, RowError, UnrecognizedLineError, numbered_lines, parse_port

# Parses the words of a line with the given number; returns None if the line doesn't describe a listener.
LineParser = Callable[[int, list[str]], Row | None]
# Units of container engines, whose processes serve for others.
ENGINES = {"docker", "containerd", "podman", "crio", "kubelet", "k3s", "buildkit", "lxc", "lxd", "libvirtd"}
# Units in which people start programs, beside the programs of the unit.
SESSIONS = {"user", "ssh", "sshd", "cron", "crond", "atd", "getty", "serial-getty", "gdm", "sddm", "lightdm", "tmux"}
# Directories whose name, or that of what is in them, is not that of a service: those of the system and of people.
NOT_PROJECTS = {
    "",
    ".",
    "/",
    "/home",
    "/root",
    "/var",
    "/var/lib",
    "/usr",
    "/etc",
    "/run",
    "/proc",
    "/Users",
    gettempdir(),
}
PROCESS = re.compile(r'users:\(\("((?:[^"\\]|\\.)*)"')


class ListeningSocket(Protocol):
    """The attributes of allocations.listeners.Socket that a scan needs."""

    @property
    def protocol(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def process(self) -> str: ...
    @property
    def container(self) -> str: ...
    @property
    def cwd(self) -> str: ...


class RunningContainer(Protocol):
    """The attributes of allocations.containers.Container that a scan needs."""

    @property
    def id(self) -> str: ...
    @property
    def project(self) -> str: ...
    @property
    def service(self) -> str: ...
    @property
    def image(self) -> str: ...
    @property
    def published(self) -> frozenset[tuple[int, str]]: ...


def _parse_table(name: str, text: str, parse_line: LineParser) -> ParsedInput:
    """Return one row for each port and protocol.

    IPv4 and IPv6 sockets on the same port, and workers that share a socket, therefore yield one row.
    """
    parsed = ParsedInput(name)
    ports: set[tuple[int, str]] = set()
    for number, line in numbered_lines(text):
        try:
            row = parse_line(number, line.split())
        except RowError as error:
            parsed.skip(number, line, error)
            continue
        except IndexError:
            parsed.skip(number, line, UnrecognizedLineError(f"not a line of {name}"))
            continue
        if row is None or row.port is None:
            parsed.ignored += 1
        elif (row.port, row.protocol) not in ports:
            ports.add((row.port, row.protocol))
            parsed.rows.append(row)
    return parsed


def lsof(text: str) -> ParsedInput:
    """Parse the output of `lsof -i -P -n`, with or without its header.

    The columns are COMMAND PID USER FD TYPE DEVICE SIZE/OFF NODE NAME (STATE).
    """

    def parse_line(line: int, words: list[str]) -> Row | None:
        if words[0] == "COMMAND":
            return None
        node = next((i for i, word in enumerate(words) if word in ("TCP", "UDP")), None)
        if node is None or node < 3:
            raise UnrecognizedLineError("not a line of lsof -i: TCP or UDP is missing")
        address, state = words[node + 1], " ".join(words[node + 2 :])
        if "->" in address or (words[node] == "TCP" and state != "(LISTEN)"):
            return None
        if address.endswith(":*"):  # not bound to a port yet
            return None
        return Row(line, port=parse_port(address), protocol=words[node].lower(), process=_unescape(words[0]))

    return _parse_table("lsof", text, parse_line)


def ss(text: str) -> ParsedInput:
    """Parse the output of `ss -tulpn`, with or without its header.

    The columns are Netid State Recv-Q Send-Q Local Peer Process; there is no Netid without -u or without -t.
    """

    def parse_line(line: int, words: list[str]) -> Row | None:
        if words[0] in ("Netid", "State"):
            return None
        protocol = words[0] if words[0] in ("tcp", "udp") else "tcp"
        columns = words[1:] if words[0] in ("tcp", "udp") else words
        if columns[0] not in ("LISTEN", "UNCONN"):
            if re.fullmatch(r"[A-Z][A-Z0-9-]+", columns[0]) and columns[1].isdigit() and columns[2].isdigit():
                return None  # a connection, or a protocol without ports
            raise UnrecognizedLineError("not a line of ss -tulpn: LISTEN or UNCONN is missing")
        process = PROCESS.search(" ".join(columns[5:]))
        return Row(line, port=parse_port(columns[3]), protocol=protocol, process=process[1] if process else "")

    return _parse_table("ss", text, parse_line)


def netstat(text: str) -> ParsedInput:
    """Parse the output of netstat, with or without its header: of Linux, macOS and Windows.

    On Linux (`netstat -tulpn`), the columns are Proto Recv-Q Send-Q Local Foreign State PID/Program; the State of UDP
    sockets is blank. On macOS (`netstat -an`), a dot is before the port. On Windows (`netstat -ano`), the columns are
    Proto Local Foreign State PID.
    """

    def parse_line(line: int, words: list[str]) -> Row | None:
        if words[0] in ("Active", "Proto", "Prot"):
            return None
        if words[0] in ("TCP", "UDP"):
            return _windows_row(line, words)
        if re.fullmatch(r"(tcp|udp)(4|6|46)", words[0]) and re.search(r"\.(\d+|\*)$", words[3]):
            return _macos_row(line, words)
        if not re.fullmatch(r"(tcp|udp)6?", words[0]) or not words[1].isdigit():
            raise UnrecognizedLineError(
                "not a line of netstat -tulpn: it must begin with tcp or udp, followed by a number"
            )
        protocol, local, foreign = words[0][:3], words[3], words[4]
        if protocol == "tcp" and words[5] != "LISTEN":
            return None
        if protocol == "udp" and not foreign.endswith(":*"):
            return None
        rest = " ".join(words[6:] if protocol == "tcp" else words[5:])
        return Row(
            line, port=parse_port(local), protocol=protocol, process=rest.partition("/")[2].split(":")[0].strip()
        )

    return _parse_table("netstat", text, parse_line)


def _windows_row(line: int, words: list[str]) -> Row | None:
    protocol, local, foreign = words[0].lower(), words[1], words[2]
    is_listening = words[3] == "LISTENING" if protocol == "tcp" else foreign == "*:*"
    return Row(line, port=parse_port(local), protocol=protocol) if is_listening else None


def _macos_row(line: int, words: list[str]) -> Row | None:
    protocol, local, foreign = words[0][:3], words[3], words[4]
    is_listening = words[5:6] == ["LISTEN"] if protocol == "tcp" else foreign == "*.*" and not local.endswith(".*")
    return Row(line, port=parse_port(":".join(local.rsplit(".", 1))), protocol=protocol) if is_listening else None


def scan(sockets: Iterable[ListeningSocket], containers: Iterable[RunningContainer] = ()) -> ParsedInput:
    """Return one row for each port and protocol on which a socket is listening.

    Args:
        sockets: what is listening.
        containers: the containers that are running. A port that one has published, or on which a process in it is
            listening, is named after it. A port published without a socket, by rules of the firewall alone, is a row.
    """
    parsed = ParsedInput("scan", has_lines=False)
    containers = list(containers)
    by_id = {container.id: container for container in containers}
    by_port = {place: container for container in containers for place in sorted(container.published)}
    by_place: dict[tuple[int, str], ListeningSocket] = {}
    for listener in sockets:
        by_place.setdefault((listener.port, listener.protocol), listener)
    for number, place in enumerate(sorted({*by_port, *by_place}), start=1):
        socket = by_place.get(place)
        container = by_port.get(place) or (by_id.get(socket.container) if socket else None)
        row = Row(number, port=place[0], protocol=place[1], service_is_hint=True)
        if container:
            parsed.rows.append(
                replace(
                    row,
                    service=_name(container.service),
                    project=container.project or None,
                    project_is_hint=True,
                    description=container.image[:500],
                    process="docker",
                )
            )
        elif socket:
            parsed.rows.append(replace(row, service=_service_of(socket), process=socket.process))
    return parsed


def _service_of(socket: ListeningSocket) -> str | None:
    """Return the name of the service that a socket belongs to, or None if only the name of its program is known.

    It is that of the systemd unit or, for a program started by hand, that of the directory in which it works.
    """
    unit, is_unit, _ = socket.container.rpartition(".service")
    unit = unit.partition("@")[0].lower()
    is_of_session = unit in SESSIONS and not socket.process.startswith(unit)
    if is_unit and unit not in ENGINES and not is_of_session:
        return _name(unit)
    is_of_container = bool(socket.container) and not is_unit  # it may work in any directory of its image
    directory = Path(socket.cwd)
    if is_of_container or str(directory.parent) in NOT_PROJECTS or str(directory) in NOT_PROJECTS:
        return None
    return _name(directory.name)


def _name(text: str) -> str | None:
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:255] or None


def _unescape(command: str) -> str:
    """Undo the escapes of lsof, which prints a space in the name of a command as `\\x20`."""
    return re.sub(r"\\x([0-9a-fA-F]{2})", lambda match: chr(int(match[1], 16)), command)
