"""The only place with SQL text at run time. Values travel as parameters, never in the text."""

from .holding import find_available_port, held_by, hold_in_own_ranges, hold_port, next_free_block, take_turns
from .recording import alone, forget_requests, one_at_a_time, prune, record_audit
from .rights import count_request, name_actor, note_use, token_facts, user_facts

__all__ = (
    "alone",
    "count_request",
    "find_available_port",
    "forget_requests",
    "held_by",
    "hold_in_own_ranges",
    "hold_port",
    "name_actor",
    "next_free_block",
    "note_use",
    "one_at_a_time",
    "prune",
    "record_audit",
    "take_turns",
    "token_facts",
    "user_facts",
)
