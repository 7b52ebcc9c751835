"""manage.py mcp: serve MCP over standard input and output, to an agent on this machine."""

import os
from typing import Any

from django.core.management import CommandParser
from django.db import connection

from allocations.auth.lookup import caller_for_token
from allocations.errors import NotPermitted
from allocations.management.command import PortCommand, unix_user
from allocations.mcp import resources  # noqa: F401 it registers the resources and the prompt
from allocations.mcp.server import current_context
from allocations.mcp.tools import server
from allocations.ports import Context


class Command(PortCommand):
    help = (
        "Serve MCP over standard input and output, for an agent that starts this command. If PORTAL_TOKEN is set, the "
        "agent has the rights of that token, otherwise those of the shell."
    )
    example = "claude mcp add portal -- manage.py mcp"

    def add_arguments(self, parser: CommandParser) -> None:
        pass

    def handle(self, **options: Any) -> None:
        context_from_environment()  # report an invalid token before a client sends anything
        connection.close()
        current_context.set(context_from_environment)
        server.run("stdio")


def context_from_environment() -> Context:
    """Return the context of the token in PORTAL_TOKEN, or of the shell if it is not set.

    Raises:
        NotPermitted: the token is malformed, unknown, expired or revoked.
    """
    token = os.environ.get("PORTAL_TOKEN", "").strip()
    if not token:
        return Context.trusted(unix_user(), "mcp")
    caller = caller_for_token(token)
    if caller is None:
        raise NotPermitted("PORTAL_TOKEN is not a valid token: make one with create_token, or leave it unset.")
    return Context.of(caller, "mcp")
