"""The only modules that contain SQL at run time. Values are always parameters, never part of the text.

`schema.sql` shows the whole current schema, with the bodies of the functions that these statements call.
"""

from .allocator import find_held, hold_port, lock_ranges, next_free_block, reserve_ports
from .audits import delete_old_checks, delete_old_requests, exchange_problems, record_audit
from .auth import record_token_use, token_rights, user_rights
from .hosts import unapproved_hosts
from .transactions import count_request, exclusive, set_actor, wait_for_turn

__all__ = (
    "count_request",
    "delete_old_checks",
    "delete_old_requests",
    "exchange_problems",
    "exclusive",
    "find_held",
    "hold_port",
    "lock_ranges",
    "next_free_block",
    "record_audit",
    "record_token_use",
    "reserve_ports",
    "set_actor",
    "token_rights",
    "unapproved_hosts",
    "user_rights",
    "wait_for_turn",
)
