"""manage.py explain: explain whose a port is, and what to do next."""

from typing import Any

from django.core.management import CommandParser

from allocations import schemas, validators
from allocations.management.command import PortCommand
from allocations.ports.explain import explain


class Command(PortCommand):
    help = "Tell whose a port is, what listens on it, and what to do next."
    example = "manage.py explain 3100"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("port")
        parser.add_argument("--host", dest="hostname", metavar="HOST", help="the host (default: localhost)")
        parser.add_argument("--protocol", choices=validators.PROTOCOLS, default=validators.TCP)
        parser.add_argument("--json", action="store_true")

    def handle(self, **options: Any) -> None:
        port_number = validators.parse_port_number(options["port"])
        explanation = explain(self.context, port_number, hostname=options["hostname"], protocol=options["protocol"])
        if options["json"]:
            self.json(schemas.Explanation.of(explanation).dump())
            return
        self.print(explanation.sentence)
        self.print(explanation.next_step)
