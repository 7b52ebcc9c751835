"""The MCP server, built on the official SDK, with errors that a model can act on."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Mapping
from contextvars import ContextVar
from typing import Any, TypeVar

from asgiref.sync import sync_to_async
from mcp.server import MCPServer
from mcp.server.mcpserver.context import Context as CallContext
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp_types import CallToolResult, InputRequiredResult, TextContent, ToolAnnotations
from pydantic import ValidationError

from allocations.errors import PortError
from allocations.ports import Context
from allocations.ports.db_errors import translated
from allocations.ports.rate_limits import count_request
from allocations.schemas import Output
from allocations.text import did_you_mean, quoted
from portal.postgresql.base import release_session

from .results import shorten
from .tool_schemas import input_schema, output_schema

T = TypeVar("T")
INSTRUCTIONS = (
    "Portal assigns every service on these machines a port of its own: call get-port before you bind a port, and bind "
    "the port that it returns. "
    "Keep that port in the service's configuration; get-port is safe to repeat and returns the same port every time. "
    "If an address is in use, call explain-port to learn whose it is: it is not a bug in the code that you are working "
    "on. "
    "Never stop, kill or reconfigure a process that you did not start. "
    "On a conflict do what the answer names as the next step, and if it says that a person must decide, ask them."
)
# Returns the context of the caller. Over HTTP it is known when a call arrives. Over stdio it is looked up for each
# call, because the token may be revoked while the session lasts.
current_context: ContextVar[Callable[[], Context]] = ContextVar("current_context")


def in_database(function: Callable[..., T]) -> Callable[..., Any]:
    """Return an awaitable version of a function that uses the database. It raises database errors as PortErrors.

    It runs in the one thread whose connections are closed afterwards. The SDK would run it in threads of its own, and
    nobody would close the connections that it opens there.
    """

    def run(*args: Any, **kwargs: Any) -> T:
        release_session()
        try:
            with translated():
                return function(*args, **kwargs)
        finally:
            release_session()

    return sync_to_async(run, thread_sensitive=True)


async def run_in_context(function: Callable[[Context], T]) -> T:
    """Call a function with the context of the caller, and return its result.

    Raises:
        PortError: the caller was refused, or the function raised it.
    """
    get_context = current_context.get()
    value: T = await in_database(lambda: function(get_context()))()
    return value


async def answer(function: Callable[[Context], Output], *, counts_as: str = "") -> CallToolResult:
    """Call a function with the context of the caller, and return its result as structured content and as text.

    Args:
        counts_as: what the call counts as in the rate limits: change or audit. Empty if it only reads.

    Raises:
        ToolError: a PortError was raised. The model reads its sentence.
    """

    def run(context: Context) -> dict[str, Any]:
        if counts_as:
            count_request(context, counts_as)
        return shorten(function(context).dump())

    try:
        value = await run_in_context(run)
    except PortError as error:
        raise ToolError(error.sentence) from error
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=value)


class PortalServer(MCPServer):
    """A server that refuses unknown arguments by name, and whose errors say only what is wrong and what to do next."""

    def operation(
        self,
        name: str,
        result: type[Output],
        *,
        reads: bool = False,
        destroys: bool = False,
        repeats: bool = False,
        unlisted: Container[str] = (),
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Register a function as a tool.

        Args:
            name: the name of the tool; its description is the docstring.
            result: the schema of its result.
            reads: whether it changes nothing.
            destroys: whether it removes something.
            repeats: whether repeating the call changes nothing more.
            unlisted: members of the result that its published schema does not list, to keep it short.
        """
        annotations = ToolAnnotations(
            read_only_hint=reads, destructive_hint=destroys, idempotent_hint=reads or repeats, open_world_hint=False
        )

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            description = " ".join((function.__doc__ or "").split())
            self.add_tool(function, name, description=description, annotations=annotations, structured_output=False)
            tool = next(t for t in self._tool_manager.list_tools() if t.name == name)
            tool.parameters = input_schema(tool.fn_metadata.arg_model)
            tool.fn_metadata.output_schema = output_schema(result, unlisted)
            return function

        return register

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: CallContext[Any, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        try:
            return await super().call_tool(name, arguments, context)
        except UnexpectedToolError:
            raise  # a bug: the log gets the details, the model does not
        except ToolError as error:
            text = self._error_text(name, error)
            return CallToolResult(content=[TextContent(type="text", text=text)], is_error=True)

    def _error_text(self, name: str, error: ToolError) -> str:
        cause = error.__cause__
        if isinstance(cause, ToolError):
            return str(cause)
        tool = self._tool_manager.get_tool(name)
        if tool is None:
            names = [t.name for t in self._tool_manager.list_tools()]
            return f"There is no tool {quoted(name)}. {did_you_mean(name, names)}".rstrip()
        if isinstance(cause, ValidationError):
            sentences = [_argument_error(e, list(tool.parameters["properties"])) for e in cause.errors()[:5]]
            return f"{' '.join(sentences)} {name} takes {_list_arguments(tool.parameters)}."
        return str(error)


def _argument_error(error: Mapping[str, Any], names: list[str]) -> str:
    argument = ".".join(str(part) for part in error["loc"])[:60]
    if error["type"] == "extra_forbidden":
        return f"{argument} is not an argument of this tool. {did_you_mean(argument, names)}".rstrip()
    if error["type"] == "missing":
        return f"{argument} is missing."
    return f"{argument} is wrong: {error['msg'][0].lower()}{error['msg'][1:]}."


def _list_arguments(schema: Mapping[str, Any]) -> str:
    """Return the names of a tool's arguments, with the optional ones in brackets."""
    required = schema.get("required", ())
    return ", ".join(name if name in required else f"[{name}]" for name in schema["properties"])
