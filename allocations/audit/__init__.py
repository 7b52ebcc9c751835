"""Compare allocations with the sockets that are listening and with the results of probes.

Everything here is pure: it neither reads the database nor changes anything. The audit operation collects the data,
calls `compare()` and records the report.
"""

from .compare import IMPORTED_FROM, compare
from .process_owner import HIDDEN, ForeignProcess, find_foreign_process, first_identified, redact
from .report import NOT_RUNNING, AuditReport, AuditSummary, Finding, UnallocatedListener, health_percentage

__all__ = [
    "HIDDEN",
    "IMPORTED_FROM",
    "NOT_RUNNING",
    "AuditReport",
    "AuditSummary",
    "Finding",
    "ForeignProcess",
    "UnallocatedListener",
    "compare",
    "find_foreign_process",
    "first_identified",
    "health_percentage",
    "redact",
]
