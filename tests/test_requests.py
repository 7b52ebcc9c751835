"""Projects that ask: what agents take there is a request, and a person decides. Quotas of tokens."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.db import Error as DatabaseFault
from django.db import connection, transaction
from django.test import Client
from django.utils import timezone

from allocations import errors
from allocations.access import Caller
from allocations.models import Event, PortAllocation
from allocations.ports import PortManager
from allocations.ports.refusals import refusal_of
from tests.make import FIRST, broken_invariants
from tests.views.reading import login, text

pytestmark = pytest.mark.django_db


@pytest.fixture
def ports() -> PortManager:
    manager = PortManager(actor="boss")
    manager.add_project("shop", size=20, start=FIRST)
    manager.update_project("shop", mode="ask")
    return manager


def agent_of(ports: PortManager, name: str = "agent") -> PortManager:
    caller = Caller.of_token(ports.create_token(name, role="operator")[1])
    assert caller is not None
    return PortManager(actor=caller.name, source="api", caller=caller)


def test_an_agent_is_promised_a_port_and_gets_it_when_a_person_says_so(ports: PortManager) -> None:
    agent = agent_of(ports)
    asked = agent.get_or_allocate("shop", "web")
    assert (asked.status, asked.port_number, asked.created) == ("pending", FIRST, True)
    assert asked.allocated_by == "agent"
    again = agent.get_or_allocate("shop", "web")
    assert (again.pk, again.created) == (asked.pk, False)
    assert ports.allocate("shop", "other").port_number == FIRST + 1, "the port is held meanwhile"
    told = agent.explain(FIRST)
    assert "is asked for by" in told.sentence
    assert "once they approve" in told.next_step
    with pytest.raises(errors.NotPermitted, match="A person decides"):
        agent.approve_request(asked.pk)
    approved = ports.approve_request(asked.pk)
    assert (approved.status, approved.expires_at) == ("allocated", None)
    normal = agent.get_or_allocate("shop", "web")
    assert (normal.pk, normal.status, normal.created) == (asked.pk, "allocated", False)
    with pytest.raises(errors.Conflict, match="not a request"):
        ports.approve_request(asked.pk)
    assert [e.verb for e in Event.objects.filter(subject_id=asked.pk)] == ["approved", "requested"]
    assert broken_invariants() == []


def test_a_person_is_not_asked(ports: PortManager) -> None:
    assert ports.allocate("shop", "web").status == "allocated"


def test_over_mcp_everybody_is_an_agent(ports: PortManager) -> None:
    assert PortManager(actor="cli:me", source="mcp").get_or_allocate("shop", "web").status == "pending"


def test_a_request_counts_as_not_available_and_not_as_allocated(ports: PortManager) -> None:
    agent_of(ports).get_or_allocate("shop", "web")
    summary = ports.summary("shop")
    assert (summary.allocated_ports, summary.reserved_ports, summary.available_ports) == (0, 1, 19)
    assert ports.audit(record=False).summary.allocated == 0


def test_nobody_decided_in_time(ports: PortManager) -> None:
    agent = agent_of(ports)
    asked = agent.get_or_allocate("shop", "web")
    let_expire(asked)
    assert ports.allocate("shop", "other").port_number == FIRST, "free at that moment"
    new = agent.get_or_allocate("shop", "web")
    assert (new.status, new.port_number, new.instance) == ("pending", FIRST + 1, 0)
    let_expire(new)
    once_more = agent.get_or_allocate("shop", "web")
    assert (once_more.pk != new.pk, once_more.instance) == (True, 0)
    assert broken_invariants() == []


def test_the_agent_may_withdraw_and_ask_again(ports: PortManager) -> None:
    agent = agent_of(ports)
    agent.get_or_allocate("shop", "web")
    agent.release("shop", "web")
    assert agent.get_or_allocate("shop", "web").created


def let_expire(asked: PortAllocation) -> None:
    """As if its time were over; said without an operation, in whose transaction the test still is."""
    with connection.cursor() as cursor:
        cursor.execute(NOBODY)
    PortAllocation.objects.filter(pk=asked.pk).update(expires_at="2020-01-01T00:00:00Z")


def refused(statement: str, *settings: str) -> str:
    with pytest.raises(DatabaseFault) as fault, transaction.atomic(), connection.cursor() as cursor:  # noqa: PT012
        for setting in settings:
            cursor.execute(setting)
        cursor.execute(statement)
    refusal = refusal_of(fault.value)
    assert refusal is not None
    return str(refusal.details["constraint"])


NOBODY = "SELECT set_config('portal.agent', 'off', true)"
AGENT = "SELECT set_config('portal.agent', 'on', true)"


def test_the_database_lets_no_agent_decide(ports: PortManager) -> None:
    agent_of(ports).get_or_allocate("shop", "web")
    approve = "UPDATE port_allocations SET status = 'allocated' WHERE status = 'pending'"
    assert refused(approve, AGENT) == "port_allocations_status_order"
    for change in ("allocated_by = 'x'", "token_id = NULL"):
        assert refused(f"UPDATE port_allocations SET {change}") == "port_allocations_identity"
    assert refused("UPDATE port_allocations SET status = 'reserved'") == "port_allocations_status_order"
    assert refused("UPDATE projects SET mode = 'maybe'") == "projects_mode"
    assert refused("UPDATE projects SET agent_quota = -1") == "projects_quota"


def test_no_agent_keeps_a_port_for_longer_than_it_was_given(ports: PortManager) -> None:
    """Neither by asking for more, nor by a reservation, on which nobody decides."""
    agent, later = agent_of(ports), timezone.now() + timedelta(days=9)
    asked = agent.get_or_allocate("shop", "web")
    with pytest.raises(errors.InvalidValue, match="Only a reservation expires"):
        agent.update_allocation(asked.pk, expires_at=later)
    for port, expires_at in ((FIRST + 5, None), (FIRST + 6, later)):
        kept = agent.reserve("shop", port, expires_at=expires_at)
        assert kept.expires_at is not None
        assert kept.expires_at < timezone.now() + timedelta(days=1, minutes=1)
        for more in (None, later):
            with pytest.raises(errors.NotPermitted, match="and until when"):
                agent.update_allocation(kept.pk, expires_at=more)
    assert ports.update_allocation(kept.pk, expires_at=later).expires_at == later
    for_ever = "UPDATE port_allocations SET expires_at = NULL WHERE status = 'pending'"
    assert refused(for_ever, NOBODY) == "port_allocations_pending_expires"
    assert refused(for_ever, AGENT) == "port_allocations_asked"
    ports.update_project("shop", mode="autonomous")
    assert agent.reserve("shop", FIRST + 7).expires_at is None, (
        "where nobody is asked, an agent reserves as a person does"
    )


def test_a_person_is_given_no_port_on_which_nobody_has_decided(ports: PortManager) -> None:
    """A script would bind it, and a refusal would give it to somebody else meanwhile."""
    asked = agent_of(ports).get_or_allocate("shop", "web")
    for ask in (
        lambda: ports.get_or_allocate("shop", "web"),
        lambda: ports.allocate_many("shop", ["api", "web"], new=False),
    ):
        with pytest.raises(errors.Conflict, match="nobody has decided yet: approve or refuse it"):
            ask()
    assert PortAllocation.objects.held().count() == 1
    ports.approve_request(asked.pk)
    assert ports.get_or_allocate("shop", "web").pk == asked.pk


def test_what_is_no_request_is_not_refused(ports: PortManager) -> None:
    """Two people decide at once: the second does not release what the first gave."""
    agent = agent_of(ports)
    asked, other = agent.get_or_allocate("shop", "web"), agent.get_or_allocate("shop", "api")
    ports.approve_request(asked.pk)
    with pytest.raises(errors.Conflict, match="is allocated, not a request"):
        ports.refuse_request(asked.pk)
    with pytest.raises(errors.NotPermitted, match="A person decides"):
        agent.refuse_request(other.pk)
    assert ports.refuse_request(other.pk).status == "released"
    late = agent.get_or_allocate("shop", "late")
    let_expire(late)
    with pytest.raises(errors.Conflict, match="not a request"):
        ports.approve_request(late.pk)


class TestQuota:
    def test_each_token_has_its_own(self, ports: PortManager) -> None:
        ports.update_project("shop", mode="autonomous", agent_quota=2)
        first, second = agent_of(ports, "first"), agent_of(ports, "second")
        first.allocate_copies("shop", "web", 2)
        with pytest.raises(
            errors.QuotaReached, match="This token holds 2 of the 2 ports that each may hold in shop: release one"
        ):
            first.allocate("shop", "web")
        assert first.get_or_allocate("shop", "web").created is False, "what it has it may ask for"
        second.allocate("shop", "api")
        ports.allocate_copies("shop", "people", 5)
        first.release("shop", "web", instance=1)
        assert first.allocate("shop", "web").instance == 1
        ports.update_project("shop", agent_quota=None)
        first.allocate_copies("shop", "more", 4)

    def test_what_is_none(self, ports: PortManager) -> None:
        for quota in (-1, 70_000, True, "3"):
            with pytest.raises(errors.InvalidValue):
                ports.update_project("shop", agent_quota=quota)  # type: ignore[arg-type]
        with pytest.raises(errors.InvalidValue):
            ports.update_project("shop", mode="maybe")


class TestThePages:
    def test_approve_and_refuse(self, ports: PortManager) -> None:
        agent = agent_of(ports)
        web, api = agent.get_or_allocate("shop", "web"), agent.get_or_allocate("shop", "api", description="<b>now</b>")
        viewer, operator = login("viewer"), login("operator")
        for address in ("/", "/projects/shop"):
            shown = operator.get(address).content.decode()
            assert "Agents ask for 2 ports" in shown
            assert "&lt;b&gt;now" in shown
            assert f"/allocations/{web.pk}/approve" not in viewer.get(address).content.decode()
        assert viewer.post(f"/allocations/{web.pk}/approve").status_code == 403
        approved = operator.post(f"/allocations/{web.pk}/approve", follow=True)
        assert f"Approved: shop/web has {FIRST}/tcp." in text(approved)
        operator.post(f"/allocations/{api.pk}/refuse")
        assert PortAllocation.objects.get(pk=api.pk).status == "released"
        assert "Agents ask" not in text(operator.get("/projects/shop"))
        assert operator.post(f"/allocations/{web.pk}/approve").status_code == 409
        assert operator.post(f"/allocations/{web.pk}/refuse").status_code == 409
        assert PortAllocation.objects.get(pk=web.pk).status == "allocated"

    def test_an_admin_sets_mode_and_quota(self, ports: PortManager) -> None:
        asked = {"new_name": "shop", "mode": "autonomous", "agent_quota": "3", "description": ""}
        assert login("admin").post("/projects/shop/edit", asked).status_code == 303
        project = ports.list("shop", status="all").none() or ports.update_project("shop")
        assert (project.mode, project.agent_quota) == ("autonomous", 3)


def test_the_api_says_202(ports: PortManager) -> None:
    secret = ports.create_token("agent", role="admin")[1]
    client = Client(headers={"Authorization": f"Bearer {secret}"})
    sent: dict[str, Any] = {"data": {"project": "shop", "service": "web"}, "content_type": "application/json"}
    first = client.post("/api/ports", **sent)
    assert (first.status_code, first.json()["status"]) == (202, "pending")
    assert client.get("/api/ports?status=pending").json()["items"][0]["service"] == "web"
    many = {"project": "shop", "services": [{"service": "a"}, {"service": "b"}]}
    batch = client.post("/api/ports/batch", json.dumps(many), "application/json")
    assert (batch.status_code, {a["status"] for a in batch.json()["allocations"]}) == (202, {"pending"})
    changed = client.patch(
        "/api/projects/shop", json.dumps({"mode": "autonomous", "agentQuota": 5}), "application/json"
    )
    assert (changed.json()["mode"], changed.json()["agentQuota"]) == ("autonomous", 5)
    cleared = client.patch("/api/projects/shop", json.dumps({"agentQuota": None}), "application/json")
    assert (cleared.json()["agentQuota"], cleared.json()["mode"]) == (None, "autonomous")


def test_a_person_with_a_session_is_not_asked_by_the_api(ports: PortManager) -> None:
    user = User.objects.create_user("anna")
    user.groups.set(Group.objects.filter(name="operator"))
    client = Client()
    client.force_login(user)
    sent: dict[str, Any] = {"data": {"project": "shop", "service": "web"}, "content_type": "application/json"}
    assert client.post("/api/ports", **sent).status_code == 201


def test_what_a_person_has_reserved_is_no_agents_to_take(ports: PortManager) -> None:
    """Refused, the request would leave it free for anybody."""
    agent = agent_of(ports)
    kept = ports.reserve("shop", FIRST + 5, note="for the boss")
    with pytest.raises(errors.PortTaken, match="held by a reservation of shop"):
        agent.allocate("shop", "steal", port=FIRST + 5)
    kept.refresh_from_db()
    assert kept.status == "reserved"
    own = agent.reserve("shop", FIRST + 6)
    assert agent.allocate("shop", "mine", port=FIRST + 6).status == "pending"
    own.refresh_from_db()
    assert own.status == "released"
    assert ports.allocate("shop", "boss", port=FIRST + 5).status == "allocated"


def test_what_a_person_says_yes_to_is_not_renamed(ports: PortManager) -> None:
    agent = agent_of(ports)
    asked = agent.get_or_allocate("shop", "web")
    for _ in range(2):
        with pytest.raises(errors.NotPermitted, match="a person decides for which service"):
            agent.update_allocation(asked.pk, new_name="other")
        agent.update_allocation(asked.pk, description="still mine to say")
        if PortAllocation.objects.pending().exists():
            ports.approve_request(asked.pk)
    assert ports.update_allocation(asked.pk, new_name="other").service_name == "other"
