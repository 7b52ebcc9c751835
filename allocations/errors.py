"""The errors that Portal reports to its callers, as one tree.

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
    │   ├── UnknownHost           404  unknown_host
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

Programs rely on `code`. The sentence is for people and may be improved at any time: it says what is wrong (field,
value, rule), who holds it if the caller may know, and what to do next. `details` holds the same facts as data. Every
door catches PortError in one place.
"""

from __future__ import annotations

from typing import Any


class PortError(Exception):
    """An error that a person or a program can act on.

    Args:
        sentence: what is wrong and what to do next, in one or two sentences.
        field: the name of the invalid argument, if there is one.
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

    @property
    def headers(self) -> dict[str, str]:
        """Return the HTTP headers that belong to the error: when to try again, if that is known."""
        return {"Retry-After": str(self.details["retry_after"])} if "retry_after" in self.details else {}


class InvalidValue(PortError):
    """A value that its field does not accept."""

    code = "invalid_value"


class InvalidName(InvalidValue):
    """A project, service, range or host name with characters that are not allowed."""

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
    """There is no project with that name. The details list similar names."""

    code = "unknown_project"


class UnknownService(NotFound):
    """The project holds no port for a service with that name."""

    code = "unknown_service"


class UnknownRange(NotFound):
    """There is no range with that name or id, or none that the project may use."""

    code = "unknown_range"


class UnknownAllocation(NotFound):
    """There is no allocation with that id."""

    code = "unknown_allocation"


class UnknownHost(NotFound):
    """No admin has approved a host with that name."""

    code = "unknown_host"


class UnknownToken(NotFound):
    """The caller has no token with that id."""

    code = "unknown_token"


class Conflict(PortError):
    """The current state of the registry does not allow the change."""

    code = "conflict"
    status = 409


class PortTaken(Conflict):
    """Another service holds the port, or an unallocated listener occupies it."""

    code = "port_taken"


class AlreadyAllocated(Conflict):
    """The service holds a different port from the requested one."""

    code = "already_allocated"


class HostnameTaken(Conflict):
    """The Cloudflare hostname points at another allocation."""

    code = "hostname_taken"


class NameTaken(Conflict):
    """Another project, range or service has that name."""

    code = "name_taken"


class RangeExhausted(Conflict):
    """The range has no free port left."""

    code = "range_exhausted"


class RangeOverlap(Conflict):
    """The span shares ports with another range."""

    code = "range_overlap"


class RangeInUse(Conflict):
    """The range cannot be shrunk, moved, handed over or deleted while ports in it are held."""

    code = "range_in_use"


class ProjectInUse(Conflict):
    """The project cannot be deleted while it has ranges, ports or a history."""

    code = "project_in_use"


class AlreadyReleased(Conflict):
    """The allocation was released, and a released allocation never changes."""

    code = "already_released"


class Ambiguous(Conflict):
    """The request matches several allocations. The details list them."""

    code = "ambiguous"


class LastAdmin(Conflict):
    """The change would leave Portal without an admin."""

    code = "last_admin"


class QuotaReached(Conflict):
    """The token already holds as many ports of the project as the quota allows."""

    code = "quota_reached"


class Stale(PortError):
    """Somebody has changed the object since the caller read it."""

    code = "stale"
    status = 412


class KeyReused(PortError):
    """The Idempotency-Key was used before with a different request."""

    code = "key_reused"
    status = 422


class TooManyRequests(PortError):
    """The caller has exceeded their rate limit. `retry_after` in the details is in seconds."""

    code = "too_many_requests"
    status = 429


class Unavailable(PortError):
    """The database does not answer, or not in time. Nothing was changed; the caller can try again.

    `retry_after` in the details is in seconds.
    """

    code = "unavailable"
    status = 503
