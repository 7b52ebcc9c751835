"""manage.py add_range: give a project more ports."""

from typing import Any

from django.core.management import CommandParser

from allocations import schemas, validators
from allocations.management.command import PortCommand
from allocations.ports import ranges


class Command(PortCommand):
    help = "Add a range of ports to a project."
    example = "manage.py add_range consilio 8000-8049"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("project")
        parser.add_argument("ports", metavar="PORT-PORT")
        parser.add_argument("--name", metavar="NAME", help="the name of the range (default: PROJECT-PORT)")
        parser.add_argument(
            "--shared", dest="is_shared", action="store_true", help="let other projects use the range by naming it"
        )
        parser.add_argument("--description", default="")
        parser.add_argument("--json", action="store_true")

    def handle(self, **options: Any) -> None:
        start_port, end_port = validators.parse_port_span(options["ports"])
        port_range = ranges.add(
            self.context,
            options["project"],
            options["name"] or f"{options['project']}-{start_port}",
            start_port,
            end_port,
            description=options["description"],
            is_shared=options["is_shared"],
        )
        if options["json"]:
            self.json(schemas.Range.of(port_range).dump())
            return
        self.print(f"{options['project']} has the ports {start_port}-{end_port} too, as {port_range.range_name}.")
