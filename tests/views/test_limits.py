"""What a person sends from the dashboard or the admin counts towards the rate limit, as requests to the API do."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from allocations.models import PortAllocation
from allocations.ports import PortManager
from allocations.ports.rate_limits import COSTS
from tests.users import client_of, superuser

from .helpers import HTMX

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _low_limits(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.PORTAL_RATE_LIMIT = 3
    monkeypatch.setitem(COSTS, "audit", 1)


def test_changes_are_limited(operator: Client, viewer: Client, web: PortAllocation, ports: PortManager) -> None:
    address = reverse("allocation-edit", args=[web.pk])
    answers = [operator.post(address, {}) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [422, 422, 422, 429]
    assert 1 <= int(answers[3]["Retry-After"]) <= 20
    assert b"Too many requests: 3 per minute are allowed." in answers[3].content
    assert operator.get("/").status_code == 200, "reading was counted"
    assert viewer.post("/audit").status_code == 303, "users share a limit"


def test_a_part_of_a_page_gets_a_message(operator: Client, web: PortAllocation) -> None:
    address = reverse("allocation-edit", args=[web.pk])
    answer = [operator.post(address, {}, headers=HTMX) for _ in range(4)][3]
    assert answer.status_code == 429
    assert answer["HX-Retarget"] == "#messages"
    assert answer["Retry-After"]
    assert b"Too many requests" in answer.content


def test_audits_are_limited(viewer: Client) -> None:
    assert [viewer.post("/audit").status_code for _ in range(4)] == [303, 303, 303, 429]


def test_the_admin_is_limited(web: PortAllocation) -> None:
    root = client_of(superuser())
    answers = [root.post("/admin/allocations/project/add/", {}) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[3]["Retry-After"]
    assert root.get("/admin/").status_code == 200
