"""The Django admin, which runs the same operations as every other door. Rows of triggers and audits are read-only."""

from . import allocations, history, hosts, projects, tokens, users

__all__ = ["allocations", "history", "hosts", "projects", "tokens", "users"]
