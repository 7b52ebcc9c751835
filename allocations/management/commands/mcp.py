"""manage.py mcp: the MCP server over standard input and output, for an agent on this machine."""

import os
from typing import Any

from django.core.management import CommandParser
from django.db import connection

from allocations.access import Caller, trusted
from allocations.errors import NotPermitted
from allocations.management.command import PortCommand, unix_user
from allocations.mcp import context  # noqa: F401 the resources and the prompt
from allocations.mcp.server import asking
from allocations.mcp.tools import server
from allocations.ports import PortManager


class Command(PortCommand):
    help = (
        "Serve MCP over standard input and output, for an agent that starts this command. With PORTAL_TOKEN in the "
        "environment it has that token's rights, without it those of the shell."
    )
    example = "claude mcp add portal -- manage.py mcp"

    def add_arguments(self, parser: CommandParser) -> None:
        pass

    def handle(self, **options: Any) -> None:
        who_asks()  # a bad token is told before a client says anything
        connection.close()
        asking.set(who_asks)
        server.run("stdio")


def who_asks() -> PortManager:
    """Whoever PORTAL_TOKEN belongs to now, or the shell.

    Raises:
        NotPermitted: it is no token, or none any more.
    """
    token = os.environ.get("PORTAL_TOKEN", "").strip()
    caller = Caller.of_token(token) if token else trusted(unix_user())
    if caller is None:
        raise NotPermitted("PORTAL_TOKEN is no valid token: make one with create_token, or leave it away.")
    return PortManager(actor=caller.name, source="mcp", caller=caller)
