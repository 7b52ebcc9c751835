"""manage.py release: give ports back."""

from typing import Any

from django.core.management import CommandParser

from allocations import errors, payloads, words
from allocations.management.command import PortCommand


class Command(PortCommand):
    help = "Release what a service holds, or a project's reservation. It does not stop the service."
    example = "manage.py release consilio old-service"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("project")
        parser.add_argument("service", nargs="?")
        parser.add_argument("--instance", type=int, metavar="N", help="which, where the service holds several ports")
        parser.add_argument("--all", action="store_true", help="all of them")
        parser.add_argument("--reservation", metavar="PORT[-PORT]", help="instead of a service: reserved ports")
        parser.add_argument("--host", help="on which host")
        parser.add_argument("--protocol", choices=words.PROTOCOLS)
        parser.add_argument("--json", action="store_true")

    def handle(self, **options: Any) -> None:
        place = {"hostname": options["host"], "protocol": options["protocol"]}
        if (options["service"] is None) == (options["reservation"] is None):
            raise errors.InvalidValue("Name either a service or --reservation PORT.", field="service")
        if options["reservation"]:
            first, last = words.span_text(options["reservation"])
            released = self.ports.release_reservation(options["project"], first, last, **place)
        else:
            released = self.ports.release(
                options["project"], options["service"], instance=options["instance"], every=options["all"], **place
            )
        if options["json"]:
            self.json([payloads.allocation(a) for a in released])
            return
        for allocation in released:
            self.print(f"Released {allocation.address} of {allocation.label}.")
