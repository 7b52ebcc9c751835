"""The OpenAPI description."""

from __future__ import annotations

import pytest

from .conftest import ApiClient

pytestmark = pytest.mark.django_db


def test_the_version_is_3_1_and_every_status_is_described(viewer: ApiClient) -> None:
    description = viewer("GET", "/api/openapi.json").json()
    assert description["openapi"].startswith("3.1")
    for address, methods in description["paths"].items():
        for method, operation in methods.items():
            statuses = set(operation["responses"])
            assert {"400", "401", "403", "429", "500", "503"} <= statuses, (method, address)
            assert ("412" in statuses) == (method in ("patch", "delete"))
            assert ("413" in statuses) == ("415" in statuses) == ("requestBody" in operation)
            for status, answer in operation["responses"].items():
                if int(status) >= 400 and address != "/api/ports/audit":
                    assert list(answer["content"]) == ["application/problem+json"]


def test_operation_ids_are_unique_and_do_not_name_a_module(viewer: ApiClient) -> None:
    paths = viewer("GET", "/api/openapi.json").json()["paths"]
    ids = [operation["operationId"] for methods in paths.values() for operation in methods.values()]
    assert len(set(ids)) == len(ids) == 24
    assert {"list_ports", "allocate", "get_project"} <= set(ids)
