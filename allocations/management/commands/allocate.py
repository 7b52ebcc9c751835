"""manage.py allocate: a port for a service, on standard output alone."""

from collections.abc import Mapping
from typing import Any

from django.core.management import CommandParser

from allocations import errors, listeners, payloads, words
from allocations.management.command import PortCommand
from allocations.models import PortAllocation
from allocations.ports.allocating import MOST_AT_ONCE


class Command(PortCommand):
    help = (
        "Give a service its port: the one it has, or the next free one of its project's range. Prints the number alone."
    )
    example = "PORT=$(manage.py allocate consilio api-server --type api)"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("project")
        parser.add_argument("service")
        parser.add_argument("--type", default="", metavar="TYPE", help="what it is: api, web, database, …")
        parser.add_argument("--description", default="")
        parser.add_argument("--cloudflare-hostname", metavar="NAME", help="public name of its tunnel")
        parser.add_argument("--host", help="where it runs (default: localhost)")
        parser.add_argument("--protocol", choices=words.PROTOCOLS, default=words.TCP)
        parser.add_argument("--range", metavar="NAME", help="a range of the project, or a shared one")
        parser.add_argument("--port", metavar="N", help="exactly this port, or nothing")
        parser.add_argument("--count", type=int, default=1, metavar="N", help="that many new ports, all or none")
        parser.add_argument("--new", action="store_true", help="a new port, whatever the service has")
        parser.add_argument("--adopt", action="store_true", help="the service listens on --port already: register it")
        parser.add_argument("--json", action="store_true", help="print the whole allocation")

    def handle(self, **options: Any) -> None:
        wanted = {
            "service_type": options["type"],
            "description": options["description"],
            "cloudflare_hostname": options["cloudflare_hostname"],
            "hostname": options["host"],
            "protocol": options["protocol"],
            "range_name": options["range"],
            "port": words.port_text(options["port"]) if options["port"] is not None else None,
        }
        project, service, count = options["project"], options["service"], options["count"]
        if not 1 <= count <= MOST_AT_ONCE:
            raise errors.InvalidValue(f"--count {count} is not a number from 1 to {MOST_AT_ONCE}.", field="count")
        if options["adopt"] and wanted["port"] is None:
            raise errors.InvalidValue("--adopt needs --port: the port on which the service listens.", field="port")
        if options["adopt"]:
            given = [self.ports.adopt(project, service, **wanted)]
        elif count > 1:
            if wanted["port"] is not None:
                raise errors.InvalidValue("--count and --port exclude each other: one port is one port.", field="port")
            given = self.ports.allocate_copies(project, service, count, **wanted)
        elif options["new"]:
            given = [self.ports.allocate(project, service, **wanted)]
        else:
            given = [self.ports.get_or_allocate(project, service, **wanted)]
        if options["json"]:
            shown = [payloads.allocation(a) for a in given]
            self.json(shown if count > 1 else shown[0])
            return
        for allocation in given:
            self.print(allocation.port_number)
        if options["adopt"]:
            self._remark_silence(given[0])
        elif not given[0].created:
            self._remark_ignored(given[0], wanted)

    def _remark_ignored(self, held: PortAllocation, wanted: Mapping[str, Any]) -> None:
        """Who repeats the call with other wishes is told that they change nothing."""
        said = {
            "--type": (wanted["service_type"], held.service_type),
            "--description": (wanted["description"], held.description),
            "--cloudflare-hostname": (wanted["cloudflare_hostname"], held.cloudflare_hostname),
            "--range": (wanted["range_name"], held.port_range.range_name),
        }
        ignored = [flag for flag, (wish, has) in said.items() if wish and wish != has]
        if ignored:
            self.say(
                f"{held.label} holds {held.address} already, and stays as it is: {words.listed(ignored)} changed "
                "nothing. Edit it on the dashboard, or use --new for another port."
            )

    def _remark_silence(self, adopted: PortAllocation) -> None:
        here = listeners.is_this_host(adopted.hostname)
        if here and listeners.is_listening(adopted.port_number, adopted.protocol) is None:
            self.say(f"Nothing listens on {adopted.address} now: {adopted.label} holds it all the same.")
