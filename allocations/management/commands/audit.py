"""manage.py audit: compare the registry with what is listening. Made for cron."""

import time
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.core.management import CommandParser

from allocations import restarts, schemas
from allocations.audit import NOT_RUNNING, AuditReport
from allocations.errors import PortError
from allocations.management.command import PortCommand
from allocations.models import Health
from allocations.observer import client
from allocations.ports import audits

CONFLICTS, COULD_NOT_AUDIT = 1, 2
SETTLING = 3.0  # seconds that a service gets to open its port before it is audited again


class Command(PortCommand):
    help = (
        "Compare the registry with what is listening. Exit status: 0 healthy, 1 conflicts, 2 could not audit. Run it "
        "as root to see the processes of other users."
    )
    example = "*/5 * * * * manage.py audit --quiet"
    refused = COULD_NOT_AUDIT

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--project", help="audit only this project")
        parser.add_argument("--host", dest="hostname", metavar="HOST", help="audit only the allocations of this host")
        parser.add_argument("--json", action="store_true", help="print the report as JSON")
        parser.add_argument("--quiet", action="store_true", help="print nothing when all is well")
        parser.add_argument("--no-record", action="store_true", help="do not record the audit")
        parser.add_argument(
            "--restart",
            action="store_true",
            help="run the commands in PORTAL_HOME/restart.toml for what is down, then audit again",
        )

    def handle(self, **options: Any) -> None:
        report = self._audit(options)
        if options["restart"] and report.conflicts and self._restarted(report):
            report = self._audit(options)
        if options["json"]:
            self.json(schemas.Audit.of(report).dump())
        elif not (options["quiet"] and report.is_healthy):
            self._print(report)
        if not report.is_healthy:
            raise SystemExit(CONFLICTS)

    def on_refusal(self, refusal: PortError, **options: Any) -> int:
        if options.get("json"):
            self.json({"success": False, "error": refusal.sentence, "code": refusal.code})
        return COULD_NOT_AUDIT

    def _audit(self, options: dict[str, Any]) -> AuditReport:
        with self.working("Auditing"):
            return audits.run(
                self.context, options["project"], hostname=options["hostname"], record=not options["no_record"]
            )

    def _restarted(self, report: AuditReport) -> bool:
        """Restart the services that are down and have a command; return whether any was restarted."""
        restart = self._restarter()
        started = False
        for finding in report.conflicts:
            if finding.status != Health.DOWN:
                continue
            result = restart(finding.allocation.label)
            self.say(f"{result.service}: {'restarted' if result.succeeded else 'not restarted'} ({result.message}).")
            started = started or result.succeeded
        if started:
            time.sleep(SETTLING)
        return started

    def _restarter(self) -> Callable[[str], restarts.RestartResult]:
        """Return what restarts a service: the observer, if root started Portal and this isn't root, or this process."""
        if client.is_expected():
            return lambda label: restarts.RestartResult(label, *client.restart(label))
        commands = restarts.load_commands(settings.PORTAL_HOME / "restart.toml")
        return lambda label: restarts.restart_listed(label, commands)

    def _print(self, report: AuditReport) -> None:
        summary = report.summary
        rows = [
            (
                f.allocation.port_number,
                f.allocation.protocol,
                f.allocation.hostname,
                f.allocation.label,
                "not running" if f.status == Health.DOWN else f.status,
                "" if f.reason == NOT_RUNNING else f.reason,
            )
            for f in report.findings
            if f.status != Health.UP
        ]
        if rows:
            self.table(("Port", "Protocol", "Host", "Service", "State", "Seen"), rows, numbers=(0,))
        for finding in report.drift:
            self.print(finding.drift_sentence)
        for listener in report.unallocated:
            process = (listener.process or "an unknown process") + (f" (pid {listener.pid})" if listener.pid else "")
            self.print(
                f"{listener.port}/{listener.protocol} in {listener.project}: {process} is listening, and no service "
                "holds the port."
            )
        self.print(
            f"{summary.allocated} allocated, {summary.in_use} in use, {summary.not_running} not running, "
            f"{summary.unknown} unknown, {summary.unallocated} unallocated listeners: "
            f"{summary.health_percentage} % healthy."
        )
        for note in report.notes:
            self.say(note)
