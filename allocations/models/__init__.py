"""The tables of spec section 3. The constraints here and the SQL files beside the migrations keep the invariants."""

from .access import IdempotentAnswer, Token, UserLimit
from .allocations import PortAllocation, Status
from .events import Event
from .health import Audit, Health, Listener, PortHealthCheck
from .projects import Mode, PortRange, Project

__all__ = [
    "Audit",
    "Event",
    "Health",
    "IdempotentAnswer",
    "Listener",
    "Mode",
    "PortAllocation",
    "PortHealthCheck",
    "PortRange",
    "Project",
    "Status",
    "Token",
    "UserLimit",
]
