"""The rules for every value that enters Portal. Each door and each operation calls them.

A validator is named after its field. It takes the value as the caller gave it, and returns it normalized or raises an
InvalidValue that names the field, the value and the rule. The `parse_` functions do the same for text that people type.
The database enforces the same rules as constraints (see models/).
"""

from __future__ import annotations

import ipaddress
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

from django.utils import timezone

from . import hosts
from .errors import InvalidName, InvalidValue, PortOutOfRange
from .hosts import LOCALHOST as LOCALHOST
from .text import quoted

TCP, UDP = "tcp", "udp"
PROTOCOLS = (TCP, UDP)
FIRST_PORT, LAST_PORT = 1, 65535
DEFAULT_RANGE_SIZE = 100
# Far enough for any plan, near enough that a typing mistake (year 9999) is noticed.
LONGEST_RESERVATION = timedelta(days=3660)
TOKEN_LIFE, LONGEST_TOKEN_LIFE = timedelta(days=90), timedelta(days=366)
LONGEST_TEXT, LONGEST_TYPE = 2000, 100

# `$` matches only at the end of the text in PostgreSQL; in Python that is `\Z`.
NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,254}$"
# RFC 1123 labels, separated by dots. IP literals are checked separately.
HOST_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$"
# What the database checks: the characters of a host name or an IP literal, and that it is not an address of this host.
HOST_DATABASE_PATTERN = (
    r"^(?!127(\.[0-9]+){3}$|0\.0\.0\.0$|::1?$)"
    r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?|[0-9a-f:]*:[0-9a-f:.]*(%[a-z0-9._-]+)?)$"
)
DURATION = r"([0-9]{1,5})\s*([mhdw])"
# PostgreSQL cannot store a NUL, and UTF-8 cannot encode half of a surrogate pair.
UNSTORABLE = "[\x00\ud800-\udfff]"
# Control characters except tab and newline, and lone surrogates.
CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")


def label(field: str) -> str:
    """Return the name of a field for a sentence: `start_port` becomes `Start port`."""
    return field.replace("_", " ").capitalize()


# Names


def is_name(value: str) -> bool:
    """Return whether a project, service or range could have this name."""
    return re.fullmatch(NAME_PATTERN.replace("$", r"\Z"), value) is not None


def _name(value: object, kind: str, field: str) -> str:
    if not isinstance(value, str) or not is_name(value):
        raise InvalidName(
            f"{kind} name {quoted(value)} is not valid: use 1 to 255 of a-z 0-9 . _ -, "
            "starting with a letter or a digit.",
            field=field,
        )
    return value


def project_name(value: object, field: str = "project") -> str:
    """Return a valid project name."""
    return _name(value, "Project", field)


def service_name(value: object) -> str:
    """Return a valid service name."""
    return _name(value, "Service", "service_name")


def range_name(value: object) -> str:
    """Return a valid range name. The rule is the same as for projects and services."""
    return _name(value, "Range", "range_name")


def token_name(value: object) -> str:
    """Return a valid token name: short text on one line. A slash separates it from its user's name in the history."""
    name = text(value, "name", 100).strip()
    if name and not {"\n", "/"} & set(name):
        return name
    raise InvalidName(
        f"Token name {quoted(value)} is not valid: use 1 to 100 characters on one line, without a slash.", field="name"
    )


# Places


def hostname(value: object) -> str:
    """Return a host as the registry calls it: an RFC 1123 name or an IP literal, in lower case.

    This host is always `localhost`, whether the caller gave nothing, its own name, a loopback address or the address of
    one of its interfaces. If a host had two names, its ports would be allocated twice.

    Raises:
        InvalidName: the value is neither a host name nor an IP address.
    """
    if value is None or value == "":
        return LOCALHOST
    if isinstance(value, str):
        name = value.lower().removesuffix(".")
        if name.startswith("[") and name.endswith("]"):
            name = name[1:-1]
        if not name.isascii():
            name = ""  # Python would accept digits of other scripts
        if (address := _address(name)) is not None:
            return LOCALHOST if hosts.is_address_of_this_host(address) else str(address)
        if hosts.is_name_of_this_host(name):
            return LOCALHOST
        # Some resolvers read a name whose last label is a number as an address ("127.1", "0x7f000001").
        is_host = len(name) <= 253 and re.fullmatch(HOST_PATTERN.replace("$", r"\Z"), name)
        if is_host and not re.fullmatch(r"[0-9]+|0x[0-9a-f]*", name.rsplit(".", 1)[-1]):
            return name
    raise InvalidName(
        f"Host {quoted(value)} is not valid: use a name such as web-1.example.com or an IP address.", field="hostname"
    )


