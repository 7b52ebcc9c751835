"""The schemas of the tools are short, and generated from the schemas that all doors share."""

from __future__ import annotations

import inspect
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, JsonValue

from allocations.allocation_spec import DETAILS
from allocations.mcp.results import ServicePort, shorten
from allocations.mcp.tool_schemas import input_schema, output_schema, with_details
from allocations.mcp.tools import server
from allocations.schemas import Explanation, Output
from tests.loops import in_a_loop_of_its_own


async def record(first: str, *, last: int = 0, **details: Any) -> dict[str, Any]:
    """Stand in for a tool, and return its arguments."""
    return {"first": first, "last": last, **details}


def test_details_come_before_the_keyword_only_parameters() -> None:
    names = list(inspect.signature(with_details()(record)).parameters)
    assert names == ["first", *DETAILS, "last"]
    names = list(inspect.signature(with_details(excluding=("metadata",))(record)).parameters)
    assert names == ["first", *(name for name in DETAILS if name != "metadata"), "last"]


def test_a_tool_receives_the_details_that_were_sent() -> None:
    omitted_details = dict.fromkeys(DETAILS)
    arguments = in_a_loop_of_its_own(with_details()(record)(first="a", last=3, **omitted_details | {"description": ""}))
    assert arguments == {"first": "a", "last": 3, "description": ""}


def test_every_tool_that_allocates_or_updates_takes_the_details() -> None:
    tools = {tool.name: set(tool.parameters["properties"]) for tool in server._tool_manager.list_tools()}
    assert {"serviceType", "description", "owner", "cloudflareHostname", "metadata"} <= tools["update-port"]
    for name in ("get-port", "allocate-port"):
        assert {"serviceType", "description", "owner", "cloudflareHostname"} <= tools[name]


class Arguments(BaseModel):
    project: Annotated[str, Field(validation_alias="projectName", description="e.g. a")]
    protocol: Literal["tcp", "udp"] = "tcp"
    port: int | None = None
    metadata: Annotated[dict[str, JsonValue] | None, Field(description="Any")] = None


def test_the_schema_of_arguments_is_short() -> None:
    assert input_schema(Arguments) == {
        "type": "object",
        "required": ["projectName"],
        "additionalProperties": False,
        "properties": {
            "projectName": {"type": "string", "description": "e.g. a"},
            "protocol": {"enum": ["tcp", "udp"], "default": "tcp"},
            "port": {"type": "integer"},
            "metadata": {"type": "object", "description": "Any"},
        },
    }
    with pytest.raises(ValueError, match="extra"):
        Arguments.model_validate({"projectName": "a", "more": 1})


class Result(Output):
    success: Literal[True] = True
    ports: list[Explanation]
    explanation: Explanation | None
    next_step: str | None = Field(None, exclude_if=lambda value: value is None)


def test_the_schema_of_a_result_is_short() -> None:
    assert output_schema(Result, unlisted=("ports",)) == {
        "type": "object",
        "properties": {
            "success": {"type": "boolean", "const": True},
            "explanation": {"type": ["object", "null"]},
            "nextStep": {"type": ["string", "null"]},
        },
        "required": ["success", "explanation"],
    }
    assert output_schema(Result)["properties"]["ports"] == {"type": "array", "items": {"type": "object"}}
    assert output_schema(ServicePort)["required"] == ["success", "port", "created", "allocation"]


def test_shorten_cuts_long_texts() -> None:
    result = {
        "success": True,
        "explanation": "x" * 500,
        "allocation": {"description": "x" * 301, "metadata": {"a": "x" * 1900}, "port": 1, "health": None},
        "ports": [{"description": "x" * 121}],
        "listener": None,
        "conflicts": [{"actual": "x" * 80}],
    }
    assert shorten(result) == {
        **result,
        "allocation": result["allocation"] | {"description": "x" * 299 + "…"},
        "ports": [{"description": "x" * 119 + "…"}],
    }
    assert "cut" in shorten({"allocation": {"metadata": {"a": "x" * 2000}}})["allocation"]["metadata"]
