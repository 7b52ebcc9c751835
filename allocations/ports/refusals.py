"""From what PostgreSQL refuses to what a person reads: the constraint's name is the contract.

Errors are told apart by SQLSTATE and constraint name, never by Django's exception class: the same fault arrives as
InternalError, OperationalError or DataError depending on when it strikes.
"""

from __future__ import annotations

from django.core.exceptions import ImproperlyConfigured
from django.db import DataError, InterfaceError, OperationalError
from django.db import Error as DatabaseFault

from allocations import errors

# Name of a constraint -> the error and its sentence. Operations that know more (who holds the port, which range
# overlaps) say more; this is the last word for every other route to the same constraint.
BY_CONSTRAINT: dict[str, tuple[type[errors.PortError], str]] = {
    "projects_known": (errors.UnknownProject, "There is no such project."),
    "projects_pkey": (errors.NameTaken, "A project with this id exists."),
    "projects_name": (
        errors.InvalidName,
        "A project's name is 1 to 255 of a-z 0-9 . _ -, beginning with a letter or digit.",
    ),
    "projects_name_key": (errors.NameTaken, "A project of this name exists: choose another name."),
    "port_ranges_name": (
        errors.InvalidName,
        "A range's name is 1 to 255 of a-z 0-9 . _ -, beginning with a letter or digit.",
    ),
    "port_ranges_range_name_key": (errors.NameTaken, "A range of this name exists: choose another name."),
    "port_ranges_bounds": (errors.PortOutOfRange, "A range lies in 1 to 65535, and its start port comes first."),
    "port_ranges_no_overlap": (
        errors.RangeOverlap,
        "The span shares ports with another range: choose a span that no range touches.",
    ),
    "port_ranges_project_fk": (errors.ProjectInUse, "The project has ranges: delete or move them first."),
    "port_ranges_known": (errors.UnknownRange, "There is no such range."),
    "port_ranges_active": (errors.UnknownRange, "The range is not active: no ports are given out from it."),
    "port_ranges_not_exhausted": (
        errors.RangeExhausted,
        "The range has no free port: release one, or extend the range.",
    ),
    "port_allocations_project_fk": (
        errors.ProjectInUse,
        "The project has ports in its history, which is kept: it cannot be deleted. Deactivate its ranges instead.",
    ),
    "port_allocations_range_fk": (
        errors.RangeInUse,
        "Ports of this range are held or in its history, which is kept: deactivate the range instead.",
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
        "A service's name is 1 to 255 of a-z 0-9 . _ -, beginning with a letter or digit.",
    ),
    "port_allocations_canonical_host": (
        errors.InvalidName,
        "The host has another name in the registry: this machine is localhost, an address stands in its shortest form.",
    ),
    "port_allocations_hostname": (errors.InvalidName, "The host is not a host name or an IP address."),
    "port_allocations_cloudflare": (errors.InvalidName, "The Cloudflare hostname is not a public host name."),
    "port_allocations_health": (errors.InvalidValue, "The health is up, down, conflict or unknown."),
    "port_allocations_expiry": (errors.InvalidValue, "Only a reservation expires."),
    "port_allocations_released_at": (errors.InvalidValue, "The time of release goes with the status released."),
    "port_allocations_copies": (errors.UnknownRange, "There is no such range."),
    "port_allocations_inside_range": (
        errors.RangeInUse,
        "A held port would lie outside the range: release it first, or choose a span that keeps it.",
    ),
    "port_allocations_own_or_shared": (
        errors.RangeInUse,
        "Another project holds ports in this range, so it must stay shared: release them first.",
    ),
    "port_allocations_quota": (
        errors.QuotaReached,
        "{told}: release one that is not needed, or ask an admin to raise the project's quota.",
    ),
    "port_allocations_asked": (
        errors.NotPermitted,
        "In this project a person decides for which service an agent holds a port, and until when: ask one.",
    ),
    "port_allocations_pending_expires": (
        errors.InvalidValue,
        "A request expires: nobody waits for ever.",
    ),
    "projects_mode": (errors.InvalidValue, "A project's mode is autonomous or ask."),
    "projects_quota": (errors.InvalidValue, "A quota is 0 or more."),
    "port_allocations_kept": (errors.Conflict, "Allocations are never deleted: release them instead."),
    "port_allocations_born_held": (errors.InvalidValue, "An allocation begins as allocated or reserved."),
    "port_allocations_released_for_good": (
        errors.AlreadyReleased,
        "The allocation was released, and a released one never changes: allocate a new one.",
    ),
    "port_allocations_identity": (
        errors.Conflict,
        "An allocation keeps its project, range, host, protocol, port and instance: release it and allocate another.",
    ),
    "port_allocations_one_name": (errors.Conflict, "{told}."),
    "port_allocations_status_order": (errors.Conflict, "A held allocation can only become released."),
    "api_tokens_public": (errors.InvalidValue, "A token's public id is 8 letters and digits."),
    "api_tokens_public_id_key": (errors.Conflict, "A token with this public id exists: make it again."),
    "api_tokens_hash": (errors.InvalidValue, "A token's hash is 32 bytes."),
    "api_tokens_role": (errors.InvalidValue, "A token's role is scraper, viewer, operator or admin."),
    "api_tokens_expiry": (errors.InvalidValue, "A token expires in the future, within 366 days of its making."),
    "api_tokens_identity": (
        errors.Conflict,
        "A token keeps its secret, owner and role, and its rights never grow: make a new one.",
    ),
    "api_tokens_revoked_for_good": (errors.Conflict, "A revoked token stays revoked: make a new one."),
    "auth_user_last_admin": (
        errors.LastAdmin,
        "The last admin who is not limited cannot be removed: make another one first.",
    ),
    "idempotent_answers_key": (errors.Conflict, "A request with this Idempotency-Key is being answered: repeat it."),
    "port_health_checks_status": (errors.InvalidValue, "A check's verdict is up, down, conflict or unknown."),
    "port_health_checks_time": (errors.InvalidValue, "A response time is 0 or more milliseconds."),
    "listeners_port": (errors.PortOutOfRange, "Ports are 1 to 65535."),
    "listeners_one_socket": (errors.Conflict, "This listener is known already."),
    "events_kept": (errors.Conflict, "The history is kept as it was written."),
    "port_ranges_kept": (errors.Conflict, "The table has a history and is not emptied."),
    "projects_kept": (errors.Conflict, "The table has a history and is not emptied."),
}

