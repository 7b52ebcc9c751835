"""manage.py up: everything that a fresh machine needs, then the web server in the foreground."""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

from django.conf import settings
from django.core.management import CommandParser, call_command

from allocations import access, listeners, words
from allocations.errors import InvalidValue, PortTaken
from allocations.management.command import PortCommand
from allocations.ports.seeding import OWN_PROJECT, OWN_SERVICE, setting_up
from portal.environment import is_loopback


def anybody_may_look() -> bool:
    """Whether reading needs no login: nobody said anything else, and this Portal is reached from this machine alone."""
    is_said = bool(os.environ.get("PORTAL_ANONYMOUS_READ", "").strip())
    return not is_said and settings.EMBEDDED_DATABASE and is_loopback(settings.PORTAL_HOST) and not settings.HTTPS


class Command(PortCommand):
    help = (
        "Set up the database, seed the projects, and serve the dashboard until Ctrl-C. On an installation without "
        "users it makes `admin` and prints its password once."
    )
    sets_up = True
    example = "PORTAL_HOME=~/second PORTAL_PORT=3001 manage.py up"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", help="address to serve on (default: PORTAL_HOST, 127.0.0.1)")
        parser.add_argument("--port", metavar="N", help="port to serve on (default: PORTAL_PORT, 3000)")
        parser.add_argument("--workers", metavar="N", help="gunicorn workers (default: PORTAL_WORKERS, 2)")

    def handle(self, **options: Any) -> None:
        wanted = {"PORTAL_HOST": options["host"], "PORTAL_PORT": options["port"], "PORTAL_WORKERS": options["workers"]}
        given = {name: value for name, value in wanted.items() if value is not None}
        if any(os.environ.get(name) != value for name, value in given.items()):
            # The settings read the environment when they are loaded, and check it: begin again with the flags in it.
            os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | given)  # noqa: S606 no shell is meant
        host, port = settings.PORTAL_HOST, settings.PORTAL_PORT
        self._refuse_taken(port)
        self._refuse_foreign(host, port)
        self.say("Setting up the database …")
        with setting_up():
            call_command("migrate", interactive=False, verbosity=0)
            added = self.ports.seed(port)
            if added:
                self.say(f"Added {words.listed(added)}.")
            self._first_admin()
        call_command("collectstatic", interactive=False, verbosity=0)
        self._compare_own_port(port)
        shown = "localhost" if host in ("127.0.0.1", "::1") else f"[{host}]" if ":" in host else host
        self.say(f"Portal serves on http://{shown}:{port}   (Ctrl-C stops it)")
        if anybody_may_look():
            os.environ["PORTAL_ANONYMOUS_READ"] = "1"
            self.say("Anybody on this machine may read the API without a login (PORTAL_ANONYMOUS_READ=0 stops that).")
        self.stderr.flush()
        config = settings.BASE_DIR / "portal" / "gunicorn.conf.py"
        os.execv(sys.executable, [sys.executable, "-m", "gunicorn", "-c", str(config)])  # noqa: S606

    def _refuse_taken(self, port: int) -> None:
        found = listeners.is_listening(port, words.TCP)
        if found is not None:
            who = found.process or "a process of another user"
            pid = f" (pid {found.pid})" if found.pid else ""
            raise PortTaken(
                f"Port {port} is in use: {who}{pid} listens on {found.address}. If it is another Portal, open it; "
                f"otherwise serve on another port: PORTAL_PORT={port + 1} make up."
            )

    def _refuse_foreign(self, host: str, port: int) -> None:
        """An address that is not this machine's, before a web server tries it again and again."""
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind, protocol) as tried:
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tried.bind(address)
        except OSError as error:
            raise InvalidValue(
                f"Portal cannot serve on {host}:{port} ({error.strerror or error}): set PORTAL_HOST to an address of "
                "this machine, such as 127.0.0.1, or 0.0.0.0 for all of them, and PORTAL_PORT to one you may open.",
                field="host",
            ) from None

    def _first_admin(self) -> None:
        password = access.make_first_admin(settings.PORTAL_ADMIN_PASSWORD)
        if password is None:
            return
        if settings.PORTAL_ADMIN_PASSWORD:
            self.say("Made the user admin with the password of PORTAL_ADMIN_PASSWORD.")
        else:
            self.say(
                f"Made the user admin with the password {password}   (shown this once: change it after logging in)"
            )

    def _compare_own_port(self, port: int) -> None:
        """Portal is a service like any other: say so when the registry gives it another port than it serves on."""
        registered = self.ports.own_port()
        if registered is not None and registered != port:
            self.say(
                f"The registry gives {OWN_PROJECT}/{OWN_SERVICE} port {registered}, and this Portal serves on {port}."
            )
