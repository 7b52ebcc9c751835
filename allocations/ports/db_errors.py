"""Translate errors of PostgreSQL into PortErrors. The name of the violated constraint decides which.

Errors are told apart by SQLSTATE and constraint name, never by Django's exception class: the same error arrives as
InternalError, OperationalError or DataError, depending on when it happens.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from django.core.exceptions import ImproperlyConfigured
from django.db import DataError, InterfaceError, OperationalError
from django.db import Error as DatabaseError
from django.db.backends.signals import connection_created

from allocations import errors

logger = logging.getLogger(__name__)

# The error class and the sentence for each constraint. An operation that knows more (who holds the port, which range
# overlaps) says more; these are for everything else that violates the constraint.
NOT_CANONICAL = (
    "The host has another name in the registry: this machine is localhost, and an address is in its shortest form."
)
BY_CONSTRAINT: dict[str, tuple[type[errors.PortError], str]] = {
    "projects_known": (errors.UnknownProject, "There is no such project."),
    "projects_pkey": (errors.NameTaken, "A project with this id already exists."),
    "projects_name": (
        errors.InvalidName,
        "A project's name is 1 to 255 of a-z 0-9 . _ -, starting with a letter or a digit.",
    ),
    "projects_name_key": (errors.NameTaken, "A project with this name already exists: choose another name."),
    "port_ranges_name": (
        errors.InvalidName,
        "A range's name is 1 to 255 of a-z 0-9 . _ -, starting with a letter or a digit.",
    ),
    "port_ranges_range_name_key": (errors.NameTaken, "A range with this name already exists: choose another name."),
    "port_ranges_bounds": (errors.PortOutOfRange, "A range lies within 1 to 65535, and its start port comes first."),
    "port_ranges_no_overlap": (
        errors.RangeOverlap,
        "The span shares ports with another range: choose a span that no range touches.",
    ),
    "port_ranges_project_fk": (errors.ProjectInUse, "The project has ranges: delete or move them first."),
    "port_ranges_known": (errors.UnknownRange, "There is no such range."),
    "port_ranges_active": (errors.UnknownRange, "The range is not active: no ports are allocated from it."),
    "port_ranges_not_exhausted": (
        errors.RangeExhausted,
        "The range has no free port: release one, or extend the range.",
    ),
    "port_allocations_project_fk": (
        errors.ProjectInUse,
        "The project has ports in its history, so it cannot be deleted. Deactivate its ranges instead.",
    ),
    "port_allocations_range_fk": (
        errors.RangeInUse,
        "Ports of this range are held or in its history: deactivate the range instead.",
    ),
    "port_allocations_range_copy_fk": (errors.RangeInUse, "Ports of this range are held: release them first."),
    "port_allocations_one_holder": (errors.PortTaken, "Another service holds this port on this host: ask for another."),
    "port_allocations_one_instance": (
        errors.NameTaken,
        "The service already holds this instance on this host: choose another name.",
    ),
    "port_allocations_one_cloudflare": (
        errors.HostnameTaken,
        "The Cloudflare hostname points at another allocation: remove it there first.",
    ),
    "port_allocations_port": (errors.PortOutOfRange, "Ports are 1 to 65535."),
    "port_allocations_status": (errors.InvalidValue, "The status is allocated, reserved, pending or released."),
    "port_allocations_protocol": (errors.InvalidValue, "The protocol is tcp or udp."),
    "port_allocations_instance": (errors.InvalidValue, "An instance is 0 or more."),
    "port_allocations_service": (
        errors.InvalidName,
        "A service's name is 1 to 255 of a-z 0-9 . _ -, starting with a letter or a digit.",
    ),
    "port_allocations_canonical_host": (errors.InvalidName, NOT_CANONICAL),
    "hosts_canonical": (errors.InvalidName, NOT_CANONICAL),
    "port_allocations_hostname": (errors.InvalidName, "The host is not a host name or an IP address."),
    "port_allocations_cloudflare": (errors.InvalidName, "The Cloudflare hostname is not a public host name."),
    "port_allocations_health": (errors.InvalidValue, "The health is up, down, conflict or unknown."),
    "port_allocations_expiry": (errors.InvalidValue, "Only a reservation expires."),
    "port_allocations_released_at": (
        errors.InvalidValue,
        "An allocation has a release time if and only if its status is released.",
    ),
    "port_allocations_copies": (errors.UnknownRange, "There is no such range."),
    "port_allocations_inside_range": (
        errors.RangeInUse,
        "A held port would lie outside the range: release it first, or choose a span that keeps it.",
    ),
    "port_allocations_own_or_shared": (
        errors.RangeInUse,
        "Another project holds ports in this range, so it must stay shared: release them first.",
    ),
    "port_allocations_reservation": (
        errors.Conflict,
        "A reserved port belongs to a reservation: reserve it instead of changing the row.",
    ),
    "port_allocations_note": (
        errors.Conflict,
        "A reserved port has the note and the expiry of its reservation: change them there.",
    ),
    "port_allocations_reservation_fk": (errors.InvalidValue, "There is no such reservation."),
    "reservations_project_fk": (
        errors.ProjectInUse,
        "The project has reservations in its history, so it cannot be deleted. Deactivate its ranges instead.",
    ),
    "reservations_canonical_host": (errors.InvalidName, NOT_CANONICAL),
    "reservations_bounds": (errors.PortOutOfRange, "A block lies within 1 to 65535, and its start port comes first."),
    "reservations_protocol": (errors.InvalidValue, "The protocol is tcp or udp."),
    "reservations_kept": (errors.Conflict, "Reservations are never deleted: release their ports instead."),
    "reservations_identity": (
        errors.Conflict,
        "A reservation keeps its project, host, protocol and maker, and never changes after its release.",
    ),
    "reservations_complete": (
        errors.Conflict,
        "A reservation has exactly the ports from its start port to its end port: reserve or release ports instead.",
    ),
    "port_allocations_quota": (
        errors.QuotaReached,
        "{message}: release one that is no longer needed, or ask an admin to raise the project's quota.",
    ),
    "port_allocations_asked": (
        errors.NotPermitted,
        "In this project a person decides for which service an agent holds a port, and until when: ask an operator.",
    ),
    "port_allocations_pending_expires": (errors.InvalidValue, "A request needs an expiry."),
    "projects_mode": (errors.InvalidValue, "A project's mode is autonomous or ask."),
    "projects_quota": (errors.InvalidValue, "A quota is 0 or more."),
    "port_allocations_kept": (errors.Conflict, "Allocations are never deleted: release them instead."),
    "port_allocations_born_held": (errors.InvalidValue, "A new allocation is allocated or reserved, not released."),
    "port_allocations_released_for_good": (
        errors.AlreadyReleased,
        "The allocation was released, and a released allocation never changes: allocate a new one.",
    ),
    "port_allocations_identity": (
        errors.Conflict,
        "An allocation keeps its project, range, host, protocol, port and instance: release it and allocate another.",
    ),
    "port_allocations_one_name": (errors.Conflict, "{message}."),
    "port_allocations_status_order": (errors.Conflict, "The status of an allocation can only change to released."),
    "api_tokens_public": (errors.InvalidValue, "A token's public id is 8 letters and digits."),
    "api_tokens_public_id_key": (errors.Conflict, "A token with this public id already exists: make it again."),
    "api_tokens_hash": (errors.InvalidValue, "A token's hash is 32 bytes."),
    "api_tokens_role": (errors.InvalidValue, "A token's role is scraper, viewer, operator or admin."),
    "api_tokens_expiry": (errors.InvalidValue, "A token expires in the future, at most 366 days after it was made."),
    "api_tokens_identity": (
        errors.Conflict,
        "The secret, user and role of a token never change, and its rights never grow: make a new one.",
    ),
    "api_tokens_revoked_for_good": (errors.Conflict, "A revoked token stays revoked: make a new one."),
    "auth_user_last_admin": (
        errors.LastAdmin,
        "The last admin who is not limited cannot be removed: make another one first.",
    ),
    "idempotent_answers_key": (errors.Conflict, "A request with this Idempotency-Key is in progress: repeat it."),
    "port_health_checks_status": (errors.InvalidValue, "A check's verdict is up, down, conflict or unknown."),
    "port_health_checks_time": (errors.InvalidValue, "A response time is 0 or more milliseconds."),
    "listeners_port": (errors.PortOutOfRange, "Ports are 1 to 65535."),
    "listeners_one_socket": (errors.Conflict, "This listener is already recorded."),
    "events_kept": (errors.Conflict, "The history cannot be changed or deleted."),
    "port_ranges_kept": (errors.Conflict, "The table has a history and cannot be emptied."),
    "projects_kept": (errors.Conflict, "The table has a history and cannot be emptied."),
}

SERIALIZATION_FAILURE, DEADLOCK = "40001", "40P01"
# Lost races that a second attempt decides: another caller took the name or the port between our SELECT and our INSERT,
# or the range was changed in the meantime.
RACES = {"port_allocations_one_instance", "port_allocations_one_holder", "port_allocations_range_copy_fk"}

# SQLSTATE -> why the database cannot answer now.
UNAVAILABLE = {
    "57014": "the statement took too long",
    "55P03": "another change held a lock for too long",
    "53300": "it has no free connection",
    "53100": "its disk is full",
    "53200": "it is out of memory",
    "25006": "it is read-only at the moment",
    "25P03": "the transaction was idle for too long",
    "25P04": "the transaction took too long",
    "57P01": "it was shut down",
    "57P02": "it crashed and is recovering",
    "57P03": "it is starting up",
    "42P01": "its tables are missing: run `./manage.py migrate`",
    "42703": "its tables are those of an older Portal: run `./manage.py migrate`",
    "42501": "Portal lacks rights in it: run `./manage.py migrate`",
    "42883": "its functions are missing: run `./manage.py migrate`",
    "40001": "others kept changing the same rows",
    "40P01": "others kept changing the same rows",
}
# How PostgreSQL and PgBouncer refuse a connection for want of another.
EXHAUSTED = (
    *("too many clients", "remaining connection slots", "too many connections for"),
    *("no more connections allowed", "max_client_conn", "sessions of this process are in use"),
)


class Outage:
    """The time in which the database cannot be reached, which the log names once, with the database's own words."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: float | None = None

    def begins(self, error: DatabaseError) -> None:
        """Log the error, unless an outage has begun already."""
        with self._lock:
            if self._since is None:
                self._since = time.monotonic()
                logger.error("The database cannot be reached: %s", " ".join(str(error).split()))

    def ends(self, **signal: object) -> None:
        """Log that the database answers again, if it did not. Called for each new connection."""
        if self._since is None:
            return
        with self._lock:
            if self._since is not None:
                logger.error("The database answers again, after %.0f s.", time.monotonic() - self._since)
                self._since = None


