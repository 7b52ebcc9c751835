"""manage.py hosts: list the hosts that audits may connect to, approve one, or withdraw an approval."""

from typing import Any

from django.core.management import CommandParser

from allocations import schemas
from allocations.management.command import PortCommand
from allocations.ports import hosts


class Command(PortCommand):
    help = (
        "List the approved hosts, and those on which ports are held. Audits connect to approved hosts only; services "
        "on others are reported as unknown."
    )
    example = "manage.py hosts --approve web-1.example.com"

    def add_arguments(self, parser: CommandParser) -> None:
        change = parser.add_mutually_exclusive_group()
        change.add_argument("--approve", metavar="HOST", help="let audits connect to this host")
        change.add_argument("--withdraw", metavar="HOST", help="let audits no longer connect to this host")
        parser.add_argument("--json", action="store_true")

    def handle(self, **options: Any) -> None:
        if options["approve"]:
            host = hosts.approve(self.context, options["approve"])
            self.say(f"Audits connect to {host.name} from now on.")
        elif options["withdraw"]:
            hosts.withdraw(self.context, options["withdraw"])
            self.say(f"Audits no longer connect to {options['withdraw']}.")
        rows = hosts.list_hosts(self.context)
        if options["json"]:
            self.json([schemas.Host.of(row).dump() for row in rows])
            return
        headings = ("HOST", "PORTS", "APPROVED BY", "APPROVED")
        self.table(headings, [self._cells(row) for row in rows], numbers=[1])

    def _cells(self, row: hosts.HostUse) -> tuple[object, ...]:
        if row.approved_at is None:
            return (row.name, row.held, "not approved", "")
        return (row.name, row.held, row.approved_by, f"{row.approved_at:%Y-%m-%d %H:%M}")
