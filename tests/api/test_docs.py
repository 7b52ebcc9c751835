"""The page /api/docs shows every operation, and its examples work."""

from __future__ import annotations

import html
import os
import re
import subprocess
import urllib.request
from typing import Any
from uuid import uuid4

import pytest
from django.test import Client
from jsonschema import Draft202012Validator

from allocations.api.docs import description, sample_for
from allocations.api.examples import Examples, Sample
from allocations.errors import UnknownProject
from allocations.exporters import prometheus, traefik
from allocations.models import PortAllocation, Project
from allocations.ports import PortManager, projects, tokens
from tests import make
from tests.api.conftest import ApiClient, make_token
from tests.serving import gunicorn

SERVED = make.FIRST + 920
EXAMPLES = Examples(description()["components"]["schemas"], Sample(), "http://localhost:3000/")
OPERATIONS = [
    (method, path, operation)
    for path, methods in description()["paths"].items()
    for method, operation in methods.items()
]
NAMES = [f"{method.upper()} {path}" for method, path, _ in OPERATIONS]


def faults(example: Any, schema: dict[str, Any]) -> list[str]:
    """Return the differences between an example and its schema."""
    validator = Draft202012Validator({**schema, "components": description()["components"]})
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(example)]


def operations_of(page: str) -> dict[str, str]:
    """Return the part of the page that shows each operation. The keys are like `GET /api/ports`."""
    parts = re.findall(r'<details class="operation".*?</details>', page, re.DOTALL)
    operations = {}
    for part in parts:
        method = re.search(r'<span class="method \w+">(\w+)</span>', part)
        path = re.search(r'<code class="break">([^<]+)</code>', part)
        assert method
        assert path
        operations[f"{method[1]} {path[1]}"] = part
    return operations


def curl_of(part: str) -> str:
    match = re.search(r'<pre class="example line"[^>]*><code>(.*?)</code>', part, re.DOTALL)
    assert match
    return html.unescape(match[1])


def values(example: Any) -> list[Any]:
    """Return every value in an example that is neither a list nor an object."""
    if isinstance(example, dict | list):
        inner = example.values() if isinstance(example, dict) else example
        return [value for item in inner for value in values(item)]
    return [example]


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS, ids=NAMES)
class TestExamples:
    def test_the_body_matches_its_schema(self, method: str, path: str, operation: dict[str, Any]) -> None:
        if "requestBody" in operation:
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            assert faults(EXAMPLES.of_body(schema), schema) == []

    def test_every_field_and_parameter_matches_its_schema(
        self, method: str, path: str, operation: dict[str, Any]
    ) -> None:
        for parameter in operation["parameters"]:
            assert faults(EXAMPLES.of_parameter(parameter), parameter["schema"]) == [], parameter["name"]
        if "requestBody" in operation:
            schema = EXAMPLES.resolved(operation["requestBody"]["content"]["application/json"]["schema"])
            for name, field in schema["properties"].items():
                assert faults(EXAMPLES.of_field(schema, name), field) == [], name

    def test_every_answer_matches_its_schema(self, method: str, path: str, operation: dict[str, Any]) -> None:
        for status, answer in operation["responses"].items():
            for content in answer.get("content", {}).values():
                example = EXAMPLES.of_answer(content["schema"])
                assert faults(example, content["schema"]) == [], status
                assert "text" not in values(example), "a field has no example"


def test_the_example_of_a_problem_is_a_real_error() -> None:
    example = EXAMPLES.of_answer({"$ref": "#/components/schemas/Problem"})
    assert faults(example, {"$ref": "#/components/schemas/Problem"}) == []
    assert (example["status"], example["code"]) == (UnknownProject.status, UnknownProject.code)
    assert set(example) == set(description()["components"]["schemas"]["Problem"]["properties"])