outage = Outage()
connection_created.connect(outage.ends)


@contextmanager
def translated() -> Iterator[None]:
    """Raise the PortError for a database error in the block.

    Each door runs its views in this block, so that a read reports an outage in the same way as an operation does.
    """
    try:
        yield
    except DatabaseError as error:
        raise port_error_for(error) from error


def port_error_for(error: DatabaseError) -> errors.PortError:
    """Return the PortError for a database error.

    Raises:
        DatabaseError: the error itself, if it is a bug that must not be disguised.
    """
    if isinstance(error, ImproperlyConfigured):  # the embedded PostgreSQL does not start, and says why
        return errors.Unavailable(str(error), retry_after=5)
    constraint, state = constraint_of(error), sqlstate_of(error)
    if constraint in BY_CONSTRAINT:
        error_class, sentence = BY_CONSTRAINT[constraint]
        return error_class(sentence.replace("{message}", _message_of(error)), constraint=constraint)
    # A DataError without a state comes from the driver, which refused a NUL.
    if state.startswith("22") or (state == "" and isinstance(error, DataError)):
        return errors.InvalidValue("A value is too long, too large, or contains characters that cannot be stored.")
    reason = UNAVAILABLE.get(state) or (_why_disconnected(error) if is_disconnect(error) else None)
    if reason is None:
        raise error
    if is_disconnect(error):
        outage.begins(error)
    return errors.Unavailable(
        f"The database cannot answer now: {reason}. Nothing was changed; try again in a moment.", retry_after=2
    )


