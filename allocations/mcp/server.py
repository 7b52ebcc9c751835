"""The official SDK's server, with refusals that a model can act on and a list of tools that costs it little."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar

from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import Error as DatabaseFault
from django.db import close_old_connections, connection
from mcp.server import MCPServer
from mcp.server.mcpserver.context import Context
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp_types import CallToolResult, InputRequiredResult, TextContent
from pydantic import ValidationError

from allocations import words
from allocations.errors import PortError
from allocations.ports import PortManager
from allocations.ports.refusals import refusal_of

T = TypeVar("T")
INSTRUCTIONS = (
    "Portal gives every service on these machines a port that nobody else has: ask get-port before you bind a port, "
    "and bind the port it answers. "
    "Keep that port in the service's configuration; get-port is safe to repeat and answers the same port every time. "
    "If an address is in use, ask explain-port whose it is: it is no bug in the code that you are working on. "
    "Never stop, kill or reconfigure a process that you did not start. "
    "On a conflict do what the answer names as the next step, and if it says that a person must decide, ask them."
)
# Finds who asks: over HTTP known by then, over stdio looked up for each call, because a token may be revoked meanwhile.
asking: ContextVar[Callable[[], PortManager]] = ContextVar("asking")


def in_database(function: Callable[..., T]) -> Callable[..., Any]:
    """Make a function that reads the database awaitable: in the one thread whose connections are closed afterwards.

    The SDK would run a plain function in threads of its own, and nobody would close what it opens there.
    """

    def run(*args: Any, **kwargs: Any) -> T:
        _release()
        try:
            return function(*args, **kwargs)
        finally:
            _release()

    return sync_to_async(run, thread_sensitive=True)


def _release() -> None:
    if not connection.in_atomic_block:  # inside a test's transaction: leave it alone
        close_old_connections()


async def answer(do: Callable[[PortManager], Mapping[str, Any]], *, cost: int = 0) -> CallToolResult:
    """Do something in the name of who asks, and give the result as structured content and as text.

    Args:
        cost: how many changes it counts for in the limit of requests; 0: it only reads.

    Raises:
        ToolError: PortManager refused; its sentence is what the model reads.
    """
    who = asking.get()

    def run() -> Mapping[str, Any]:
        try:
            ports = who()
            if cost:
                kind = "change" if cost == 1 else "audit"
                ports.count_request(kind, settings.PORTAL_RATE_LIMIT // cost)
            return do(ports)
        except PortError as refusal:
            raise ToolError(refusal.sentence) from refusal
        except DatabaseFault as fault:
            known = refusal_of(fault)
            if known is None:
                raise
            raise ToolError(known.sentence) from fault

    found = await in_database(run)()
    text = json.dumps(found, ensure_ascii=False, separators=(",", ":"))
    return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=dict(found))


class PortalServer(MCPServer):
    """Refuses unknown arguments by name, and says of a failure only what was wrong and what to do next."""

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        try:
            return await super().call_tool(name, arguments, context)
        except UnexpectedToolError:
            raise  # a bug: the log has it, the model does not
        except ToolError as failure:
            return CallToolResult(
                content=[TextContent(type="text", text=self._told(name, arguments, failure))], is_error=True
            )

    def _told(self, name: str, arguments: Mapping[str, Any], failure: ToolError) -> str:
        cause = failure.__cause__
        if isinstance(cause, ToolError):
            return str(cause)
        tool = self._tool_manager.get_tool(name)
        if tool is None:
            names = [t.name for t in self._tool_manager.list_tools()]
            near = words.nearest(name, names)
            return f"There is no tool {name[:60]!r}. " + (f"Did you mean {words.either(near)}?" if near else "")
        if isinstance(cause, ValidationError):
            known = list(tool.parameters.get("properties", {}))
            return " ".join(_wrong(error, known) for error in cause.errors()[:5]) + f" {name} takes {_listed(tool)}."
        return str(failure)


def _wrong(error: Any, known: list[str]) -> str:
    field = ".".join(str(part) for part in error["loc"])[:60]
    if error["type"] == "extra_forbidden":
        near = words.nearest(field, known)
        return f"{field} is no argument of this tool{f': did you mean {near[0]}?' if near else '.'}"
    if error["type"] == "missing":
        return f"{field} is missing."
    return f"{field} is wrong: {error['msg'][0].lower()}{error['msg'][1:]}."


def _listed(tool: Any) -> str:
    required = set(tool.parameters.get("required", ()))
    return ", ".join(n if n in required else f"[{n}]" for n in tool.parameters.get("properties", {}))


def tighten(server: MCPServer) -> None:
    """Refuse unknown arguments, and tell of the tools in as few words as their schemas allow."""
    for tool in server._tool_manager.list_tools():
        arguments = tool.fn_metadata.arg_model
        arguments.model_config["extra"] = "forbid"
        arguments.model_rebuild(force=True)
        tool.description = " ".join(tool.description.split())
        tool.parameters = compact(arguments.model_json_schema(by_alias=True))
        if tool.fn_metadata.output_schema is not None:
            tool.fn_metadata.output_schema = compact(tool.fn_metadata.output_schema, nulls=True)


def compact(schema: Any, *, nulls: bool = False) -> Any:
    """The same schema without titles, and without null where an argument can be left out as well.

    Args:
        nulls: keep null, as answers need it.
    """
    if isinstance(schema, Sequence) and not isinstance(schema, str):
        return [compact(item, nulls=nulls) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    kept = {k: v for k, v in schema.items() if k != "title" or not isinstance(v, str)}
    choices = [c for c in kept.get("anyOf", ()) if c != {"type": "null"}]
    if len(choices) == 1:
        del kept["anyOf"]
        kept = {**choices[0], **kept}
        if nulls:
            kept["type"] = [kept["type"], "null"]
    if kept.get("additionalProperties") not in (None, False):
        del kept["additionalProperties"]
    kept.pop("$defs", None)  # of JSON values, which are anything
    if nulls or kept.get("default", ...) is None:
        kept.pop("default", None)
    return {k: compact(v, nulls=nulls) for k, v in kept.items()}
