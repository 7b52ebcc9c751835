"""The tools, through the official client over stdio."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from typing import Any
from uuid import UUID

import pytest

from allocations.models import Event, PortAllocation
from allocations.ports import PortManager, allocations, projects, tokens

from .conftest import FIRST, RESULTS, content, over_stdio, refusal

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

TOOLS = {
    "get-port": "projectName serviceName serviceType description owner cloudflareHostname hostname protocol",
    "allocate-port": "projectName serviceName serviceType description owner cloudflareHostname hostname protocol port "
    "rangeName idempotencyKey",
    "list-ports": "projectName status hostname",
    "audit-ports": "projectName",
    "port-summary": "projectName",
    "release-port": "projectName serviceName instance",
    "update-port": "projectName serviceName instance serviceType description owner cloudflareHostname metadata",
    "reserve-port": "projectName port note expiresAt",
    "explain-port": "port hostname protocol projectName",
}
READS = {"list-ports", "audit-ports", "port-summary", "explain-port"}
WEB = {"projectName": "shop", "serviceName": "web"}


def test_the_server_lists_its_tools_resources_and_prompts(ports: PortManager) -> None:
    async def use(client: Any) -> Any:
        return (
            await client.list_tools(),
            await client.list_resources(),
            await client.list_resource_templates(),
            await client.list_prompts(),
            client.instructions,
        )

    tools, resources, templates, prompts, instructions = over_stdio(use)
    assert {t.name: " ".join(t.input_schema["properties"]) for t in tools.tools} == TOOLS
    assert set(RESULTS) == set(TOOLS)
    assert len(tools.model_dump_json(by_alias=True, exclude_none=True)) < 8 * 1024
    for tool in tools.tools:
        assert tool.input_schema["additionalProperties"] is False
        assert tool.output_schema["properties"]["success"] == {"const": True, "type": "boolean"}
        assert tool.annotations.read_only_hint == (tool.name in READS)
        assert tool.annotations.destructive_hint == (tool.name == "release-port")
        assert tool.annotations.idempotent_hint == (tool.name not in ("allocate-port", "reserve-port"))
        assert len(tool.description) > 60
    assert [r.uri for r in resources.resources] == ["portal://projects"]
    assert [t.uri_template for t in templates.resource_templates] == ["portal://projects/{name}"]
    assert [p.name for p in prompts.prompts] == ["migrate-service"]
    assert instructions.count(". ") == 4, "the instructions are not five sentences"
    assert "did not start" in instructions


def test_every_tool_returns_its_result(ports: PortManager) -> None:
    ports.allocate("bank", "vault", description="x" * 1000)

    async def use(client: Any) -> dict[str, Any]:
        async def call(name: str, **arguments: Any) -> Any:
            return content(await client.call_tool(name, arguments))

        answers: dict[str, Any] = {"new": await call("get-port", **WEB, serviceType="web")}
        answers["again"] = await call("get-port", **WEB)
        answers["further"] = [await call("allocate-port", **WEB, idempotencyKey="once") for _ in range(2)]
        answers["exact"] = await call("allocate-port", **WEB, port=FIRST + 7, rangeName="shop", description="Third")
        answers["reserved"] = await call(
            "reserve-port", projectName="shop", port=FIRST + 9, note="soon", expiresAt="7d"
        )
        changes = {"description": "The shop", "cloudflareHostname": "shop.example.com", "metadata": {"git": "abc"}}
        answers["changed"] = await call("update-port", **WEB, instance=0, **changes)
        answers["cleared"] = await call("update-port", **WEB, instance=0, cloudflareHostname="")
        answers["listed"] = await call("list-ports", projectName="shop")
        answers["all"] = await call("list-ports")
        answers["summary"] = await call("port-summary", projectName="shop")
        answers["audit"] = await call("audit-ports", projectName="shop")
        answers["own"] = await call("explain-port", port=FIRST, projectName="shop")
        answers["foreign"] = await call("explain-port", port=FIRST, projectName="bank")
        answers["released"] = await call("release-port", **WEB, instance=2)
        return answers

    answers = over_stdio(use)
    new, again = answers["new"], answers["again"]
    assert (new["port"], new["created"], again["created"]) == (FIRST, True, False)
    assert again["allocation"] == new["allocation"]
    assert new["allocation"]["serviceType"] == "web"
    assert [a["port"] for a in answers["further"]] == [FIRST + 1, FIRST + 1]
    assert answers["exact"]["port"] == FIRST + 7
    assert answers["exact"]["allocation"]["description"] == "Third"
    assert answers["reserved"]["allocation"]["status"] == "reserved"
    assert answers["reserved"]["allocation"]["description"] == "soon"
    assert answers["reserved"]["allocation"]["expiresAt"]
    assert answers["changed"]["allocation"]["metadata"] == {"git": "abc"}
    assert answers["changed"]["allocation"]["serviceType"] == "web", "an omitted detail was changed"
    assert answers["cleared"]["allocation"]["cloudflareHostname"] is None
    assert answers["cleared"]["allocation"]["description"] == "The shop"
    assert [p["port"] for p in answers["listed"]["ports"]] == [FIRST, FIRST + 1, FIRST + 7, FIRST + 9]
    assert answers["all"]["total"] == 5
    assert max(len(p["description"]) for p in answers["all"]["ports"]) == 120, "the description was not shortened"
    assert answers["summary"]["summary"]["availablePorts"] == 16
    assert answers["audit"]["summary"] == {
        **{"allocated": 3, "inUse": 0, "notRunning": 3, "healthPercentage": 0},
        **{"unknown": 0, "drift": 0, "unallocated": 0},
    }
    assert (answers["own"]["yours"], answers["foreign"]["yours"]) == (True, False)
    assert "your own project, for web" in answers["own"]["nextStep"]
    assert "Do not stop a process that is not yours" in answers["foreign"]["nextStep"]
    assert answers["released"]["allocation"]["status"] == "released"
    newest = Event.objects.first()
    assert newest is not None
    assert (newest.source, newest.actor[:4]) == ("mcp", "cli:")


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "unknown project": ("get-port", {"projectName": "shpo", "serviceName": "x"}, "Did you mean shop?"),
    "unknown argument": ("get-port", {**WEB, "portNumber": 1}, "portNumber is not an argument of this tool"),
    "misspelt argument": ("get-port", {"projectname": "shop", "serviceName": "x"}, "Did you mean projectName"),
    "missing argument": ("get-port", {"projectName": "shop"}, "serviceName is missing. get-port takes projectName"),
    "wrong type": ("allocate-port", {**WEB, "port": True}, "port is wrong"),
    "text for a number": ("explain-port", {"port": "a"}, "port is wrong"),
    "invalid name": (
        "get-port",
        {"projectName": "shop", "serviceName": "No Name"},
        'Service name "No Name" is not valid',
    ),
    "invalid port": ("explain-port", {"port": 70000}, "Port number 70000 is out of range"),
    "taken port": ("allocate-port", {**WEB, "port": FIRST}, f"is held by shop/first. {FIRST + 2}, {FIRST + 3} and "),
    "port outside the ranges": ("allocate-port", {**WEB, "port": FIRST + 105}, "It lies in bank of bank"),
    "unknown tool": ("get-prot", {}, "Did you mean get-port"),
    "unknown service": ("release-port", WEB, "holds no port"),
    "ambiguous service": ("release-port", {"projectName": "shop", "serviceName": "first"}, "name the instance"),
    "invalid expiry": ("reserve-port", {"projectName": "shop", "port": FIRST + 5, "expiresAt": "soon"}, "write 2h, 7d"),
    "full range": ("get-port", {"projectName": "tiny", "serviceName": "x"}, "all 1 of tiny"),
    "invalid protocol": ("get-port", {**WEB, "protocol": "sctp"}, "protocol is wrong"),
    "invalid detail": (
        "get-port",
        {**WEB, "cloudflareHostname": "a b"},
        'Cloudflare hostname "a b" is not a public name',
    ),
    "metadata of a new port": ("get-port", {**WEB, "metadata": {}}, "metadata is not an argument of this tool"),
}


def test_refusals_say_what_is_wrong_and_what_to_do_next(ports: PortManager) -> None:
    projects.add(ports.context, "tiny", size=1, start_port=FIRST + 50)
    ports.allocate("tiny", "only")
    allocations.allocate_copies(ports.context, "shop", "first", 2)

    async def use(client: Any) -> dict[str, Any]:
        return {name: refusal(await client.call_tool(tool, sent)) for name, (tool, sent, _) in REFUSED.items()}

    sentences = over_stdio(use)
    for name, (_, _, expected) in REFUSED.items():
        assert expected in sentences[name], name
        assert "Error executing" not in sentences[name]
    assert PortAllocation.objects.count() == 3


def test_a_token_limits_what_an_agent_may_do(ports: PortManager) -> None:
    token = tokens.create(ports.context, "agent", role="viewer", projects=["shop"])[1]

    async def use(client: Any) -> Any:
        return (
            refusal(await client.call_tool("get-port", WEB)),
            refusal(await client.call_tool("port-summary", {"projectName": "bank"})),
            content(await client.call_tool("list-ports", {})),
        )

    not_permitted, unknown, listed = over_stdio(use, token)
    assert "requires the role operator" in not_permitted
    assert "There is no project bank" in unknown
    assert listed["total"] == 0


def test_sentences_contain_no_process_name(ports: PortManager) -> None:
    rename = "import ctypes; ctypes.CDLL(None).prctl(15, b'rm -rf / now!', 0, 0, 0)"
    program = (
        f"{rename}; import socket, sys; s = socket.create_server(('127.0.0.1', {FIRST + 3})); print('up', flush=True); "
        "sys.stdin.read()"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    try:

        async def use(client: Any) -> Any:
            explanation = content(await client.call_tool("explain-port", {"port": FIRST + 3}))
            return explanation, refusal(await client.call_tool("allocate-port", {**WEB, "port": FIRST + 3}))

        explanation, sentence = over_stdio(use)
    finally:
        process.communicate()
    assert "rm -rf" not in explanation["explanation"] + explanation["nextStep"] + sentence
    assert explanation["listener"]["pid"] == process.pid
    assert "adopt it" in sentence


def test_the_port_of_an_unallocated_listener_is_skipped(ports: PortManager) -> None:
    async def use(client: Any) -> Any:
        return content(await client.call_tool("get-port", WEB))

    with socket.create_server(("127.0.0.1", FIRST)):
        assert over_stdio(use)["port"] == FIRST + 1


def test_a_repeated_allocation_returns_the_current_state(ports: PortManager) -> None:
    projects.update(ports.context, "shop", mode="ask")
    token = tokens.create(ports.context, "agent", role="operator")[1]

    async def allocate(client: Any) -> Any:
        return await client.call_tool("allocate-port", {**WEB, "idempotencyKey": "deploy-1"})

    requested = content(over_stdio(allocate, token))
    assert requested["pending"]
    assert "then repeat this call" in requested["nextStep"]
    allocations.approve_request(ports.context, UUID(requested["allocation"]["id"]))
    approved = content(over_stdio(allocate, token))
    assert (approved["port"], "pending" in approved) == (requested["port"], False)
    assert approved["allocation"]["status"] == "allocated"
    ports.release("shop", "web")
    assert "never changes. Allocate a new one." in refusal(over_stdio(allocate, token))
    assert PortAllocation.objects.count() == 1


def test_long_descriptions_and_metadata_are_shortened(ports: PortManager) -> None:
    ports.allocate("shop", "web", description="y" * 1500, metadata={"note": "x" * 3000, "more": 1})

    async def use(client: Any) -> Any:
        return [
            content(await client.call_tool("get-port", WEB))["allocation"],
            content(await client.call_tool("explain-port", {"port": FIRST}))["allocation"],
        ]

    for allocation in over_stdio(use):
        assert len(allocation["description"]) == 300
        assert allocation["metadata"] == {"cut": "more than 2000 characters: names are more, note"}


def test_a_person_approves_requests_in_mode_ask(ports: PortManager) -> None:
    projects.update(ports.context, "shop", mode="ask", agent_quota=1)
    token = tokens.create(ports.context, "agent", role="operator")[1]

    async def get(client: Any) -> Any:
        return content(await client.call_tool("get-port", WEB))

    async def allocate(client: Any) -> str:
        return refusal(await client.call_tool("allocate-port", WEB))

    requested = over_stdio(get, token)
    assert (requested["port"], requested["created"], requested["pending"]) == (FIRST, True, True)
    assert "do not bind it yet" in requested["nextStep"]
    assert "raise the project's quota" in over_stdio(allocate, token)
    allocations.approve_request(ports.context, PortAllocation.objects.get().pk)
    approved = over_stdio(get, token)
    assert (approved["port"], approved["created"], "pending" in approved) == (FIRST, False, False)


def test_metadata_is_stored_unchanged(ports: PortManager) -> None:
    metadata = {"deep": {"list": [1, None, True, "x"]}}
    ports.allocate("shop", "web")

    async def use(client: Any) -> Any:
        return content(await client.call_tool("update-port", {**WEB, "metadata": metadata}))

    assert over_stdio(use)["allocation"]["metadata"] == metadata
    assert json.loads(json.dumps(PortAllocation.objects.get().metadata)) == metadata