def is_transient(error: DatabaseError) -> bool:
    """Return whether the same operation, run again from its start, may succeed."""
    return sqlstate_of(error) in {SERIALIZATION_FAILURE, DEADLOCK} or constraint_of(error) in RACES


def is_disconnect(error: DatabaseError) -> bool:
    """Return whether the connection was lost or could not be made."""
    state = sqlstate_of(error)
    return state.startswith(("08", "57P")) or (state == "" and isinstance(error, OperationalError | InterfaceError))


def is_lost(error: DatabaseError) -> bool:
    """Return whether an earlier connection turned out to be lost, so that a new one may work at once."""
    return is_disconnect(error) and not isinstance(error.__cause__, psycopg.errors.ConnectionTimeout)


def _why_disconnected(error: DatabaseError) -> str:
    """Return why a connection could not be made, for which PostgreSQL gives no SQLSTATE to libpq's callers."""
    text = str(error)
    if any(sentence in text for sentence in EXHAUSTED):
        return UNAVAILABLE["53300"]
    return "it does not answer"


def sqlstate_of(error: DatabaseError) -> str:
    """Return the SQLSTATE from PostgreSQL, or an empty string if the connection itself failed."""
    return str(getattr(error.__cause__, "sqlstate", None) or "")


def constraint_of(error: DatabaseError) -> str:
    """Return the name of the violated constraint, or an empty string."""
    diagnostic = getattr(error.__cause__, "diag", None)
    return str(getattr(diagnostic, "constraint_name", None) or "")


def _message_of(error: DatabaseError) -> str:
    """Return the message of one of our own triggers."""
    diagnostic = getattr(error.__cause__, "diag", None)
    return str(getattr(diagnostic, "message_primary", None) or "")
