"""manage.py port_summary: show how full the projects are."""

from typing import Any

from django.core.management import CommandParser

from allocations import schemas
from allocations.management.command import PortCommand, bar
from allocations.models import Project
from allocations.ports import queries

HEADINGS = ("Project", "Ports", "Allocated", "Reserved", "Available", "Used", "")


class Command(PortCommand):
    help = "Show how full the ranges of a project, or of all projects, are."
    example = "manage.py port_summary consilio"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("project", nargs="?")
        parser.add_argument("--json", action="store_true")

    def handle(self, **options: Any) -> None:
        if options["project"]:
            self._one(options["project"], options["json"])
        else:
            self._all(options["json"])

    def _one(self, project: str, as_json: bool) -> None:
        summary = queries.summary(self.context, project)
        if as_json:
            self.json(schemas.PortSummary.of(summary).dump())
            return
        rows = [
            (
                r.range_name,
                f"{r.range_start}-{r.range_end}",
                r.allocated_ports,
                r.reserved_ports,
                r.available_ports,
                f"{r.utilization_percent}%",
                bar(r.utilization_percent),
            )
            for r in summary.ranges
        ]
        if not rows:
            self.say(f"{project} has no active range.")
            return
        self.table(("Range", *HEADINGS[1:]), rows, numbers=(2, 3, 4, 5))

    def _all(self, as_json: bool) -> None:
        projects = list(Project.objects.with_usage().with_occupied())
        if as_json:
            self.json({p.name: schemas.ProjectUsage.of(queries.summary(self.context, p.name)).dump() for p in projects})
            return
        rows = []
        for project in projects:
            usage, bounds = project.usage, project.bounds
            rows.append(
                (
                    project.name,
                    f"{bounds[0]}-{bounds[1]}" if bounds else "none",
                    usage.allocated,
                    usage.reserved,
                    usage.available,
                    f"{usage.percent}%",
                    bar(usage.percent),
                )
            )
        if rows:
            self.table(HEADINGS, rows, numbers=(2, 3, 4, 5))
        else:
            self.say("There is no project yet: `./manage.py add_project NAME` adds one with a range.")
