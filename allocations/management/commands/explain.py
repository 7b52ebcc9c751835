"""manage.py explain: whose a port is, and what to do."""

from typing import Any

from django.core.management import CommandParser

from allocations import payloads, words
from allocations.management.command import PortCommand


class Command(PortCommand):
    help = "Tell whose a port is, what listens there, and what to do next."
    example = "manage.py explain 3100"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("port")
        parser.add_argument("--host", help="on which host (default: localhost)")
        parser.add_argument("--protocol", choices=words.PROTOCOLS, default=words.TCP)
        parser.add_argument("--json", action="store_true")

    def handle(self, **options: Any) -> None:
        explained = self.ports.explain(
            words.port_text(options["port"]), hostname=options["host"], protocol=options["protocol"]
        )
        if options["json"]:
            self.json(payloads.explanation(explained))
            return
        self.print(explained.sentence)
        self.print(explained.next_step)
