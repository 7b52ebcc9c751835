"""manage.py up: set up whatever is missing, then run the web server in the foreground."""

from __future__ import annotations

import os
import socket
import sys
import time
from typing import Any

from django.conf import settings
from django.core.management import CommandParser, call_command
from django.db import connection

from allocations import listeners, validators
from allocations.auth.lookup import create_first_admin
from allocations.errors import InvalidValue, PortTaken
from allocations.management.command import PortCommand
from allocations.ports.seed import OWN_PROJECT, OWN_SERVICE, exclusive_setup, own_port, seed
from allocations.text import join_and
from portal import account, home, launch, peers, probes
from portal.database import as_owner, set_limits
from portal.environment import is_loopback

RETRY_SECONDS = 1


def allows_anonymous_read() -> bool:
    """Return whether reading needs no login: only this machine reaches Portal, and the setting is not configured."""
    is_configured = bool(os.environ.get("PORTAL_ANONYMOUS_READ", "").strip())
    is_private = settings.EMBEDDED_DATABASE and is_loopback(settings.PORTAL_HOST) and not settings.HTTPS
    return not is_configured and is_private and peers.is_supported()


class Command(PortCommand):
    help = (
        "Set up the database, add the initial projects, and serve the dashboard until Ctrl-C. On an installation "
        "without users it creates `admin` and prints the password once."
    )
    sets_up = True
    example = "PORTAL_HOME=~/second PORTAL_PORT=3001 manage.py up"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", help="address to serve on (default: PORTAL_HOST, 127.0.0.1)")
        parser.add_argument("--port", metavar="N", help="port to serve on (default: PORTAL_PORT, 3000)")
        parser.add_argument("--setup-only", action="store_true", help="end after the setup, without serving")
        parser.add_argument("--workers", metavar="N", help="gunicorn workers (default: PORTAL_WORKERS, 2)")

    def handle(self, **options: Any) -> None:
        flags = {"PORTAL_HOST": options["host"], "PORTAL_PORT": options["port"], "PORTAL_WORKERS": options["workers"]}
        overrides = {name: value for name, value in flags.items() if value is not None}
        if any(os.environ.get(name) != value for name, value in overrides.items()):
            # The settings read and check the environment when they are loaded, so start again with the flags in it.
            os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | overrides)  # noqa: S606 without a shell
        host, port = settings.PORTAL_HOST, settings.PORTAL_PORT
        if not options["setup_only"]:
            self._refuse_taken(port)
            launch.refuse_low_port(port)
        self._refuse_foreign_address(host, port)
        self._wait_until_writable()
        self.say("Setting up the database …")
        with as_owner(), exclusive_setup():
            call_command("migrate", interactive=False, verbosity=0)
            self._first_admin()
            added = seed(self.context, port)
            if added:
                self.say(f"Added {join_and(added)}.")
        set_limits()
        home.prepare(settings.PORTAL_HOME)
        home.make_own(settings.PORTAL_HOME / "static", 0o755)
        call_command("collectstatic", interactive=False, verbosity=0)
        self._warn_of_own_port(port)
        if options["setup_only"]:
            return
        name = "localhost" if host in ("127.0.0.1", "::1") else f"[{host}]" if ":" in host else host
        user = f", as {account.service_account().pw_name}" if account.is_needed() else ""
        self.say(f"Portal serves on http://{name}:{port}{user}   (Ctrl-C stops it)")
        if allows_anonymous_read():
            os.environ["PORTAL_ANONYMOUS_READ"] = "1"
            self.say(
                "Everyone with an account on this machine can read the API without a token "
                "(PORTAL_ANONYMOUS_READ=0 stops that)."
            )
        self.stderr.flush()
        launch.serve()

    def _wait_until_writable(self) -> None:
        """Wait while the database takes no changes, as a standby that has not been promoted yet."""
        has_told = False
        while not probes.is_writable():
            if not has_told:
                self.say("The database is read-only, as a standby is. Portal starts once it takes changes …")
            has_told = True
            connection.close()
            time.sleep(RETRY_SECONDS)

    def _refuse_taken(self, port: int) -> None:
        socket = listeners.is_listening(port, validators.TCP)
        if socket is not None:
            process = socket.process or "a process of another user"
            pid = f" (pid {socket.pid})" if socket.pid else ""
            raise PortTaken(
                f"Port {port} is in use: {process}{pid} listens on {socket.address}. If it is another Portal, open it; "
                f"otherwise serve on another port: PORTAL_PORT={port + 1} make up."
            )

    def _refuse_foreign_address(self, host: str, port: int) -> None:
        """Refuse an address that this machine does not have, to which gunicorn would try to bind again and again."""
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind, protocol) as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                trial.bind(address)
        except OSError as error:
            raise InvalidValue(
                f"Portal cannot serve on {host}:{port} ({error.strerror or error}): set PORTAL_HOST to an address of "
                "this machine, such as 127.0.0.1, or 0.0.0.0 for all of them, and PORTAL_PORT to one you may open.",
                field="host",
            ) from None

    def _first_admin(self) -> None:
        password = create_first_admin(settings.PORTAL_ADMIN_PASSWORD)
        if password is None:
            return
        if settings.PORTAL_ADMIN_PASSWORD:
            self.say("Created the user admin with the password in PORTAL_ADMIN_PASSWORD.")
        else:
            self.say(
                f"Created the user admin with the password {password}   (shown only once: change it after logging in)"
            )

    def _warn_of_own_port(self, port: int) -> None:
        """Warn if the registry assigns another port to Portal than the one it serves on."""
        registered = own_port()
        if registered is not None and registered != port:
            self.say(
                f"The registry assigns port {registered} to {OWN_PROJECT}/{OWN_SERVICE}, but this Portal serves on "
                f"{port}."
            )
