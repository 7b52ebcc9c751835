"""Rate limits, which every endpoint checks before it runs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection

from allocations.errors import TooManyRequests
from allocations.ports import PortManager, audits
from allocations.ports.rate_limits import ADDRESS_FACTOR, COSTS, count_request

from .conftest import ApiClient, make_token

pytestmark = pytest.mark.django_db
REQUEST = {"project": "shop", "service": "api"}


class TestRateLimits:
    @pytest.fixture(autouse=True)
    def _are_low(self, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        settings.PORTAL_RATE_LIMIT = 3
        monkeypatch.setitem(COSTS, "audit", 1)

    def test_changes_are_limited(self, operator: ApiClient, admin: ApiClient) -> None:
        answers = [operator("POST", "/api/ports", REQUEST) for _ in range(5)]
        assert [a.status_code for a in answers] == [201, 200, 200, 429, 429]
        assert answers[4].json()["code"] == "too_many_requests"
        assert 1 <= int(answers[4]["Retry-After"]) <= 20
        assert admin("POST", "/api/ports", REQUEST).status_code == 200, "the tokens share a limit"
        assert operator("GET", "/api/ports").status_code == 200, "reading was counted"

    def test_audits_are_limited(self, viewer: ApiClient) -> None:
        assert [viewer("GET", "/api/ports/audit").status_code for _ in range(4)] == [200, 200, 200, 429]

    def test_an_address_has_its_own_limit(self, ports: PortManager) -> None:
        clients = [ApiClient(make_token(ports, "operator")) for _ in range(2 * ADDRESS_FACTOR)]
        statuses = [client("POST", "/api/ports", REQUEST).status_code for client in clients for _ in range(2)]
        assert statuses.count(429) == len(statuses) - 3 * ADDRESS_FACTOR

    def test_the_limit_recovers_with_time(self, ports: PortManager) -> None:
        for _ in range(3):
            count_request(ports.context, "change")
        with connection.cursor() as cursor:
            cursor.execute("UPDATE rate_limits SET settled_at = settled_at - interval '20 seconds'")
        count_request(ports.context, "change")
        with pytest.raises(TooManyRequests):
            count_request(ports.context, "change")


def test_prune_deletes_settled_limits_and_old_answers(ports: PortManager, operator: ApiClient) -> None:
    operator("POST", "/api/ports", REQUEST, Idempotency_Key="k")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE rate_limits SET settled_at = now() - interval '1 hour'")
        cursor.execute("UPDATE idempotent_answers SET created_at = now() - interval '2 days'")
        audits.prune(ports.context, checks=timedelta(days=30))
        cursor.execute("SELECT (SELECT count(*) FROM rate_limits), (SELECT count(*) FROM idempotent_answers)")
        assert cursor.fetchone() == (0, 0)
