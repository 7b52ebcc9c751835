"""manage.py list_ports: what is held."""

from typing import Any

from django.core.management import CommandParser

from allocations import payloads, words
from allocations.management.command import PortCommand
from allocations.models import Status

HEADINGS = ("Port", "Protocol", "Host", "Project", "Service", "Instance", "Status", "Health", "Type", "Description")


class Command(PortCommand):
    help = "List allocations: what is held, unless --status says otherwise."
    example = "manage.py list_ports --project consilio --format csv"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--project")
        parser.add_argument("--status", choices=[*Status.values, "all"])
        parser.add_argument("--host")
        parser.add_argument("--protocol", choices=words.PROTOCOLS)
        parser.add_argument("--service")
        parser.add_argument("--search", default="", metavar="TEXT", help="in names, hosts, descriptions, or a port")
        parser.add_argument("--format", choices=("table", "json", "csv"), default="table")
        parser.add_argument("--json", action="store_const", const="json", dest="format", help="as --format json")

    def handle(self, **options: Any) -> None:
        found = self.ports.list(
            options["project"],
            status=options["status"],
            hostname=options["host"],
            protocol=options["protocol"],
            service=options["service"],
            text=options["search"],
        )
        if options["format"] == "json":
            self.json([payloads.allocation(a) for a in found])
            return
        rows = [
            (
                a.port_number,
                a.protocol,
                a.hostname,
                a.project.name,
                a.service_name,
                a.instance,
                a.status,
                a.health,
                a.service_type,
                a.description,
            )
            for a in found
        ]
        if options["format"] == "csv":
            self.csv([h.lower() for h in HEADINGS], rows)
        elif rows:
            self.table(HEADINGS, rows, numbers=(0, 5))
        else:
            self.say("Nothing is held here yet: `manage.py allocate PROJECT SERVICE` gives a service its port.")
