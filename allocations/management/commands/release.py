"""manage.py release: give ports back."""

from typing import Any

from django.core.management import CommandParser

from allocations import schemas, validators
from allocations.errors import InvalidValue
from allocations.management.command import PortCommand
from allocations.ports import allocations, reservations


class Command(PortCommand):
    help = "Release the ports of a service, or a reservation of a project. The service itself is not stopped."
    example = "manage.py release consilio old-service"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("project")
        parser.add_argument("service", nargs="?")
        parser.add_argument("--instance", type=int, metavar="N", help="which one, if the service holds several ports")
        parser.add_argument("--all", action="store_true", help="release all of them")
        parser.add_argument("--reservation", metavar="PORT[-PORT]", help="release reserved ports instead of a service")
        parser.add_argument("--host", dest="hostname", metavar="HOST", help="the host (default: localhost)")
        parser.add_argument("--protocol", choices=validators.PROTOCOLS)
        parser.add_argument("--json", action="store_true")

    def handle(self, **options: Any) -> None:
        socket = {"hostname": options["hostname"], "protocol": options["protocol"]}
        if (options["service"] is None) == (options["reservation"] is None):
            raise InvalidValue("Name either a service or --reservation PORT.", field="service_name")
        if options["reservation"]:
            start_port, end_port = validators.parse_port_span(options["reservation"])
            released = reservations.release(self.context, options["project"], start_port, end_port, **socket)
        else:
            released = allocations.release(
                self.context,
                options["project"],
                options["service"],
                instance=options["instance"],
                every=options["all"],
                **socket,
            )
        blocks = [a for a in released if a.stands_for_block]
        if options["json"]:
            self.json([schemas.Allocation.of(a).dump() for a in blocks])
            return
        for allocation in blocks:
            self.print(f"Released {allocation.address} of {allocation.label}.")
