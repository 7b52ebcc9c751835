"""Rules about names, hosts, ports and protocols, in one place for every door.

Each function takes what a caller gave, returns it normalised, or raises an InvalidValue that names the field, the
value and the rule. The database has the same rules as constraints (see models/).
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import Any

from django.utils import timezone

from .errors import InvalidName, InvalidValue, PortOutOfRange, quoted
from .hosts import HOST_PATTERN
from .hosts import LOCALHOST as LOCALHOST
from .hosts import host as host

TCP, UDP = "tcp", "udp"
PROTOCOLS = (TCP, UDP)
FIRST_PORT, LAST_PORT = 1, 65535
DEFAULT_RANGE_SIZE = 100
# Far enough for any plan, near enough that a slip of the keyboard (year 9999) is noticed.
LONGEST_RESERVATION = timedelta(days=3660)
TOKEN_LIFE, LONGEST_TOKEN_LIFE = timedelta(days=90), timedelta(days=366)

# In PostgreSQL `$` matches only at the end of the text; in Python that is `\Z`.
NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,254}$"
DURATION = r"([0-9]{1,5})\s*([mhdw])"
# Control characters but tab and newline, and lone surrogates, which PostgreSQL or UTF-8 cannot carry.
UNSTORABLE = "[\x00\ud800-\udfff]"  # a NUL, half of a surrogate pair
UNSPEAKABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")


def is_name(value: str) -> bool:
    """Whether a project or a service could be called so."""
    return re.fullmatch(NAME_PATTERN.replace("$", r"\Z"), value) is not None


def _name(value: object, field: str) -> str:
    if not isinstance(value, str) or not is_name(value):
        raise InvalidName(
            f"{field} {quoted(value)} is not a name: use 1 to 255 of a-z 0-9 . _ -, "
            "beginning with a letter or a digit.",
            field=field,
        )
    return value


def project_name(value: object) -> str:
    """A project's name."""
    return _name(value, "project")


def service_name(value: object) -> str:
    """A service's name."""
    return _name(value, "service")


def range_name(value: object) -> str:
    """A range's name: the same rule as for projects and services."""
    return _name(value, "range")


def protocol(value: object) -> str:
    """`tcp` (the default for None or the empty string) or `udp`."""
    if value is None or value == "":
        return TCP
    if isinstance(value, str) and value in PROTOCOLS:
        return value
    raise InvalidValue(f"protocol {quoted(value)} is unknown: use tcp or udp.", field="protocol")


def port(value: object, field: str = "port") -> int:
    """A port number, 1 to 65535; only whole numbers, no text, no true."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise PortOutOfRange(f"{field} {quoted(value)} is not a whole number from 1 to 65535.", field=field)
    if not FIRST_PORT <= value <= LAST_PORT:
        raise PortOutOfRange(f"{field} {quoted(value)} is not a port: ports are 1 to 65535.", field=field)
    return value


def port_text(value: str, field: str = "port") -> int:
    """A port number written in ASCII digits, for the doors whose input is text (shell, forms)."""
    text = value.strip()
    if not re.fullmatch(r"[0-9]{1,6}", text):
        raise PortOutOfRange(f"{field} {quoted(value)} is not a whole number from 1 to 65535.", field=field)
    return port(int(text), field)


def size(value: object) -> int:
    """How many ports a range has."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LAST_PORT:
        raise InvalidValue(f"size {quoted(value)} is not a number of ports from 1 to {LAST_PORT}.", field="size")
    return value


def size_text(value: str) -> int:
    """How many ports a range has, written in ASCII digits."""
    text = value.strip()
    return size(int(text) if re.fullmatch(r"[0-9]{1,6}", text) else value)


def span(first: object, last: object) -> tuple[int, int]:
    """An inclusive span of ports."""
    start, end = port(first, "start port"), port(last, "end port")
    if start > end:
        raise InvalidValue(f"{start}-{end} is upside down: the start port comes first.", field="start port")
    return start, end


def span_text(value: str) -> tuple[int, int]:
    """`3150` or `3150-3159`, as people write a port or a span of ports."""
    first, dash, last = value.partition("-")
    start = port_text(first)
    return span(start, port_text(last) if dash else start)


