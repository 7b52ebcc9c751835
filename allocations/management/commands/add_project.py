"""manage.py add_project: add a project with a range of its own."""

from typing import Any

from django.core.management import CommandParser

from allocations import schemas, validators
from allocations.management.command import PortCommand
from allocations.ports import projects


class Command(PortCommand):
    help = "Add a project with a range: the next free block, unless --start is given."
    example = "manage.py add_project checkout --size 50"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name")
        parser.add_argument(
            "--size", default=str(validators.DEFAULT_RANGE_SIZE), metavar="N", help="ports (default: 100)"
        )
        parser.add_argument("--start", dest="start_port", metavar="N", help="first port (default: the next free block)")
        parser.add_argument(
            "--shared", dest="is_shared", action="store_true", help="let other projects use the range by naming it"
        )
        parser.add_argument("--description", default="")
        parser.add_argument("--json", action="store_true")

    def handle(self, **options: Any) -> None:
        start_port = options["start_port"]
        project = projects.add(
            self.context,
            options["name"],
            description=options["description"],
            size=validators.parse_size(options["size"]),
            start_port=None if start_port is None else validators.parse_port_number(start_port, "start_port"),
            is_shared=options["is_shared"],
        )
        port_range = project.ranges.get()
        if options["json"]:
            self.json(schemas.AddedProject.of(port_range).dump())
            return
        self.print(f"{project.name} has the ports {port_range.start_port}-{port_range.end_port}.")