@pytest.mark.django_db
class TestPage:
    def test_it_loads_nothing_from_other_sites(self, viewer: ApiClient) -> None:
        page = viewer("GET", "/api/docs")
        assert not re.findall(r'(?:src|href)="(?:https?:)?//', page.content.decode())
        assert "unsafe-inline" not in page["Content-Security-Policy"]

    @pytest.mark.parametrize("address", ["/api/openapi.json", "/api/docs"])
    def test_it_supports_get_only(self, viewer: ApiClient, address: str) -> None:
        for client in (viewer.client, Client(enforce_csrf_checks=True)):
            assert client.post(address).status_code == 405

    def test_it_shows_every_operation(self, viewer: ApiClient) -> None:
        parts = operations_of(viewer("GET", "/api/docs").content.decode())
        assert sorted(parts) == sorted(NAMES)
        for name, (_, _, operation) in zip(NAMES, OPERATIONS, strict=True):
            part = html.unescape(parts[name])
            for parameter in operation["parameters"]:
                assert f"<code>{parameter['name']}</code>" in part, (name, parameter["name"])
            for status in operation["responses"]:
                assert f"<code>{status}</code>" in part, (name, status)
            answers = [a for s, a in operation["responses"].items() if s < 300 and a.get("content")]
            assert part.count('<pre class="example "') >= (len(answers) > 0) + ("requestBody" in operation)

    def test_it_shows_every_field_of_a_body(self, viewer: ApiClient) -> None:
        parts = operations_of(viewer("GET", "/api/docs").content.decode())
        for field in ("project", "new", "services[].service", "services[].port"):
            assert f"<code>{field}</code>" in parts["POST /api/ports/batch"], field
        assert "1 to 65535" in parts["POST /api/reservations"]
        assert "default: 100" in parts["POST /api/projects"]

    def test_the_examples_use_a_range_that_the_caller_can_see(self, ports: PortManager) -> None:
        page = ApiClient(make_token(ports, "operator", "bank"))("GET", "/api/docs").content.decode()
        line = curl_of(operations_of(page)["POST /api/reservations"])
        assert f'{{"project": "bank", "port": {make.FIRST + 110}}}' in line
        assert "shop" not in page
        assert line.startswith('curl -s "http://testserver/api/reservations" ')

    def test_a_caller_without_ranges_gets_the_default_examples(self) -> None:
        assert sample_for(make.manager().context.caller) == Sample()

    def test_examples_of_changes_name_nothing_that_exists(self, viewer: ApiClient) -> None:
        """A line that is pasted by mistake, without ID and NAME, changes nothing."""
        for name, part in operations_of(viewer("GET", "/api/docs").content.decode()).items():
            if name.split()[0] in ("PATCH", "DELETE"):
                assert re.search(r"/\$(?:ID|NAME)\" ", curl_of(part)), name


@pytest.mark.django_db
def test_the_examples_of_discovery_have_the_real_structure(ports: PortManager) -> None:
    ports.allocate("shop", "api-server", cloudflare_hostname="api.example.com")
    rows = PortAllocation.objects.select_related("project")
    example = EXAMPLES.answered
    assert list(prometheus.targets(rows)[0]["labels"]) == list(example["labels"])

    real = traefik.configuration(rows)["http"]
    for part in ("routers", "services"):
        example_part, real_part = (
            next(iter(configuration[part].values())) for configuration in (example["http"], real)
        )
        assert list(example_part) == list(real_part)


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_every_curl_line_works_when_it_is_pasted() -> None:
    """Run each line in a shell, with a running server and a valid token."""
    ports = make.manager()
    projects.add(ports.context, "shop", start_port=make.FIRST, size=100)
    environment = os.environ | {"PORTAL_TOKEN": tokens.create(ports.context, "docs", role="admin")[1]}
    failures = []
    with gunicorn(SERVED) as address:
        request = urllib.request.Request(  # noqa: S310 http, on this machine
            f"{address}/api/docs", headers={"Authorization": f"Bearer {environment['PORTAL_TOKEN']}"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            parts = operations_of(answer.read().decode())
        assert sorted(parts) == sorted(NAMES)
        for name, (_, path, operation) in zip(NAMES, OPERATIONS, strict=True):
            line = curl_of(parts[name])
            assert f'"{address}/api/' in line
            done = subprocess.run(
                ["bash", "-uc", line + " -o /dev/stderr -w '%{http_code}'"],
                capture_output=True,
                text=True,
                env=environment | variables_of(ports, path),
                timeout=60,
            )
            expected = {str(status) for status in operation["responses"] if status < 300}
            if done.stdout not in expected:
                failures.append(f"{line}\n  {done.stdout} {done.stderr}")
    assert failures == []


def variables_of(ports: PortManager, path: str) -> dict[str, str]:
    """Return the variables of a line. They name new objects, which the line may delete."""
    name = f"new-{uuid4().hex[:8]}"
    projects.add(ports.context, name, size=10)
    if path.startswith(("/api/ports", "/api/checks")):
        return {"ID": str(ports.allocate("shop", name).pk)}
    if path.startswith("/api/ranges"):
        return {"ID": str(Project.objects.get(name=name).ranges.get().pk)}
    return {"NAME": name}
