"""manage.py update: change what the registry says about a service."""

from typing import Any

from django.core.management import CommandParser

from allocations import schemas
from allocations.errors import InvalidValue
from allocations.management.command import PortCommand
from allocations.ports import allocations

from .allocate import DETAIL_OPTIONS, add_details


class Command(PortCommand):
    help = "Rename a service, or change its details. Its port stays as it is."
    example = "manage.py update consilio api --rename api-server --owner team-payments"

    def add_arguments(self, parser: CommandParser) -> None:
        self.add_service(parser)
        parser.add_argument("--rename", dest="service_name", metavar="NAME", help="the new name of the service")
        add_details(parser)
        parser.add_argument("--json", action="store_true", help="print the whole allocation")

    def handle(self, **options: Any) -> None:
        names = ("service_name", *DETAIL_OPTIONS)
        changes = {name: options[name] for name in names if options[name] is not None}
        if not changes:
            raise InvalidValue("Nothing is to be changed: name what is, such as --rename NAME or --owner OWNER.")
        allocation = allocations.update(
            self.context, options["project"], options["service"], **self.which(options), **changes
        )
        if options["json"]:
            self.json(schemas.Allocation.of(allocation).dump())
            return
        self.print(f"Updated {allocation.label} on {allocation.address}.")