def _address(name: str) -> hosts.Address | None:
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        return None if address.scope_id else address.ipv4_mapped or address
    return address


def cloudflare_hostname(value: object) -> str | None:
    """Return the public hostname of a Cloudflare tunnel in lower case, or None if there is none."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        name = value.lower().removesuffix(".")
        bare = name.removeprefix("*.")
        if len(name) <= 253 and "." in bare and re.fullmatch(HOST_PATTERN.replace("$", r"\Z"), bare):
            return name
    raise InvalidName(
        f"Cloudflare hostname {quoted(value)} is not a public name: use one such as api.example.com.",
        field="cloudflare_hostname",
    )


def protocol(value: object) -> str:
    """Return `tcp` (the default for None or an empty string) or `udp`."""
    if value is None or value == "":
        return TCP
    if isinstance(value, str) and value in PROTOCOLS:
        return value
    raise InvalidValue(f"Protocol {quoted(value)} is not valid: use tcp or udp.", field="protocol")


# Numbers


def port_number(value: object, field: str = "port_number") -> int:
    """Return a port number from 1 to 65535. Only integers are accepted: no text, no booleans."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise PortOutOfRange(f"{label(field)} {quoted(value)} is not a whole number from 1 to 65535.", field=field)
    if not FIRST_PORT <= value <= LAST_PORT:
        raise PortOutOfRange(f"{label(field)} {quoted(value)} is out of range: ports are 1 to 65535.", field=field)
    return value


def parse_port_number(value: str, field: str = "port_number") -> int:
    """Return a port number written in ASCII digits, as a shell or a form delivers it."""
    digits = value.strip()
    if not re.fullmatch(r"[0-9]{1,6}", digits):
        raise PortOutOfRange(f"{label(field)} {quoted(value)} is not a whole number from 1 to 65535.", field=field)
    return port_number(int(digits), field)


def size(value: object) -> int:
    """Return the number of ports of a range."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LAST_PORT:
        raise InvalidValue(f"Size {quoted(value)} is not a number of ports from 1 to {LAST_PORT}.", field="size")
    return value


def parse_size(value: str) -> int:
    """Return the number of ports of a range, written in ASCII digits."""
    digits = value.strip()
    return size(int(digits) if re.fullmatch(r"[0-9]{1,6}", digits) else value)


def port_span(start_port: object, end_port: object) -> tuple[int, int]:
    """Return the start port and the end port of an inclusive span."""
    start, end = port_number(start_port, "start_port"), port_number(end_port, "end_port")
    if start > end:
        raise InvalidValue(f"{start}-{end} is not a span: the start port comes first.", field="start_port")
    return start, end


def parse_port_span(value: str, field: str = "") -> tuple[int, int]:
    """Return the span that `3150` or `3150-3159` means.

    Args:
        field: the name of the argument, for errors; by default errors name the port that is wrong.
    """
    try:
        first, dash, last = value.partition("-")
        start = parse_port_number(first)
        return port_span(start, parse_port_number(last) if dash else start)
    except InvalidValue as error:
        error.field = field or error.field
        raise


def agent_quota(value: object) -> int:
    """Return how many ports each token may hold in a project."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LAST_PORT:
        raise InvalidValue(f"Quota {quoted(value)} is not a number of ports from 0 to 65535.", field="agent_quota")
    return value


# Text


