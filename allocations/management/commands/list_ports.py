"""manage.py list_ports: list what is held."""

from typing import Any

from django.core.management import CommandParser

from allocations import schemas, validators
from allocations.management.command import PortCommand
from allocations.models import Status
from allocations.ports import queries


class Command(PortCommand):
    help = "List allocations: those that are held, unless --status is given."
    example = "manage.py list_ports --project consilio --format csv"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--project")
        parser.add_argument("--status", choices=[*Status.values, "all"])
        parser.add_argument("--host", dest="hostname", metavar="HOST")
        parser.add_argument("--protocol", choices=validators.PROTOCOLS)
        parser.add_argument("--service", dest="service_name", metavar="SERVICE")
        parser.add_argument("--search", default="", metavar="TEXT", help="in names, hosts, descriptions or ports")
        parser.add_argument("--format", choices=("table", "json", "csv"), default="table")
        parser.add_argument("--json", action="store_const", const="json", dest="format", help="same as --format json")

    def handle(self, **options: Any) -> None:
        rows = queries.list_allocations(
            self.context,
            options["project"],
            status=options["status"],
            hostname=options["hostname"],
            protocol=options["protocol"],
            service_name=options["service_name"],
            text=options["search"],
        )
        allocations = [schemas.Allocation.of(row) for row in rows]
        if options["format"] == "json":
            self.json([allocation.dump() for allocation in allocations])
            return
        headings = schemas.Allocation.headings()
        cells = [allocation.cells() for allocation in allocations]
        if options["format"] == "csv":
            self.csv([heading.lower() for heading in headings], cells)
        elif cells:
            self.table(headings, cells, numbers=(0, headings.index("Instance")))
        else:
            self.say("Nothing is held here yet: `./manage.py allocate PROJECT SERVICE` gives a service its port.")
