"""manage.py allocate: allocate a port for a service, and print it alone on standard output."""

from collections.abc import Mapping
from typing import Any

from django.core.management import CommandParser

from allocations import listeners, schemas, validators
from allocations.allocation_spec import DETAILS
from allocations.errors import InvalidValue
from allocations.management.command import PortCommand
from allocations.models import PortAllocation
from allocations.ports import allocations
from allocations.ports.allocations import MOST_AT_ONCE
from allocations.text import join_and

# The options for the details of an allocation. Metadata is JSON, which nobody types in a shell.
DETAIL_OPTIONS = {name: f"--{name.replace('_', '-')}" for name in DETAILS if name != "metadata"}
DETAIL_OPTIONS["service_type"] = "--type"
OPTIONS = {**DETAIL_OPTIONS, "hostname": "--host", "protocol": "--protocol", "range_name": "--range"}


def add_details(parser: CommandParser) -> None:
    """Add an option for each detail of an allocation."""
    for name, option in DETAIL_OPTIONS.items():
        text = schemas.AllocationDetails.model_fields[name].description
        parser.add_argument(option, dest=name, metavar=option.rsplit("-", 1)[1].upper(), help=text)


class Command(PortCommand):
    help = (
        "Print the port of a service: the one it has, or the next free one of its project's range. Only the number is "
        "printed."
    )
    example = "PORT=$(manage.py allocate consilio api-server --type api)"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("project")
        parser.add_argument("service")
        add_details(parser)
        parser.add_argument("--host", dest="hostname", metavar="HOST", help="where it runs (default: localhost)")
        parser.add_argument("--protocol", choices=validators.PROTOCOLS, default=validators.TCP)
        parser.add_argument(
            "--range", dest="range_name", metavar="NAME", help="a range of the project, or a shared one"
        )
        parser.add_argument("--port", dest="port_number", metavar="N", help="exactly this port, or none")
        parser.add_argument("--count", type=int, default=1, metavar="N", help="allocate that many new ports")
        parser.add_argument("--new", action="store_true", help="allocate a new port, whatever the service has")
        parser.add_argument("--adopt", action="store_true", help="register a service that already listens on --port")
        parser.add_argument("--json", action="store_true", help="print the whole allocation")

    def handle(self, **options: Any) -> None:
        spec = {name: options[name] for name in OPTIONS}
        if options["port_number"] is not None:
            spec["port_number"] = validators.parse_port_number(options["port_number"])
        allocated = self._allocate(spec, options)
        if options["json"]:
            rows = [schemas.Allocation.of(allocation).dump() for allocation in allocated]
            self.json(rows if options["count"] > 1 else rows[0])
            return
        for allocation in allocated:
            self.print(allocation.port_number)
        if options["adopt"]:
            self._warn_of_silence(allocated[0])
        elif not allocated[0].created:
            self._warn_of_ignored(allocated[0], spec)

    def _allocate(self, spec: Mapping[str, Any], options: Mapping[str, Any]) -> list[PortAllocation]:
        project, service, count = options["project"], options["service"], options["count"]
        has_port = "port_number" in spec
        if not 1 <= count <= MOST_AT_ONCE:
            raise InvalidValue(f"--count {count} is not a number from 1 to {MOST_AT_ONCE}.", field="count")
        if options["adopt"]:
            if not has_port:
                raise InvalidValue("--adopt needs --port: the port on which the service listens.", field="port_number")
            return [allocations.adopt(self.context, project, service, **spec)]
        if count > 1:
            if has_port:
                raise InvalidValue("--count and --port exclude each other.", field="port_number")
            return allocations.allocate_copies(self.context, project, service, count, **spec)
        if options["new"]:
            return [allocations.allocate(self.context, project, service, **spec)]
        return [allocations.get_or_allocate(self.context, project, service, **spec)]

    def _warn_of_ignored(self, allocation: PortAllocation, spec: Mapping[str, Any]) -> None:
        """Warn that the options of a repeated call do not change what the service already has."""
        current = {name: getattr(allocation, name, None) for name in DETAILS}
        current["range_name"] = allocation.port_range.range_name
        ignored = [OPTIONS[name] for name, value in current.items() if spec.get(name) and spec[name] != value]
        if ignored:
            self.say(
                f"{allocation.label} already holds {allocation.address} and stays as it is: {join_and(ignored)} "
                "changed nothing. Edit it on the dashboard, or use --new for another port."
            )

    def _warn_of_silence(self, adopted: PortAllocation) -> None:
        is_here = listeners.is_this_host(adopted.hostname)
        if is_here and listeners.is_listening(adopted.port_number, adopted.protocol) is None:
            self.say(f"Nothing listens on {adopted.address} now. {adopted.label} holds it anyway.")
