"""manage.py move: move a service to another host or range."""

from typing import Any

from django.core.management import CommandParser

from allocations import schemas, validators
from allocations.errors import InvalidValue
from allocations.management.command import PortCommand
from allocations.ports import allocations


class Command(PortCommand):
    help = (
        "Release the port of a service and allocate one on another host or in another range, in one step. The service "
        "itself is not touched: change its configuration, and restart it."
    )
    example = "manage.py move consilio api --to-host web-2"

    def add_arguments(self, parser: CommandParser) -> None:
        self.add_service(parser)
        parser.add_argument("--to-host", metavar="HOST", help="the host to move to; the port stays if it is free there")
        parser.add_argument("--to-range", metavar="NAME", help="a range of the project, or a shared one")
        parser.add_argument("--to-port", metavar="N", help="exactly this port, or none")
        parser.add_argument("--json", action="store_true", help="print the whole allocation")

    def handle(self, **options: Any) -> None:
        to_port = options["to_port"]
        if not (options["to_host"] or options["to_range"] or to_port):
            raise InvalidValue("Name where to move it: --to-host HOST, --to-range NAME or --to-port N.")
        old, new = allocations.move(
            self.context,
            options["project"],
            options["service"],
            **self.which(options),
            to_hostname=options["to_host"],
            to_range=options["to_range"],
            to_port=None if to_port is None else validators.parse_port_number(to_port),
        )
        if options["json"]:
            self.json(schemas.Allocation.of(new).dump())
            return
        self.print(f"{new.label} moved from {old.address} to {new.address}.")
