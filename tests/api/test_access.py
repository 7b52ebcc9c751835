"""Who comes in without a token, how often who may ask, and what a session may do."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client

from allocations.models import PortAllocation
from allocations.ports import PortManager, granting
from tests.make import FIRST

from .conftest import Asking, token

pytestmark = pytest.mark.django_db
ASKED = {"project": "shop", "service": "api"}


class TestAnybody:
    @pytest.fixture(autouse=True)
    def _may_look(self, settings: Any) -> None:
        settings.PORTAL_ANONYMOUS_READ = True

    def test_may_read(self, web: PortAllocation) -> None:
        for address in (
            "/api/ports/audit",
            "/api/ports",
            "/api/projects",
            "/api/openapi.json",
            "/metrics",
            "/api/docs",
        ):
            assert Asking()("GET", address).status_code == 200, address

    def test_may_change_nothing(self, web: PortAllocation) -> None:
        assert Asking()("POST", "/api/ports", ASKED).status_code == 401
        assert Asking()("DELETE", f"/api/ports/{web.pk}").status_code == 401

    def test_still_needs_a_good_token_if_one_is_sent(self, web: PortAllocation) -> None:
        assert Asking("ptl_wrong")("GET", "/api/ports").status_code == 401

    @pytest.mark.parametrize(
        "header",
        [
            *("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Server", "Forwarded", "Via"),
            *("CF-Connecting-IP", "CF-Ray", "X-Real-IP", "True-Client-IP", "CDN-Loop"),
        ],
    )
    def test_who_comes_through_a_proxy_is_not_on_this_machine(self, web: PortAllocation, header: str) -> None:
        assert Asking()("GET", "/api/ports", **{header.replace("-", "_"): "203.0.113.9"}).status_code == 401

    def test_sees_no_page(self, web: PortAllocation) -> None:
        assert Client().get("/").status_code == 302


def test_nothing_is_shown_to_anybody_else(web: PortAllocation) -> None:
    answer = Asking()("GET", "/api/ports/audit")
    assert (answer.status_code, answer["WWW-Authenticate"]) == (401, "Bearer")
    assert Client().get("/api/docs").status_code == 302


class TestSessions:
    @pytest.fixture
    def browser(self, ports: PortManager) -> Client:
        user = User.objects.create_user("anna")
        user.groups.set(Group.objects.filter(name="operator"))
        client = Client(enforce_csrf_checks=True)
        client.force_login(user)
        return client

    def test_reads(self, browser: Client) -> None:
        assert browser.get("/api/ports").status_code == 200

    def test_changes_only_with_the_csrf_token(self, browser: Client) -> None:
        sent = {"data": ASKED, "content_type": "application/json"}
        refused = browser.post("/api/ports", **sent)
        assert (refused.status_code, "X-CSRFToken" in refused.json()["detail"]) == (403, True)
        page = browser.get("/projects/shop").content.decode()
        csrf = re.search(r'csrfmiddlewaretoken" value="(\w+)"', page)
        assert csrf is not None
        assert browser.post("/api/ports", **sent, headers={"X-CSRFToken": csrf[1]}).status_code == 201


class TestLimits:
    @pytest.fixture(autouse=True)
    def _few(self, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        settings.PORTAL_RATE_LIMIT = 3
        monkeypatch.setattr("allocations.api.door.AUDITS_COST", 1)

    def test_changes_of_a_token(self, operator: Asking, admin: Asking) -> None:
        answers = [operator("POST", "/api/ports", ASKED) for _ in range(5)]
        assert [a.status_code for a in answers] == [201, 200, 200, 429, 429]
        assert answers[4].json()["code"] == "too_many_requests"
        assert 1 <= int(answers[4]["Retry-After"]) <= 20
        assert admin("POST", "/api/ports", ASKED).status_code == 200, "another token has its own"
        assert operator("GET", "/api/ports").status_code == 200, "reading is not counted"

    def test_audits(self, viewer: Asking) -> None:
        assert [viewer("GET", "/api/ports/audit").status_code for _ in range(4)] == [200, 200, 200, 429]

    def test_an_address_has_a_limit_of_its_own(self, ports: PortManager) -> None:
        asking = [Asking(token(ports, "operator")) for _ in range(2 * granting.ADDRESS_FACTOR)]
        statuses = [ask("POST", "/api/ports", ASKED).status_code for ask in asking for _ in range(2)]
        assert statuses.count(429) == len(statuses) - 3 * granting.ADDRESS_FACTOR

    def test_time_gives_back(self, ports: PortManager) -> None:
        from django.db import connection

        for _ in range(3):
            ports.count_request("change", 3)
        with connection.cursor() as cursor:
            cursor.execute("UPDATE rate_limits SET settled_at = settled_at - interval '20 seconds'")
        ports.count_request("change", 3)
        with pytest.raises(Exception, match="Too many"):
            ports.count_request("change", 3)


def test_prune_forgets_what_is_settled(ports: PortManager, operator: Asking) -> None:
    from datetime import timedelta

    from django.db import connection

    operator("POST", "/api/ports", ASKED, Idempotency_Key="k")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE rate_limits SET settled_at = now() - interval '1 hour'")
        cursor.execute("UPDATE idempotent_answers SET created_at = now() - interval '2 days'")
        ports.prune(checks=timedelta(days=30))
        cursor.execute("SELECT (SELECT count(*) FROM rate_limits), (SELECT count(*) FROM idempotent_answers)")
        assert cursor.fetchone() == (0, 0)


def test_openapi_is_3_1_and_tells_of_every_status(viewer: Asking) -> None:
    told = viewer("GET", "/api/openapi.json").json()
    assert told["openapi"].startswith("3.1")
    for address, methods in told["paths"].items():
        for method, operation in methods.items():
            statuses = set(operation["responses"])
            assert {"400", "401", "403", "429", "500", "503"} <= statuses, (method, address)
            assert ("412" in statuses) == (method in ("patch", "delete"))
            assert ("413" in statuses) == ("415" in statuses) == ("requestBody" in operation)
            for status, answer in operation["responses"].items():
                if int(status) >= 400 and address != "/api/ports/audit":
                    assert list(answer["content"]) == ["application/problem+json"]


def test_docs_are_our_own(viewer: Asking) -> None:
    page = viewer("GET", "/api/docs")
    shown = page.content.decode()
    assert "Give a service its port" in shown
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', shown)
    assert "unsafe-inline" not in page["Content-Security-Policy"]


def test_queries_of_the_usual_call(operator: Asking, web: PortAllocation, django_assert_num_queries: Any) -> None:
    asked = {"project": "shop", "service": "web"}
    operator("POST", "/api/ports", asked)
    # The token, the limits, the port it has.
    with django_assert_num_queries(3):
        assert operator("POST", "/api/ports", asked).status_code == 200
    assert web.port_number == FIRST
