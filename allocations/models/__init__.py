"""The models of Portal, each with its queryset, through which every door reads.

Constraints that Django can express are defined here. The others, the functions and the triggers are SQL:
`allocations/sql/schema.sql` shows all of them as they are now.
"""

from .allocations import PortAllocation, Status
from .events import Event
from .health import Audit, Health, Listener, PortHealthCheck, Uptime
from .hosts import Host
from .projects import Mode, PortRange, Project
from .reservations import Reservation
from .tokens import IdempotentAnswer, Token, UserLimit

__all__ = [
    "Audit",
    "Event",
    "Health",
    "Host",
    "IdempotentAnswer",
    "Listener",
    "Mode",
    "PortAllocation",
    "PortHealthCheck",
    "PortRange",
    "Project",
    "Reservation",
    "Status",
    "Token",
    "Uptime",
    "UserLimit",
]
