"""manage.py run: run a service on its port."""

import os
import sys
from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.management import CommandParser
from django.db import connection

from allocations import listeners, runner, validators
from allocations.errors import InvalidValue
from allocations.management.command import PortCommand
from allocations.ports import allocations
from allocations.text import process_name


class Command(PortCommand):
    help = (
        "Run a command on the port of its service, which is allocated if it has none. PORT, HOST, PORTAL_PROJECT and "
        "PORTAL_SERVICE are set, and {port} and {host} in the arguments are replaced. Signals and the exit status are "
        "passed on."
    )
    example = "manage.py run consilio/docs -- python -m http.server {port}"

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """Keep argparse from reading what follows `--`: it belongs to the command, options included."""
        parser = super().create_parser(prog_name, subcommand, usage="%(prog)s PROJECT/SERVICE -- COMMAND …", **kwargs)
        parse = parser.parse_args

        def parse_args(args: Sequence[str] | None = None, namespace: Any = None) -> Any:
            words = list(sys.argv[1:] if args is None else args)
            end = words.index("--") if "--" in words else len(words)
            options = parse(words[:end], namespace)
            options.command = words[end + 1 :]
            return options

        parser.parse_args = parse_args  # type: ignore[method-assign,assignment]
        return parser

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("service", metavar="PROJECT/SERVICE")
        parser.add_argument(
            "--type", dest="service_type", default="", metavar="TYPE", help="what it is: api, web, database, …"
        )
        parser.add_argument("--protocol", choices=validators.PROTOCOLS, default=validators.TCP)
        parser.add_argument(
            "--wait",
            type=float,
            default=runner.LISTEN_TIMEOUT,
            metavar="SECONDS",
            help="warn if it is not listening by then",
        )

    def handle(self, **options: Any) -> None:
        project, slash, service = options["service"].partition("/")
        command = options["command"]
        if not slash or not command:
            raise InvalidValue("Write it as: run PROJECT/SERVICE -- COMMAND …", field="service_name")
        protocol = options["protocol"]
        allocation = allocations.get_or_allocate(
            self.context, project, service, service_type=options["service_type"], protocol=protocol
        )
        connection.close()  # the command may run for months
        port, host = allocation.port_number, "127.0.0.1"
        self.say(f"{allocation.label} runs on {allocation.address}.")
        if (socket := listeners.is_listening(port, protocol)) is not None:
            pid = f" (pid {socket.pid})" if socket.pid else ""
            self.say(f"{process_name(socket.process)}{pid} already listens on {port}: is the service running twice?")
        self.stderr.flush()
        # Leave out Portal's own variables, because the command may be a Django project itself.
        own = {"DJANGO_SETTINGS_MODULE", *settings.ENV_FILE_NAMES}
        environment = {name: value for name, value in os.environ.items() if name not in own} | {
            "PORT": str(port),
            "HOST": host,
            "PORTAL_PROJECT": project,
            "PORTAL_SERVICE": service,
        }
        try:
            arguments = runner.fill_placeholders(command, port, host)
            status = runner.run(arguments, environment, port, protocol, self.say, options["wait"])
        except runner.CannotRun as error:
            self._end(str(error), error.status)
            return
        if status:
            self._end("", status)