SERIALIZATION_FAILURE, DEADLOCK, UNIQUE = "40001", "40P01", "23505"
# Lost races that a second look decides: another took the name or the port between our look and our insert, or the
# range changed under it.
RACES = {"port_allocations_one_instance", "port_allocations_one_holder", "port_allocations_range_copy_fk"}

# SQLSTATE (or its class) -> why the database cannot answer now.
UNAVAILABLE = {
    "57014": "it took too long",
    "55P03": "another change held a lock for too long",
    "53300": "it has no connection free",
    "53100": "its disk is full",
    "53200": "it is out of memory",
    "25006": "it is read-only for now",
    "25P03": "the transaction was idle for too long",
    "25P04": "the transaction took too long",
    "57P01": "it was shut down",
    "57P02": "it crashed and recovers",
    "57P03": "it is starting up",
    "42P01": "its tables are missing: run `manage.py migrate`",
    "42883": "its functions are missing: run `manage.py migrate`",
    "40001": "others changed the same rows again and again",
    "40P01": "others changed the same rows again and again",
}


def sqlstate_of(error: DatabaseFault) -> str:
    """The SQLSTATE that PostgreSQL gave, or the empty string: the connection itself failed."""
    return str(getattr(error.__cause__, "sqlstate", None) or "")


def constraint_of(error: DatabaseFault) -> str:
    """The name of the constraint that refused, or the empty string."""
    diagnostic = getattr(error.__cause__, "diag", None)
    return str(getattr(diagnostic, "constraint_name", None) or "")


def _told(error: DatabaseFault) -> str:
    """What our own guard said of it."""
    return str(getattr(error.__cause__.diag, "message_primary", ""))  # type: ignore[union-attr]


def is_passing(error: DatabaseFault) -> bool:
    """Whether the same operation, run again from its start, may well succeed."""
    return sqlstate_of(error) in {SERIALIZATION_FAILURE, DEADLOCK} or constraint_of(error) in RACES


def is_lost(error: DatabaseFault) -> bool:
    """Whether the connection itself is gone, or was never there."""
    state = sqlstate_of(error)
    return state.startswith(("08", "57P")) or (state == "" and isinstance(error, OperationalError | InterfaceError))


def refusal_of(error: DatabaseFault) -> errors.PortError | None:
    """The PortError for a database error; None where it is a bug that must not be dressed up."""
    if isinstance(error, ImproperlyConfigured):  # the embedded PostgreSQL does not start, and says why
        return errors.Unavailable(str(error), retry_after=5)
    constraint, state = constraint_of(error), sqlstate_of(error)
    if constraint in BY_CONSTRAINT:
        kind, sentence = BY_CONSTRAINT[constraint]
        return kind(sentence.replace("{told}", _told(error)), constraint=constraint)
    # DataError without a state: the driver itself refused a NUL.
    if state.startswith("22") or (
        state == "" and isinstance(error, DataError)
    ):  # a value that its column cannot carry: too long, out of range, a NUL
        return errors.InvalidValue("A value is too long, too large or holds characters that cannot be kept.")
    why = UNAVAILABLE.get(state)
    if why is None and is_lost(error):
        why = "it does not answer"
    if why is None:
        return None
    return errors.Unavailable(
        f"The database cannot answer now: {why}. Nothing was changed; try again in a moment.", retry_after=2
    )
