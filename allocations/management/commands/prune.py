"""manage.py prune: delete old checks and audits."""

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.management import CommandParser

from allocations import validators
from allocations.management.command import PortCommand
from allocations.ports import audits


class Command(PortCommand):
    help = "Delete old checks and audits. Allocations and events are history and stay."
    example = "manage.py prune --checks 30d"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--checks", metavar="AGE", help="delete what is older: 12h, 30d, 8w (default: PORTAL_CHECK_RETENTION_DAYS)"
        )
        parser.add_argument("--json", action="store_true", help="print the number as JSON")
        parser.add_argument("--quiet", action="store_true", help="print nothing")

    def handle(self, **options: Any) -> None:
        age = timedelta(days=settings.PORTAL_CHECK_RETENTION_DAYS)
        if options["checks"] is not None:
            age = validators.parse_duration(options["checks"], "checks")
        with self.working("Deleting old checks"):
            deleted = audits.prune(self.context, checks=age)
        if options["json"]:
            self.json({"success": True, "deletedChecks": deleted})
        elif not options["quiet"]:
            self.print(f"Deleted {deleted} {'check' if deleted == 1 else 'checks'}.")
