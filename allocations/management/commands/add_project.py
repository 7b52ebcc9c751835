"""manage.py add_project: a project with a range of its own."""

from typing import Any

from django.core.management import CommandParser

from allocations import words
from allocations.management.command import PortCommand


class Command(PortCommand):
    help = "Add a project with a range: the next free block, unless --start says where."
    example = "manage.py add_project checkout --size 50"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name")
        parser.add_argument("--size", default=str(words.DEFAULT_RANGE_SIZE), metavar="N", help="ports (default: 100)")
        parser.add_argument("--start", metavar="N", help="first port (default: the next free aligned block)")
        parser.add_argument("--shared", action="store_true", help="other projects may name the range")
        parser.add_argument("--description", default="")
        parser.add_argument("--json", action="store_true")

    def handle(self, **options: Any) -> None:
        project = self.ports.add_project(
            options["name"],
            description=options["description"],
            size=words.size_text(options["size"]),
            start=words.port_text(options["start"], "start") if options["start"] is not None else None,
            shared=options["shared"],
        )
        made = project.ranges.get()
        if options["json"]:
            self.json(
                {"success": True, "project": project.name, "rangeStart": made.start_port, "rangeEnd": made.end_port}
            )
            return
        self.print(f"{project.name} owns {made.start_port}-{made.end_port}.")