def text(value: object, field: str, longest: int = 2000) -> str:
    """Free text that people wrote: no control characters, no more than `longest` characters."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidValue(f"{field} {quoted(value)} is not text.", field=field)
    if UNSPEAKABLE.search(value):
        raise InvalidValue(f"{field} has a control character in it: only plain text is kept.", field=field)
    if len(value) > longest:
        raise InvalidValue(f"{field} has {len(value)} characters; at most {longest} are kept.", field=field)
    return value


def service_type(value: object) -> str:
    """What kind of service it is (`api`, `web`, `database`): free, short text."""
    return text(value, "type", 100)


def cloudflare_hostname(value: object) -> str | None:
    """The public hostname of a Cloudflare tunnel, lower-cased, or None for none."""
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


def metadata(value: object) -> dict[str, Any]:
    """A flat or nested JSON object of at most 16 KB and 16 levels, for the caller's own use."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidValue("metadata is not an object.", field="metadata")
    try:
        written = json.dumps(value, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        raise InvalidValue("metadata holds something that JSON cannot carry.", field="metadata") from None
    if len(written) > 16_384:
        raise InvalidValue(f"metadata has {len(written)} characters; at most 16384 are kept.", field="metadata")
    if not is_speakable(value):
        raise InvalidValue("metadata has a NUL or a broken character in it.", field="metadata")
    if _depth(value) > 16:
        raise InvalidValue("metadata is nested more than 16 levels deep.", field="metadata")
    return value


def is_speakable(value: object) -> bool:
    """Whether no text in it, names of members among it, has what PostgreSQL or UTF-8 cannot carry."""
    if isinstance(value, str):
        return re.search(UNSTORABLE, value) is None
    if isinstance(value, dict):
        return all(is_speakable(name) and is_speakable(member) for name, member in value.items())
    return all(is_speakable(item) for item in value) if isinstance(value, list) else True


def _depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max((_depth(v) for v in value.values()), default=0)
    if isinstance(value, list):
        return 1 + max((_depth(v) for v in value), default=0)
    return 0


def expiry(value: object) -> datetime | None:
    """When a reservation ends: a moment in the future, at most ten years from now; None never."""
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise InvalidValue(f"expiry {quoted(value)} is not a moment in time.", field="expires_at")
    moment = timezone.make_aware(value) if timezone.is_naive(value) else value
    now = timezone.now()
    if moment <= now:
        raise InvalidValue(f"expiry {moment:%Y-%m-%d %H:%M} is in the past.", field="expires_at")
    if moment - now > LONGEST_RESERVATION:
        raise InvalidValue(f"expiry {moment:%Y-%m-%d} is more than ten years away.", field="expires_at")
    return moment.astimezone(UTC)


def expiry_text(value: str) -> datetime | None:
    """An expiry as people write it: `2h`, `7d`, `2w`, `2027-01-31` or `2027-01-31T18:00`; empty for never."""
    written = value.strip()
    if not written:
        return None
    if re.fullmatch(DURATION, written):
        return expiry(timezone.now() + duration_text(written, "expires_at"))
    try:
        return expiry(datetime.fromisoformat(written))
    except (ValueError, OverflowError):
        raise InvalidValue(
            f"expiry {quoted(value)} is not understood: write 2h, 7d or a date such as 2027-01-31.",
            field="expires_at",
        ) from None


def process_name(value: object) -> str:
    """What a sentence calls a process: processes choose their names, and what looks like prose is not repeated."""
    if isinstance(value, str) and re.fullmatch(r"[\w.+:@-]{1,40}", value, re.ASCII):
        return value
    return "a process that cannot be named here"


def mode(value: object) -> str:
    """Who decides about the ports that agents ask for."""
    if value in ("autonomous", "ask"):
        return str(value)
    raise InvalidValue(f"mode {quoted(value)} is unknown: use autonomous or ask.", field="mode")


def quota(value: object) -> int:
    """How many ports each token may hold in a project."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LAST_PORT:
        raise InvalidValue(f"quota {quoted(value)} is not a number of ports from 0 to 65535.", field="agent_quota")
    return value


def token_name(value: object) -> str:
    """What a token is called, for its owner and the history: short text on one line."""
    name = text(value, "name", 100).strip()
    if name and not {"\n", "/"} & set(name):
        return name
    rule = "use 1 to 100 characters on one line, without /"
    raise InvalidName(f"token name {quoted(value)} is not a name: {rule}.", field="name")


def token_expiry(value: object) -> datetime:
    """When a token ends: within 366 days; None is 90 days from now."""
    moment = expiry(timezone.now() + TOKEN_LIFE if value is None else value)
    if moment is None or moment - timezone.now() > LONGEST_TOKEN_LIFE:
        raise InvalidValue("A token lives for 366 days at most: choose an earlier expiry.", field="expires_at")
    return moment


def idempotency_key(value: object) -> str:
    """The key by which a client marks the repetitions of one request: 1 to 255 printable ASCII characters."""
    if isinstance(value, str) and re.fullmatch(r"[!-~]{1,255}", value):
        return value
    rule = "use 1 to 255 printable ASCII characters without spaces"
    raise InvalidValue(f"Idempotency-Key {quoted(value)} is not a key: {rule}.", field="Idempotency-Key")


def duration_text(value: str, field: str) -> timedelta:
    """A length of time as people write it: `30m`, `12h`, `30d`, `8w`."""
    written = re.fullmatch(DURATION, value.strip())
    if written is None:
        raise InvalidValue(f"{field} {quoted(value)} is not understood: write 30m, 12h, 30d or 8w.", field=field)
    unit = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}[written[2]]
    return timedelta(**{unit: int(written[1])})


def nearest(name: str, names: list[str]) -> list[str]:
    """Up to three of `names` that look like `name`, the likest first."""
    return get_close_matches(name, names, n=3, cutoff=0.5)


def listed(names: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def either(names: list[str]) -> str:
    """`a`, `a or b`, `a, b or c`: names as a sentence lists them."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
