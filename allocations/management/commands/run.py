"""manage.py run: a service on its port."""

import os
import sys
from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.management import CommandParser
from django.db import connection

from allocations import errors, listeners, running, words
from allocations.management.command import PortCommand


class Command(PortCommand):
    help = (
        "Run a command on its service's port, allocated if it has none: PORT, HOST, PORTAL_PROJECT and PORTAL_SERVICE "
        "are set, {port} and {host} in its arguments are replaced. Signals and the exit status pass through."
    )
    example = "manage.py run consilio/docs -- python -m http.server {port}"

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """What stands behind `--` is the command's own, flags and all: argparse would look into it."""
        parser = super().create_parser(prog_name, subcommand, usage="%(prog)s PROJECT/SERVICE -- COMMAND …", **kwargs)
        parse = parser.parse_args

        def parse_args(args: Sequence[str] | None = None, namespace: Any = None) -> Any:
            given = list(sys.argv[1:] if args is None else args)
            at = given.index("--") if "--" in given else len(given)
            found = parse(given[:at], namespace)
            found.command = given[at + 1 :]
            return found

        parser.parse_args = parse_args  # type: ignore[method-assign,assignment]
        return parser

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("service", metavar="PROJECT/SERVICE")
        parser.add_argument("--type", default="", metavar="TYPE", help="what it is: api, web, database, …")
        parser.add_argument("--protocol", choices=words.PROTOCOLS, default=words.TCP)
        parser.add_argument(
            "--wait", type=float, default=running.PATIENCE, metavar="SECONDS", help="warn if it does not listen by then"
        )

    def handle(self, **options: Any) -> None:
        project, slash, service = options["service"].partition("/")
        command = options["command"]
        if not slash or not command:
            raise errors.InvalidValue("Write it as: run PROJECT/SERVICE -- COMMAND …", field="service")
        protocol = options["protocol"]
        given = self.ports.get_or_allocate(project, service, service_type=options["type"], protocol=protocol)
        connection.close()  # the command may run for months
        port, host = given.port_number, "127.0.0.1"
        self.say(f"{given.label} runs on {given.address}.")
        if (other := listeners.is_listening(port, protocol)) is not None:
            pid = f" (pid {other.pid})" if other.pid else ""
            self.say(f"{words.process_name(other.process)}{pid} listens on {port} already: does the service run twice?")
        self.stderr.flush()
        mine = {"DJANGO_SETTINGS_MODULE", *settings.ENV_FILE_NAMES}  # the command may be a Django project itself
        environment = {name: value for name, value in os.environ.items() if name not in mine} | {
            "PORT": str(port),
            "HOST": host,
            "PORTAL_PROJECT": project,
            "PORTAL_SERVICE": service,
        }
        try:
            filled = running.filled(command, port, host)
            status = running.run(filled, environment, port, protocol, self.say, options["wait"])
        except running.CannotRun as refusal:
            self._end(str(refusal), refusal.status)
            return
        if status:
            self._end("", status)
