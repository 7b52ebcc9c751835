"""manage.py audit: compare the registry with what is listening. Made for cron."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.core.management import CommandParser

from allocations import restarts, schemas
from allocations.audit import NOT_RUNNING, AuditReport, AuditSummary
from allocations.errors import PortError
from allocations.management.command import PortCommand
from allocations.models import Health
from allocations.observer import client
from allocations.ports import audits, queries
from allocations.text import did_you_mean, in_directory

CONFLICTS, COULD_NOT_AUDIT, ONLY_UNALLOCATED = 1, 2, 3
Restart = Callable[[str], restarts.RestartResult]
SETTLING = 3.0  # seconds that a service gets to open its port before it is audited again


class Command(PortCommand):
    help = (
        "Compare the registry with what is listening. Exit status: 0 healthy, 1 conflicts, 2 could not audit, 3 only "
        "unallocated listeners. Run it as root to see the processes of other users."
    )
    example = "*/5 * * * * manage.py audit --quiet"
    refused = unwritable = COULD_NOT_AUDIT

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--project", help="audit only this project")
        parser.add_argument("--host", dest="hostname", metavar="HOST", help="audit only the allocations of this host")
        parser.add_argument("--json", action="store_true", help="print the report as JSON")
        parser.add_argument("--quiet", action="store_true", help="print only what changed since the last --quiet")
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
        if options["quiet"]:
            self._print_changes(report, options)
        elif options["json"]:
            self.json(schemas.Audit.of(report).dump())
        else:
            self._print(report)
        if not report.is_healthy:
            raise SystemExit(CONFLICTS)
        if report.unallocated:
            raise SystemExit(ONLY_UNALLOCATED)

    def on_refusal(self, refusal: PortError, **options: Any) -> int:
        if options.get("json"):
            self.json({"success": False, "error": refusal.sentence, "code": refusal.code})
        return COULD_NOT_AUDIT

    def _audit(self, options: dict[str, Any]) -> AuditReport:
        with self.working("Auditing"):
            return audits.run(
                self.context, options["project"], hostname=options["hostname"], record=not options["no_record"]
            )

    def _print_changes(self, report: AuditReport, options: dict[str, Any]) -> None:
        """Print what has changed since the last quiet audit with the same filters, or the whole report as JSON."""
        new, solved = audits.changes(self.context, report, options["project"], options["hostname"])
        if options["json"] and (new or solved):
            self.json(schemas.Audit.of(report).dump())
            return
        for heading, sentences in (("New", new), ("Solved", solved)):
            for sentence in sentences:
                self.print(f"{heading}: {sentence}")

    def _restarted(self, report: AuditReport) -> bool:
        """Restart the services that are down and have a command; return whether any was restarted."""
        started = False
        with self._restarter(report) as restart:
            for finding in report.conflicts:
                if finding.status != Health.DOWN:
                    continue
                result = restart(finding.allocation.label)
                outcome = "restarted" if result.succeeded else "not restarted"
                self.say(f"{result.service}: {outcome} ({result.message}).")
                started = started or result.succeeded
        if started:
            time.sleep(SETTLING)
        return started

    @contextmanager
    def _restarter(self, report: AuditReport) -> Iterator[Restart]:
        """Provide what restarts a service: this process, or the observer if root started Portal and this isn't root."""
        if client.is_expected():
            yield self._restart_by_observer
            return
        with restarts.commands_in(settings.PORTAL_HOME / "restart.toml") as commands:
            audited = {finding.allocation.label for finding in report.findings}
            held = {row.label for row in queries.list_allocations(self.context)} if set(commands) - audited else audited
            for label in sorted(set(commands) - held):
                hint = did_you_mean(label, sorted(held))
                self.say(f"restart.toml names {label}, which holds no port. {hint}".rstrip())
            yield lambda label: restarts.restart_listed(label, commands)

    def _restart_by_observer(self, label: str) -> restarts.RestartResult:
        try:
            return restarts.RestartResult(label, *client.restart(label))
        except client.ObserverUnavailable as error:
            return restarts.RestartResult(label, False, str(error))

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
            process += in_directory(listener.cwd)
            self.print(
                f"{listener.port}/{listener.protocol} in {listener.project}: {process} is listening, and no service "
                "holds the port."
            )
        self.print(
            f"{summary.allocated} allocated, {summary.in_use} in use, {summary.not_running} not running, "
            f"{summary.unknown} unknown, {summary.unallocated} unallocated listeners: "
            f"{_health(summary)}."
        )
        for note in report.notes:
            self.say(note)


def _health(summary: AuditSummary) -> str:
    if summary.health_percentage is None:
        return "nothing could be judged"
    return f"{summary.health_percentage} % healthy"
