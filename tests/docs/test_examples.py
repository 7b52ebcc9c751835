"""The JSON in the documentation is what Portal really answers: every example fits the schema of its answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from allocations.api.docs import description
from allocations.importers import FORMATS
from allocations.mcp.tools import server
from tests.loops import in_a_loop_of_its_own

from .pages import AGENTS, BLOCKS, MIGRATING, Block

ANSWERS = [block for block in BLOCKS if "answer" in block.comments]


def faults(example: Any, schema: dict[str, Any]) -> list[str]:
    """Where an example differs from its schema; a member that the schema does not know is a difference, too."""
    validator = Draft202012Validator(_closed(schema))
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(example)]


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(value) for name, value in schema.items()}
    return {"additionalProperties": False, **closed} if "properties" in closed else closed


@pytest.mark.parametrize("block", ANSWERS, ids=str)
def test_an_answer_of_the_api_fits_its_schema(block: Block) -> None:
    method, path, status = block.comments["answer"].split()
    answer = description()["paths"][path][method.lower()]["responses"][int(status)]
    schema = next(iter(answer["content"].values()))["schema"]
    assert faults(json.loads(block.text), {**schema, "components": description()["components"]}) == []


def test_there_are_answers() -> None:
    assert len(ANSWERS) >= 5


@pytest.mark.parametrize("tool", ["get-port", "port-summary", "audit-ports"])
def test_an_answer_of_a_tool_fits_its_schema(tool: str) -> None:
    schema = next(found.output_schema for found in in_a_loop_of_its_own(server.list_tools()) if found.name == tool)
    assert schema is not None
    text = AGENTS.section(tool).partition("```json\n")[2].partition("```")[0]
    example = json.loads(text)
    assert faults(example, schema) == []
    # What is only an object in the tool's schema is one of the API's.
    path, member = {
        "get-port": ("/api/ports/{id}", "allocation"),
        "port-summary": ("/api/projects/{name}/summary", ""),
        "audit-ports": ("/api/ports/audit", ""),
    }[tool]
    answer = description()["paths"][path]["get"]["responses"][200]["content"]["application/json"]["schema"]
    whole = {**answer, "components": description()["components"]}
    assert faults(example[member] if member else example, whole) == []


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language in ("json", "yaml")], ids=str)
def test_json_and_yaml_can_be_read(block: Block) -> None:
    json.loads(block.text) if block.language == "json" else yaml.safe_load(block.text)


@pytest.mark.parametrize("block", [b for b in MIGRATING.blocks if b.language in ("json", "yaml")], ids=str)
def test_lists_to_import_can_be_imported(block: Block) -> None:
    found = FORMATS[block.language](block.text)
    assert found.skipped == []
    assert len(found.rows) >= 2
