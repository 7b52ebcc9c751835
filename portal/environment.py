"""The environment variables of Portal: one helper per kind of value. Empty is as good as not set.

Each raises ImproperlyConfigured with a sentence that names the variable and the rule.
"""

import ipaddress
import os
import re
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

VARIABLES = (
    "DATABASE_URL",
    "PORTAL_HOME",
    "PORTAL_HOST",
    "PORTAL_PORT",
    "PORTAL_WORKERS",
    "PORTAL_SECRET_KEY",
    "PORTAL_ALLOWED_HOSTS",
    "PORTAL_TRUSTED_PROXIES",
    "PORTAL_ANONYMOUS_READ",
    "PORTAL_RATE_LIMIT",
    "PORTAL_ADMIN_PASSWORD",
    "PORTAL_ALERT_URLS",
    "PORTAL_CHECK_RETENTION_DAYS",
)


def read_env_file(path: Path) -> set[str]:
    """Put the NAME=value lines of `path` into the environment, which has the last word; return the names it lacked."""
    added = set()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        # A comment begins behind white space, as in a shell; within quotes there is none.
        value = r"(?:\"([^\"]*)\"|'([^']*)'|(.*?))(?:\s+#.*)?\s*"
        found = re.fullmatch(rf"\s*(?:export\s+)?([A-Z_][A-Z0-9_]*)\s*=\s*{value}", line)
        if not found:
            raise ImproperlyConfigured(f"{path}, line {number} is not of the form NAME=value: correct or remove it.")
        name, *values = found.groups()
        if name not in os.environ:
            os.environ[name] = next(value for value in values if value is not None)
            added.add(name)
    return added


def wrong(name: str, rule: str) -> ImproperlyConfigured:
    """Return the error for variable `name`: its value, unless that may hold a secret, and the rule it breaks."""
    value = "" if re.search("KEY|PASSWORD|URL", name) else f" ({os.environ[name]!r})"
    return ImproperlyConfigured(f"{name}{value} is not right: {rule}. Correct it in the environment or in .env.")


def text(name: str, default: str = "") -> str:
    return os.environ.get(name, "").strip() or default


def words(name: str) -> list[str]:
    """Return a list whose items are separated by commas or white space."""
    return re.split(r"[\s,]+", text(name)) if text(name) else []


def number(name: str, default: int, lowest: int, highest: int) -> int:
    value = text(name, str(default))
    if not re.fullmatch(r"[0-9]{1,9}", value) or not lowest <= int(value) <= highest:
        raise wrong(name, f"it takes a whole number from {lowest} to {highest}")
    return int(value)


def flag(name: str) -> bool:
    value = text(name, "0").lower()
    if value not in {"0", "1", "false", "true", "no", "yes", "off", "on"}:
        raise wrong(name, "it takes 1 or 0")
    return value in {"1", "true", "yes", "on"}


def host(name: str, value: str) -> str:
    """Return `value`, a host name or an IP address of the variable `name`."""
    try:
        return str(ipaddress.ip_address(value.strip("[]")))
    except ValueError:
        if not re.fullmatch(r"\.?[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", value, re.IGNORECASE):
            raise wrong(name, "it takes host names or IP addresses, without scheme and port") from None
        return value.lower()


def is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")
