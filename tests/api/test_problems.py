"""Errors as problems: unknown addresses, wrong methods, crashes, and the names of refused fields."""

from __future__ import annotations

from typing import Any

import pytest

from allocations.api.problems import field_name
from allocations.api.request_schemas import AddRange, AllocateMany, ProjectPath
from allocations.errors import PortError
from allocations.ports import PortManager, queries
from tests.make import FIRST

from .conftest import ApiClient

MANY = AllocateMany.model_validate({"project": "shop", "services": [{"service": "a"}]})
RANGE = AddRange.model_validate({"project": "shop", "name": "a", "start": 1, "end": 2})
PATH = ProjectPath.model_validate({"name": "shop"})


@pytest.mark.django_db
@pytest.mark.parametrize(
    "address", ["/api/ports/" + "9" * 40, "/api/ports/%00", "/api/nothing", "/api/", "/api/ports/", "/api/../x"]
)
def test_an_unknown_address_is_404(viewer: ApiClient, address: str) -> None:
    answer = viewer("GET", address)
    assert (answer.status_code, answer["Content-Type"]) == (404, "application/problem+json")
    assert answer.json()["code"] == "not_found"


@pytest.mark.django_db
@pytest.mark.parametrize("method", ["FOO", "PUT", "DELETE", "OPTIONS"])
def test_an_unsupported_method_is_405(viewer: ApiClient, method: str) -> None:
    answer = viewer(method, "/api/ports")
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert set(answer["Allow"].split(", ")) == {"GET", "POST"}


@pytest.mark.django_db
def test_an_unknown_host_is_400(viewer: ApiClient) -> None:
    answer = viewer("GET", "/api/ports", Host="evil.example")
    assert (answer.status_code, answer["Content-Type"]) == (400, "application/problem+json")


@pytest.mark.django_db
def test_a_crash_is_500_without_details(viewer: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(queries, "summary", crash)
    viewer.client.raise_request_exception = False
    answer = viewer("GET", "/api/projects/shop/summary")
    assert (answer.status_code, answer["Content-Type"]) == (500, "application/problem+json")
    assert answer.json()["code"] == "internal_server_error"
    assert "ZeroDivision" not in answer.content.decode()


@pytest.mark.django_db
@pytest.mark.parametrize("address", ["/api/ports", "/api/projects/shop", "/api/ports/audit", "/api/projects/nope"])
def test_head_is_get_without_the_body(viewer: ApiClient, address: str) -> None:
    head, get = viewer("HEAD", address), viewer("GET", address)
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head["Content-Type"] == get["Content-Type"]
    assert head["Content-Length"] == str(len(get.content))


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("address", "body", "field"),
    [
        ("/api/projects", {"name": "bank"}, "name"),
        ("/api/projects", {"name": "new", "size": 0}, "size"),
        ("/api/projects", {"name": "new", "size": 65_535}, "size"),
        ("/api/ranges", {"project": "shop", "name": "bank", "start": 61000, "end": 61001}, "name"),
        ("/api/ranges", {"project": "shop", "name": "new", "start": FIRST + 5, "end": FIRST + 5}, "start"),
        ("/api/ranges", {"project": "nope", "name": "new", "start": 61000, "end": 61001}, "project"),
        ("/api/reservations", {"project": "shop", "port": FIRST + 3, "lastPort": FIRST + 2}, "lastPort"),
        ("/api/reservations", {"project": "shop", "port": 9}, "port"),
        ("/api/ports", {"project": "shop", "service": "a", "range": "nope"}, "range"),
        ("/api/ports", {"project": "shop", "service": "a", "adopt": True}, "port"),
        (
            "/api/ports",
            {"project": "shop", "service": "a", "cloudflareHostname": "v.example.com"},
            "cloudflareHostname",
        ),
    ],
)
def test_a_problem_names_the_field_as_it_was_sent(
    admin: ApiClient, ports: PortManager, address: str, body: dict[str, object], field: str
) -> None:
    ports.allocate("bank", "vault", cloudflare_hostname="v.example.com")
    problem = admin("POST", address, body).json()
    assert [e["field"] for e in problem["errors"]] == [field]
    if body.get("size") == 0:
        assert problem["detail"] == "Size 0 is not a number of ports from 1 to 65535."


@pytest.mark.parametrize(
    ("field", "details", "inputs", "name"),
    [
        ("project", {}, [PATH], "name"),
        ("project", {}, [MANY], "project"),
        ("port_number", {"index": 3}, [MANY], "services.3.port"),
        ("project", {"index": 3}, [MANY], "project"),
        ("start_port", {}, [RANGE], "start"),
        ("range_name", {}, [RANGE], "name"),
        ("expires_at", {}, [RANGE], "expiresAt"),
        ("Idempotency-Key", {}, [RANGE], "Idempotency-Key"),
        ("If-Match", {}, [], "If-Match"),
    ],
)
def test_the_name_of_a_refused_field(field: str, details: dict[str, Any], inputs: list[Any], name: str) -> None:
    assert field_name(PortError("No.", field=field, **details), inputs) == name