def text(value: object, field: str, longest: int = LONGEST_TEXT) -> str:
    """Return free text without control characters and with at most `longest` characters; None becomes empty."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidValue(f"{label(field)} {quoted(value)} is not text.", field=field)
    if CONTROL_CHARACTERS.search(value):
        raise InvalidValue(f"{label(field)} contains a control character: use plain text.", field=field)
    if len(value) > longest:
        raise InvalidValue(f"{label(field)} has {len(value)} characters: use at most {longest}.", field=field)
    return value


def description(value: object) -> str:
    """Return a valid description."""
    return text(value, "description")


def service_type(value: object) -> str:
    """Return the kind of a service (`api`, `web`, `database`): short free text."""
    return text(value, "service_type", LONGEST_TYPE)


def metadata(value: object) -> dict[str, Any]:
    """Return a JSON object of at most 16 KB and 16 levels, for the caller's own use."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidValue("Metadata is not a JSON object.", field="metadata")
    try:
        written = json.dumps(value, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        raise InvalidValue("Metadata contains a value that JSON cannot represent.", field="metadata") from None
    if len(written) > 16_384:
        raise InvalidValue(f"Metadata has {len(written)} characters: use at most 16384.", field="metadata")
    if not is_storable(value):
        raise InvalidValue("Metadata contains a NUL or half of a surrogate pair.", field="metadata")
    if _depth(value) > 16:
        raise InvalidValue("Metadata is nested more than 16 levels deep.", field="metadata")
    return value


def is_storable(value: object) -> bool:
    """Return whether PostgreSQL can store every text in a JSON value, member names included."""
    if isinstance(value, str):
        return re.search(UNSTORABLE, value) is None
    if isinstance(value, dict):
        return all(is_storable(name) and is_storable(member) for name, member in value.items())
    return all(is_storable(item) for item in value) if isinstance(value, list) else True


def _depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max((_depth(member) for member in value.values()), default=0)
    if isinstance(value, list):
        return 1 + max((_depth(item) for item in value), default=0)
    return 0


def mode(value: object) -> str:
    """Return who decides about the ports that agents request: `autonomous` or `ask`."""
    if value in ("autonomous", "ask"):
        return str(value)
    raise InvalidValue(f"Mode {quoted(value)} is not valid: use autonomous or ask.", field="mode")


def idempotency_key(value: object) -> str:
    """Return the key by which a client marks the repetitions of a request: 1 to 128 printable ASCII characters."""
    if isinstance(value, str) and re.fullmatch(r"[!-~]{1,128}", value):
        return value
    raise InvalidValue(
        f"Idempotency-Key {quoted(value)} is not valid: use 1 to 128 printable ASCII characters without spaces.",
        field="Idempotency-Key",
    )


# Times


def expires_at(value: object) -> datetime | None:
    """Return when something expires: a time in the future, at most ten years from now; None means never."""
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise InvalidValue(f"Expiry {quoted(value)} is not a date and time.", field="expires_at")
    moment = timezone.make_aware(value) if timezone.is_naive(value) else value
    now = timezone.now()
    if moment <= now:
        raise InvalidValue(f"Expiry {moment:%Y-%m-%d %H:%M} is in the past.", field="expires_at")
    if moment - now > LONGEST_RESERVATION:
        raise InvalidValue(f"Expiry {moment:%Y-%m-%d} is more than ten years away.", field="expires_at")
    return moment.astimezone(UTC)


def parse_expires_at(value: str) -> datetime | None:
    """Return the time that `2h`, `7d`, `2w`, `2027-01-31` or `2027-01-31T18:00` means; empty text means never."""
    written = value.strip()
    if not written:
        return None
    if re.fullmatch(DURATION, written):
        return expires_at(timezone.now() + parse_duration(written, "expires_at"))
    try:
        return expires_at(datetime.fromisoformat(written))
    except (ValueError, OverflowError):
        raise InvalidValue(
            f"Expiry {quoted(value)} is not valid: write 2h, 7d or a date such as 2027-01-31.", field="expires_at"
        ) from None


def token_expires_at(value: object) -> datetime:
    """Return when a token expires: within 366 days; None means 90 days from now."""
    moment = expires_at(timezone.now() + TOKEN_LIFE if value is None else value)
    if moment is None or moment - timezone.now() > LONGEST_TOKEN_LIFE:
        raise InvalidValue("A token is valid for at most 366 days: choose an earlier expiry.", field="expires_at")
    return moment


def parse_duration(value: str, field: str) -> timedelta:
    """Return the length of time that `30m`, `12h`, `30d` or `8w` means."""
    written = re.fullmatch(DURATION, value.strip())
    if written is None:
        raise InvalidValue(f"{label(field)} {quoted(value)} is not valid: write 30m, 12h, 30d or 8w.", field=field)
    unit = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}[written[2]]
    return timedelta(**{unit: int(written[1])})
