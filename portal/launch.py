"""Start the web server. If root starts Portal, the server runs as another account, and the observer as root."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from portal import account, checkout, home
from portal.environment import VARIABLES

# The server does not need the password of the first user, nor the rights of the owner.
NOT_FOR_THE_SERVER = {"PORTAL_ADMIN_PASSWORD", "DATABASE_OWNER_URL", "PORTAL_USER"}
# What else it gets from the environment of root.
LOCALE = ("LANG", "LC_ALL", "TZ")
FIRST_UNPRIVILEGED = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")


def serve() -> NoReturn:
    """Turn this process into the web server."""
    if account.is_needed():
        _serve_as(account.service_account())
    for name in ("PORTAL_ADMIN_PASSWORD", "DATABASE_OWNER_URL"):
        os.environ[name] = ""  # empty, it also takes precedence over the one in .env
    _execute(checkout.Checkout(checkout.ROOT, Path(sys.executable)), dict(os.environ))


def refuse_low_port(port: int) -> None:
    """Refuse a port that only root may open, if the server does not run as root.

    Raises:
        ImproperlyConfigured: it is such a port.
    """
    if not account.is_needed():
        return
    try:
        first = int(FIRST_UNPRIVILEGED.read_text())
    except (OSError, ValueError):
        first = 1024
    if port < first:
        raise ImproperlyConfigured(
            f"PORTAL_PORT is {port}, but Portal does not serve as root, and other accounts may only open ports from "
            f"{first} on. Serve on another port, and let a proxy listen on {port}."
        )


def _serve_as(user: account.Account) -> NoReturn:
    code = checkout.readable_by(user, settings.PORTAL_HOME)
    environment = _environment() | code.environment
    home.make_own(settings.PORTAL_HOME / "observer", 0o710)
    _start_observer(user)
    account.become(user)
    os.chdir(code.root)
    _execute(code, environment)


def _execute(code: checkout.Checkout, environment: dict[str, str]) -> NoReturn:
    config = str(code.root / "portal" / "gunicorn.conf.py")
    os.execve(code.python, [str(code.python), "-m", "gunicorn", "-c", config], environment)  # noqa: S606 without a shell


def _environment() -> dict[str, str]:
    """Return Portal's own variables, among them those that root has read from .env."""
    names = {*VARIABLES, *LOCALE} - NOT_FOR_THE_SERVER
    variables = {name: os.environ[name] for name in sorted(names) if os.environ.get(name)}
    variables |= {"PORTAL_HOME": str(settings.PORTAL_HOME), "PORTAL_ENV_FILE": os.devnull}
    return {"PATH": os.defpath, "HOME": "/", "DJANGO_SETTINGS_MODULE": "portal.settings", **variables}


def _start_observer(user: account.Account) -> None:
    """Start the observer, which ends when the server does: this process becomes the server."""
    command = [sys.executable, "-m", "allocations.observer", str(settings.PORTAL_HOME), user.pw_name, str(os.getpid())]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DJANGO_SETTINGS_MODULE": ""}
    subprocess.Popen(command, cwd=checkout.ROOT, env=environment, stdin=subprocess.DEVNULL)
