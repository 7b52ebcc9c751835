"""Invalid bodies, and query parameters that an operation does not have."""

from __future__ import annotations

import json
from typing import Any

import pytest

from allocations.models import Event, PortAllocation
from allocations.ports import PortManager

from .conftest import ApiClient

pytestmark = pytest.mark.django_db

REQUEST = {"project": "shop", "service": "api"}


def body(**changes: Any) -> bytes:
    return json.dumps(REQUEST | changes).encode()


BODIES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "a JSON object is required"),
    "not JSON": (b"{{{", "line 1, column 2"),
    "an array": (b"[]", "not a JSON object"),
    "a string": (b'"x"', "not a JSON object"),
    "not UTF-8": (b'{"project": "\xff"}', "not UTF-8"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "BOM"),
    "NUL in a value": (body(description="a\0b"), "NUL"),
    "NUL in a key": (body(metadata={"a\0b": 1}), "NUL"),
    "half a surrogate pair": (b'{"project": "shop", "service": "api", "description": "\\ud800"}', "surrogate"),
    "deeply nested": (b'{"project": ' + b"[" * 100_000, "nested"),
    "deeply nested and closed": (body(metadata=json.loads('{"a":' * 40 + "1" + "}" * 40)), "nested"),
    "NaN": (b'{"project": NaN}', "NaN is not a JSON number"),
    "a duplicate name": (b'{"project": "shop", "project": "bank"}', '"project" occurs twice'),
    "port 10^5000": (b'{"project": "shop", "service": "api", "port": 1' + b"0" * 5000 + b"}", "JSON"),
}


@pytest.mark.parametrize("name", BODIES)
def test_invalid_bodies_are_refused(operator: ApiClient, name: str) -> None:
    content, sentence = BODIES[name]
    before = Event.objects.count()
    answer = operator.send("POST", "/api/ports", content, **{"Content-Type": "application/json"})
    problem = answer.json()
    assert answer.status_code == problem["status"] == 400, problem
    assert answer["Content-Type"] == "application/problem+json"
    assert sentence in problem["detail"]
    assert {"type", "title", "code"} <= set(problem)
    assert Event.objects.count() == before
    assert not PortAllocation.objects.exists()


@pytest.mark.parametrize("content_type", ["application/xml", "text/plain", "", "multipart/form-data; boundary=x"])
def test_other_content_types_are_refused(operator: ApiClient, content_type: str) -> None:
    answer = operator.send("POST", "/api/ports", body(), **{"Content-Type": content_type})
    assert (answer.status_code, answer.json()["code"]) == (415, "not_json")


def test_a_body_that_is_too_large_is_refused(operator: ApiClient) -> None:
    answer = operator("POST", "/api/ports", REQUEST | {"description": "x" * 10_000_000})
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def test_text_that_only_looks_like_a_nul_is_accepted(operator: ApiClient) -> None:
    answer = operator("POST", "/api/ports", REQUEST | {"metadata": {"path": "C:\\u0000"}})
    assert (answer.status_code, answer.json()["metadata"]) == (201, {"path": "C:\\u0000"})


PARAMETERS = {
    "an unknown filter": ("/api/ports?prot=80", "prot"),
    "a token": ("/api/ports?token=ptl_x", "token"),
    "a repeated parameter": ("/api/ports?project=shop&project=bank", "project"),
    "a parameter where there are none": ("/api/projects/shop?x=1", "x"),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_invalid_parameters_are_refused(viewer: ApiClient, ports: PortManager, name: str) -> None:
    address, parameter = PARAMETERS[name]
    answer = viewer("GET", address)
    assert answer.status_code == 400, answer.content
    assert answer["Content-Type"] == "application/problem+json"
    assert [error["field"] for error in answer.json()["errors"]] == [parameter]
