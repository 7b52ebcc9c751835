"""Idempotency keys and ETags."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Group

from allocations.api.responses import expected_versions
from allocations.auth.lookup import caller_for_user
from allocations.models import PortAllocation, Project, UserLimit
from allocations.ports import Context, PortManager, tokens
from tests.make import FIRST
from tests.users import user_with_role

from .conftest import ApiClient

REQUEST = {"project": "shop", "service": "api"}


@pytest.mark.django_db
class TestIdempotencyKey:
    def test_the_same_request_gets_the_same_answer(self, operator: ApiClient) -> None:
        request = REQUEST | {"new": True}
        first = operator("POST", "/api/ports", request, Idempotency_Key="a1")
        again = operator("POST", "/api/ports", request, Idempotency_Key="a1")
        assert (first.status_code, again.status_code) == (201, 201)
        assert again.json() == first.json()
        assert (again["Location"], again["Idempotency-Replayed"]) == (first["Location"], "true")
        assert PortAllocation.objects.count() == 1
        assert operator("POST", "/api/ports", request, Idempotency_Key="a2").json()["port"] == FIRST + 1

    def test_another_request_with_the_same_key_is_refused(self, operator: ApiClient) -> None:
        operator("POST", "/api/ports", REQUEST, Idempotency_Key="a1")
        for address, other in (
            ("/api/ports", REQUEST | {"service": "b"}),
            ("/api/reservations", {"project": "shop", "port": FIRST + 9}),
        ):
            refusal = operator("POST", address, other, Idempotency_Key="a1")
            assert (refusal.status_code, refusal.json()["code"]) == (422, "key_reused")

    def test_each_caller_has_their_own_keys(self, operator: ApiClient, admin: ApiClient) -> None:
        request = REQUEST | {"new": True}
        ports = [
            client("POST", "/api/ports", request, Idempotency_Key="a1").json()["port"] for client in (operator, admin)
        ]
        assert ports == [FIRST, FIRST + 1]

    def test_a_repetition_requires_the_rights_of_today(self, ports: PortManager) -> None:
        user = user_with_role("operator")
        secret = tokens.create(Context.of(caller_for_user(user), "web"), "deploy", role="operator")[1]
        client, request = ApiClient(secret), REQUEST | {"new": True}

        def repeat() -> tuple[int, str]:
            response = client("POST", "/api/ports", request, Idempotency_Key="a1")
            return response.status_code, response.json().get("code", "")

        assert [repeat(), repeat()] == [(201, ""), (201, "")]
        user.groups.set(Group.objects.filter(name="viewer"))
        assert repeat() == (403, "not_permitted")
        user.groups.set(Group.objects.filter(name="operator"))
        assert repeat() == (201, "")
        UserLimit.objects.create(user=user).projects.set(Project.objects.filter(name="bank"))
        assert repeat() == (404, "unknown_project")
        assert PortAllocation.objects.count() == 1

    def test_a_refusal_is_not_remembered(self, operator: ApiClient, web: PortAllocation) -> None:
        request = REQUEST | {"port": FIRST}
        assert operator("POST", "/api/ports", request, Idempotency_Key="a1").status_code == 409
        operator("DELETE", f"/api/ports/{web.pk}")
        assert operator("POST", "/api/ports", request, Idempotency_Key="a1").status_code == 201

    def test_invalid_keys_are_refused(self, operator: ApiClient) -> None:
        for key in ("", " ", "a b", "x" * 129):
            assert operator("POST", "/api/ports", REQUEST, Idempotency_Key=key).status_code == 400
        assert operator("POST", "/api/ports", REQUEST, Idempotency_Key="x" * 128).status_code == 201
        refusal = operator("POST", "/api/ports", REQUEST, Idempotency_Key="a b")
        assert "1 to 128 printable ASCII characters" in refusal.json()["detail"]


@pytest.mark.django_db
class TestETag:
    def test_a_change_to_a_stale_version_is_refused(self, operator: ApiClient, web: PortAllocation) -> None:
        address = f"/api/ports/{web.pk}"
        etag = operator("GET", address)["ETag"]
        changed = operator("PATCH", address, {"description": "mine"}, If_Match=etag)
        assert changed.status_code == 200
        assert changed["ETag"] != etag
        for method, body in (("PATCH", {"description": "theirs"}), ("DELETE", None)):
            stale = operator(method, address, body, If_Match=etag)
            assert (stale.status_code, stale.json()["code"]) == (412, "stale")
        assert operator("DELETE", address, If_Match=f'"x", {changed["ETag"]}').status_code == 200

    def test_an_audit_does_not_change_the_version(self, operator: ApiClient, web: PortAllocation) -> None:
        address = f"/api/ports/{web.pk}"
        etag = operator("GET", address)["ETag"]
        operator("GET", "/api/ports/audit")
        web.refresh_from_db()
        assert web.health == "down"
        assert operator("PATCH", address, {"description": "mine"}, If_Match=etag).status_code == 200


@pytest.mark.parametrize(
    ("header", "versions"),
    [
        (None, None),
        ("*", None),
        ('"a"', {"a"}),
        ('"a", "b"', {"a", "b"}),
        ('W/"a"', set()),
        ('W/"a", "b"', {"b"}),
        ("a", set()),
    ],
)
def test_the_versions_of_an_if_match_header(header: str | None, versions: set[str] | None) -> None:
    assert expected_versions(header) == versions
