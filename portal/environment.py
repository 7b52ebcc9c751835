"""Read the environment variables of Portal, with one function for each type of value.

An empty variable is treated as if it weren't set. If a value is invalid, the functions raise ImproperlyConfigured with
a message that names the variable and the rule.
"""

import ipaddress
import os
import re
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

VARIABLES = (
    "PORTAL_ENV_FILE",
    "DATABASE_URL",
    "DATABASE_OWNER_URL",
    "PORTAL_HOME",
    "PORTAL_USER",
    "PORTAL_HOST",
    "PORTAL_PORT",
    "PORTAL_WORKERS",
    "PORTAL_SECRET_KEY",
    "PORTAL_ALLOWED_HOSTS",
    "PORTAL_TRUSTED_PROXIES",
    "PORTAL_ANONYMOUS_READ",
    "PORTAL_DATABASE_SESSIONS",
    "PORTAL_RATE_LIMIT",
    "PORTAL_ADMIN_PASSWORD",
    "PORTAL_ALERT_URLS",
    "PORTAL_CHECK_RETENTION_DAYS",
)


def read_env_file(path: Path) -> set[str]:
    """Add the NAME=value lines of a file to the environment, and return the names that were added.

    Variables that are already in the environment keep their values.

    Raises:
        ImproperlyConfigured: a line has another form.
    """
    added = set()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        # As in a shell, a comment must follow white space and cannot begin inside quotes.
        value = r"(?:\"([^\"]*)\"|'([^']*)'|(.*?))(?:\s+#.*)?\s*"
        match = re.fullmatch(rf"\s*(?:export\s+)?([A-Z_][A-Z0-9_]*)\s*=\s*{value}", line)
        if not match:
            raise ImproperlyConfigured(
                f"{path}, line {number} does not have the form NAME=value. Correct or remove it."
            )
        name, *values = match.groups()
        if name not in os.environ:
            os.environ[name] = next(value for value in values if value is not None)
            added.add(name)
    return added


def invalid(name: str, rule: str) -> ImproperlyConfigured:
    """Return the error for an invalid variable, with its value, unless that may be a secret, and the rule."""
    value = "" if re.search("KEY|PASSWORD|URL", name) else f" ({os.environ[name]!r})"
    return ImproperlyConfigured(f"{name}{value} is invalid: {rule}. Correct it in the environment or in .env.")


def text(name: str, default: str = "") -> str:
    """Return the value without surrounding white space."""
    return os.environ.get(name, "").strip() or default


def items(name: str) -> list[str]:
    """Return the items of a list that is separated by commas or white space."""
    return re.split(r"[\s,]+", text(name)) if text(name) else []


def number(name: str, default: int, lowest: int, highest: int) -> int:
    """Return a whole number from `lowest` to `highest`."""
    value = text(name, str(default))
    if not re.fullmatch(r"[0-9]{1,9}", value) or not lowest <= int(value) <= highest:
        raise invalid(name, f"it must be a whole number from {lowest} to {highest}")
    return int(value)


def flag(name: str) -> bool:
    """Return True for 1, true, yes or on, and False for 0, false, no or off."""
    value = text(name, "0").lower()
    if value not in {"0", "1", "false", "true", "no", "yes", "off", "on"}:
        raise invalid(name, "it must be 1 or 0")
    return value in {"1", "true", "yes", "on"}


def host(name: str, value: str) -> str:
    """Return a host name or IP address in its normal form, without brackets.

    Args:
        name: the variable that contains the value.
        value: the value, or one item of it.
    """
    try:
        return str(ipaddress.ip_address(value.strip("[]")))
    except ValueError:
        if not re.fullmatch(r"\.?[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", value, re.IGNORECASE):
            raise invalid(name, "it must contain host names or IP addresses, without scheme and port") from None
        return value.lower()


def is_loopback(name: str) -> bool:
    """Return True if a host name or IP address is that of the loopback interface."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")
