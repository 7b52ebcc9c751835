"""The containers of Docker and Podman that run on this machine, as their engines tell over their Unix sockets."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docker import APIClient
from docker.errors import DockerException
from requests.exceptions import RequestException

SYSTEM_SOCKETS = ("/run/docker.sock", "/run/podman/podman.sock")
USER_SOCKETS = ("docker.sock", "podman/podman.sock")  # of engines without root, in XDG_RUNTIME_DIR
SECONDS = 5  # to wait for an engine
SHORT_ID = 12


@dataclass(frozen=True, slots=True)
class Container:
    """A running container.

    `project` and `service` are those of Compose; `service` is the name of the container if Compose didn't start it.
    """

    id: str  # the first 12 digits, as in listeners.Socket
    project: str
    service: str
    image: str
    published: frozenset[tuple[int, str]]  # ports on this machine, with their protocols


class EngineUnavailable(Exception):
    """Raised if an engine is there but doesn't answer; the text says which and why."""


def sockets() -> list[Path]:
    """Return the sockets of the engines on this machine that a process of this account may trust.

    Root asks only those that nobody else can have made.
    """
    paths = [Path(path) for path in SYSTEM_SOCKETS]
    scheme, _, path = os.environ.get("DOCKER_HOST", "").partition("://")
    if os.geteuid() != 0:
        directory = Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}")
        paths += [directory / name for name in USER_SOCKETS]
    if scheme == "unix":
        paths.insert(0, Path(path))
    return list(dict.fromkeys(path for path in paths if _is_usable(path)))


def _is_usable(path: Path) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    return stat.S_ISSOCK(status.st_mode) and (os.geteuid() != 0 or status.st_uid == 0)


def running(path: Path) -> list[Container]:
    """Return the running containers of the engine at a socket.

    Raises:
        EngineUnavailable: it doesn't answer within SECONDS, or refuses.
    """
    if not os.access(path, os.R_OK | os.W_OK):
        raise EngineUnavailable(f"{path}: permission denied")
    try:
        client = APIClient(base_url=f"unix://{path}", version="auto", timeout=SECONDS)
        try:
            answer = client.containers()
        finally:
            client.close()
    except (DockerException, RequestException, OSError, ValueError) as error:
        raise EngineUnavailable(f"{path}: {' '.join(str(error).split())[:200]}") from None
    return [_container(row) for row in answer]


def _container(row: dict[str, Any]) -> Container:
    labels = row.get("Labels") or {}
    short_id = str(row["Id"])[:SHORT_ID]
    name = next(iter(row.get("Names") or []), short_id).lstrip("/")
    return Container(
        id=short_id,
        project=labels.get("com.docker.compose.project", ""),
        service=labels.get("com.docker.compose.service") or name,
        image=row.get("Image", ""),
        published=frozenset(_published(row.get("Ports") or [])),
    )


def _published(ports: list[dict[str, Any]]) -> Iterator[tuple[int, str]]:
    for port in ports:
        if port.get("PublicPort"):
            yield port["PublicPort"], port.get("Type", "tcp")
