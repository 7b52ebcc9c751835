"""Everything Portal refuses, as one tree.

    PortError                     400  port_error
    ├── InvalidValue              400  invalid_value
    │   ├── InvalidName           400  invalid_name
    │   └── PortOutOfRange        400  port_out_of_range
    ├── NotPermitted              403  not_permitted
    ├── NotFound                  404  not_found
    │   ├── UnknownProject        404  unknown_project
    │   ├── UnknownService        404  unknown_service
    │   ├── UnknownRange          404  unknown_range
    │   ├── UnknownAllocation     404  unknown_allocation
    │   └── UnknownToken          404  unknown_token
    ├── Conflict                  409  conflict
    │   ├── PortTaken             409  port_taken
    │   ├── AlreadyAllocated      409  already_allocated
    │   ├── HostnameTaken         409  hostname_taken
    │   ├── NameTaken             409  name_taken
    │   ├── RangeExhausted        409  range_exhausted
    │   ├── RangeOverlap          409  range_overlap
    │   ├── RangeInUse            409  range_in_use
    │   ├── ProjectInUse          409  project_in_use
    │   ├── AlreadyReleased       409  already_released
    │   ├── Ambiguous             409  ambiguous
    │   ├── LastAdmin             409  last_admin
    │   └── QuotaReached          409  quota_reached
    ├── Stale                     412  stale
    ├── KeyReused                 422  key_reused
    ├── TooManyRequests           429  too_many_requests
    └── Unavailable               503  unavailable

`code` is a promise to programs, the sentence is for people and may be improved at any time: it says what was
wrong (field, value, rule), who holds it where that may be told, and what to do next. `details` holds the same as
data. Every door catches PortError in one place.
"""

from __future__ import annotations

import json
from typing import Any


def quoted(value: object) -> str:
    """The value as a sentence quotes it: short, and harmless in a terminal."""
    text = json.dumps(value, default=str) if not isinstance(value, str) else json.dumps(value, ensure_ascii=True)
    if len(text) <= 80:
        return text
    return text[:77] + ('…"' if text.startswith('"') else "…")


class PortError(Exception):
    """A refusal that a person or a program can act on.

    Args:
        sentence: what is wrong and what to do next, in one or two sentences.
        field: the name of the argument that is wrong, where there is one.
        details: the same facts as data, for programs.
    """

    code = "port_error"
    status = 400

    def __init__(self, sentence: str, *, field: str = "", **details: Any) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.field = field
        self.details = details

    def __str__(self) -> str:
        return self.sentence


class InvalidValue(PortError):
    """A value that its field does not take."""

    code = "invalid_value"


class InvalidName(InvalidValue):
    """A project, service, range or host name with characters it must not have."""

    code = "invalid_name"


class PortOutOfRange(InvalidValue):
    """A port outside 1 to 65535, or outside every range that the project may use."""

    code = "port_out_of_range"


class NotPermitted(PortError):
    """The caller's role does not allow the operation."""

    code = "not_permitted"
    status = 403


class NotFound(PortError):
    """Something that does not exist, or that the caller may not see."""

    code = "not_found"
    status = 404


class UnknownProject(NotFound):
    """No project of that name; the nearest names are in the details."""

    code = "unknown_project"


class UnknownService(NotFound):
    """The project holds no port for a service of that name."""

    code = "unknown_service"


class UnknownRange(NotFound):
    """No range of that name or id, or none that the project may use."""

    code = "unknown_range"


class UnknownAllocation(NotFound):
    """No allocation of that id."""

    code = "unknown_allocation"


class UnknownToken(NotFound):
    """No token of that id among those the caller may see."""

    code = "unknown_token"


class Conflict(PortError):
    """The registry, as it is now, does not admit the change."""

    code = "conflict"
    status = 409


class PortTaken(Conflict):
    """Another service holds the port, or something unregistered listens on it."""

    code = "port_taken"


class AlreadyAllocated(Conflict):
    """The service holds another port than the one that was named."""

    code = "already_allocated"


class HostnameTaken(Conflict):
    """The Cloudflare hostname points at another allocation."""

    code = "hostname_taken"


class NameTaken(Conflict):
    """Another project, range or service has that name."""

    code = "name_taken"


class RangeExhausted(Conflict):
    """No free port is left in the range."""

    code = "range_exhausted"


class RangeOverlap(Conflict):
    """The span shares ports with another range."""

    code = "range_overlap"


class RangeInUse(Conflict):
    """The range cannot shrink, move, change hands or go while ports in it are held."""

    code = "range_in_use"


class ProjectInUse(Conflict):
    """The project cannot go while it has ranges, ports or a history."""

    code = "project_in_use"


class AlreadyReleased(Conflict):
    """The allocation was released; a released one never changes again."""

    code = "already_released"


class Ambiguous(Conflict):
    """The words fit several allocations; the details list them."""

    code = "ambiguous"


class LastAdmin(Conflict):
    """Nobody would be left who may administer this Portal."""

    code = "last_admin"


class QuotaReached(Conflict):
    """The agent holds as many ports of the project as each token may."""

    code = "quota_reached"


class Stale(PortError):
    """The caller's view of the thing is out of date: somebody changed it since."""

    code = "stale"
    status = 412


class KeyReused(PortError):
    """The Idempotency-Key came before, with another request."""

    code = "key_reused"
    status = 422


class TooManyRequests(PortError):
    """The caller asks more often than it may; `retry_after` in the details is in seconds."""

    code = "too_many_requests"
    status = 429


class Unavailable(PortError):
    """The database does not answer, or not in time. Nothing was changed; try again.

    `retry_after` in the details is in seconds.
    """

    code = "unavailable"
    status = 503
