"""manage.py audit: what really listens, against the registry. Made for cron."""

import time
from typing import Any

from django.conf import settings
from django.core.management import CommandParser

from allocations import restarts
from allocations.audit import NOT_RUNNING, AuditReport
from allocations.errors import PortError
from allocations.management.command import PortCommand
from allocations.models import Health

CONFLICTS, COULD_NOT = 1, 2
SETTLING = 3.0  # seconds that a service gets to open its port before it is looked at again


class Command(PortCommand):
    help = (
        "Compare the registry with what really listens. Exit status 0: healthy, 1: conflicts, 2: could not audit. "
        "Run as root to see the processes of other users."
    )
    example = "*/5 * * * * manage.py audit --quiet"
    refused = COULD_NOT

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--project", help="only this project")
        parser.add_argument("--host", help="only the allocations of this host")
        parser.add_argument("--json", action="store_true", help="print the report as JSON")
        parser.add_argument("--quiet", action="store_true", help="print nothing when all is well")
        parser.add_argument("--no-record", action="store_true", help="look, and keep nothing of it")
        parser.add_argument(
            "--restart",
            action="store_true",
            help="start what is down with the commands of PORTAL_HOME/restart.toml, then audit again",
        )

    def handle(self, **options: Any) -> None:
        report = self._look(options)
        if options["restart"] and report.conflicts and self._restarted(report):
            report = self._look(options)
        if options["json"]:
            self.json(report.payload())
        elif not (options["quiet"] and report.is_healthy):
            self._tell(report)
        if not report.is_healthy:
            raise SystemExit(CONFLICTS)

    def on_refusal(self, refusal: PortError, **options: Any) -> int:
        if options.get("json"):
            self.json({"success": False, "error": refusal.sentence, "code": refusal.code})
        return COULD_NOT

    def _look(self, options: dict[str, Any]) -> AuditReport:
        with self.working("Auditing"):
            return self.ports.audit(options["project"], hostname=options["host"], record=not options["no_record"])

    def _restarted(self, report: AuditReport) -> bool:
        """Restart what is down and has a command; whether anything was started."""
        known = restarts.commands(settings.PORTAL_HOME / "restart.toml")
        started = False
        for finding in report.conflicts:
            label = finding.allocation.label
            if finding.status != Health.DOWN:
                continue
            if label not in known:
                self.say(f"{label}: no restart command in restart.toml.")
                continue
            done = restarts.restart(label, known[label])
            self.say(f"{label}: {'restarted' if done.succeeded else 'not restarted'} ({done.said}).")
            started = started or done.succeeded
        if started:
            time.sleep(SETTLING)
        return started

    def _tell(self, report: AuditReport) -> None:
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
        for drift in report.drift:
            self.print(drift.said_drift)
        for stray in report.unallocated:
            who = (stray.process or "an unknown process") + (f" (pid {stray.pid})" if stray.pid else "")
            self.print(f"{stray.port}/{stray.protocol} in {stray.project}: {who} listens, and no service holds it.")
        self.print(
            f"{summary.allocated} allocated, {summary.in_use} in use, {summary.not_running} not running, "
            f"{summary.unknown} unknown, {summary.unallocated} unallocated listeners: "
            f"{summary.health_percentage} % healthy."
        )
        for note in report.notes:
            self.say(note)
