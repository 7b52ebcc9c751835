"""The schemas of the tools. Every model that connects has to read them, so they are short."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Container, Mapping
from typing import Annotated, Any, Optional

from pydantic import BaseModel, Field
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo

from allocations.schemas import AllocationDetails, Output

Tool = Callable[..., Awaitable[Any]]
NULL = {"type": "null"}
# The keywords that the schema of the arguments keeps.
ARGUMENT_KEYWORDS = ("type", "required", "additionalProperties")
# The keywords that the schema of a result keeps for each member. A nested object is only called an object.
RESULT_KEYWORDS = ("type", "const")


def with_details(*, excluding: tuple[str, ...] = ()) -> Callable[[Tool], Tool]:
    """Add the details of an allocation to the parameters of a tool, before its keyword-only ones.

    The tool receives those that the caller sent as `**details`.

    Args:
        excluding: details that the tool does not take.
    """
    details = {name: info for name, info in AllocationDetails.model_fields.items() if name not in excluding}

    def decorate(tool: Tool) -> Tool:
        @functools.wraps(tool)
        async def run(**arguments: Any) -> Any:
            left_out = {name for name in details if arguments[name] is None}
            return await tool(**{name: value for name, value in arguments.items() if name not in left_out})

        signature = inspect.signature(tool)
        parameters = list(signature.parameters.values())
        run.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[
                *(p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD),
                *(_detail_parameter(name, info) for name, info in details.items()),
                *(p for p in parameters if p.kind is p.KEYWORD_ONLY),
            ]
        )
        return run

    return decorate


def _detail_parameter(name: str, info: FieldInfo) -> inspect.Parameter:
    field = Field(validation_alias=info.alias or to_camel(name), description=info.description)
    optional: Any = Optional[info.annotation]  # noqa: UP045 mypy reads `|` as a type here
    annotation = Annotated[optional, field]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def input_schema(arguments: type[BaseModel]) -> dict[str, Any]:
    """Return the schema of a tool's arguments, and have the tool refuse unknown ones.

    Titles are left out, and so is null, because a caller can leave out the argument instead.
    """
    arguments.model_config["extra"] = "forbid"
    arguments.model_rebuild(force=True)
    schema = arguments.model_json_schema(by_alias=True)
    properties = {name: _argument(member) for name, member in schema["properties"].items()}
    keywords = {name: value for name, value in schema.items() if name in ARGUMENT_KEYWORDS}
    return {**keywords, "properties": properties}


def _argument(schema: Mapping[str, Any]) -> dict[str, Any]:
    member = {name: value for name, value in schema.items() if name not in ("title", "additionalProperties")}
    for choice in member.pop("anyOf", ()):
        if choice != NULL:
            member = {**_argument(choice), **member}
    if member.get("default", ...) is None:
        del member["default"]
    if "enum" in member:
        member.pop("type", None)  # the values imply it
    return member


def output_schema(result: type[Output], unlisted: Container[str] = ()) -> dict[str, Any]:
    """Return the schema of a tool's result: its members and their types, without what is inside them.

    Args:
        unlisted: members that the schema does not list, although the result contains them.
    """
    schema = result.model_json_schema(mode="serialization", by_alias=True)
    definitions = schema.get("$defs", {})
    members = {name: member for name, member in schema["properties"].items() if name not in unlisted}
    return {
        "type": "object",
        "properties": {name: _member(member, definitions) for name, member in members.items()},
        "required": [name for name in schema["required"] if name in members],
    }


def _member(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        return _member(definitions[schema["$ref"].rsplit("/", 1)[1]], definitions)
    if "anyOf" in schema:
        types = [_member(choice, definitions)["type"] for choice in schema["anyOf"]]
        return {"type": types}
    member = {name: schema[name] for name in RESULT_KEYWORDS if name in schema}
    if "items" in schema:
        member["items"] = _member(schema["items"], definitions)
    return member
