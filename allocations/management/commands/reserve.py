"""manage.py reserve: hold ports for later."""

from typing import Any

from django.core.management import CommandParser

from allocations import payloads, words
from allocations.management.command import PortCommand


class Command(PortCommand):
    help = "Hold a port, or a block of ports, for later: it is not handed out until it is released or expires."
    example = "manage.py reserve consilio 3150-3159 --note 'phase 2' --expires 30d"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("project")
        parser.add_argument("ports", metavar="PORT[-PORT]")
        parser.add_argument("--note", default="", help="what for")
        parser.add_argument("--expires", default="", metavar="WHEN", help="2h, 7d, 2w or a date; never, if not given")
        parser.add_argument("--host", help="on which host (default: localhost)")
        parser.add_argument("--protocol", choices=words.PROTOCOLS, default=words.TCP)
        parser.add_argument("--json", action="store_true")

    def handle(self, **options: Any) -> None:
        first, last = words.span_text(options["ports"])
        held = self.ports.reserve_block(
            options["project"],
            first,
            last,
            note=options["note"],
            expires_at=words.expiry_text(options["expires"]),
            hostname=options["host"],
            protocol=options["protocol"],
        )
        if options["json"]:
            self.json([payloads.allocation(a) for a in held])
            return
        until = f" until {held[0].expires_at:%Y-%m-%d %H:%M} UTC" if held[0].expires_at else ""
        self.print(f"Reserved {options['ports']} for {options['project']}{until}.")
