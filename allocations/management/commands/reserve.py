"""manage.py reserve: reserve ports for later."""

from typing import Any

from django.core.management import CommandParser

from allocations import schemas, validators
from allocations.management.command import PortCommand
from allocations.ports import reservations
from allocations.text import process_name


class Command(PortCommand):
    help = "Reserve a port or a block of ports for later: it is not allocated until it is released or expires."
    example = "manage.py reserve consilio 3150-3159 --note 'phase 2' --expires 30d"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("project")
        parser.add_argument("ports", metavar="PORT[-PORT]")
        parser.add_argument("--note", dest="description", metavar="NOTE", default="", help="what it is for")
        parser.add_argument(
            "--expires", dest="expires_at", default="", metavar="WHEN", help="2h, 7d, 2w or a date (default: never)"
        )
        parser.add_argument("--host", dest="hostname", metavar="HOST", help="the host (default: localhost)")
        parser.add_argument("--protocol", choices=validators.PROTOCOLS, default=validators.TCP)
        parser.add_argument("--json", action="store_true")

    def handle(self, **options: Any) -> None:
        start_port, end_port = validators.parse_port_span(options["ports"])
        reserved = reservations.reserve_block(
            self.context,
            options["project"],
            start_port,
            end_port,
            description=options["description"],
            expires_at=validators.parse_expires_at(options["expires_at"]),
            hostname=options["hostname"],
            protocol=options["protocol"],
        )
        for socket in reservations.listening_on(reserved):
            self.say(f"{process_name(socket.process)} is listening on {socket.port}/{socket.protocol} already.")
        if options["json"]:
            self.json([schemas.Allocation.of(a).dump() for a in reserved])
            return
        expires_at = reserved[0].expires_at
        until = f" until {expires_at:%Y-%m-%d %H:%M} UTC" if expires_at else ""
        self.print(f"Reserved {options['ports']} for {options['project']}{until}.")
