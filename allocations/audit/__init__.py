"""Compares allocations with what listens and what answers. Pure: it reads no database and changes nothing.

PortManager.audit() looks, calls `compare`, and records the report.
"""

from .comparing import IMPORTED_FROM, compare
from .report import NOT_RUNNING, AuditReport, AuditSummary, Finding, Unallocated
from .strangers import HIDDEN, first_known, stranger, told

__all__ = [
    "HIDDEN",
    "IMPORTED_FROM",
    "NOT_RUNNING",
    "AuditReport",
    "AuditSummary",
    "Finding",
    "Unallocated",
    "compare",
    "first_known",
    "stranger",
    "told",
]
