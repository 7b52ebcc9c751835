"""Test projects in the mode ask, where agents make requests that a person decides, and the quotas of tokens."""

from __future__ import annotations

import json
import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import Error as DatabaseFault
from django.db import connection, transaction
from django.test import Client
from django.utils import timezone

from allocations import errors
from allocations.auth.lookup import caller_for_token
from allocations.models import Event, PortAllocation
from allocations.ports import PortManager, allocations, projects, tokens
from allocations.ports.db_errors import port_error_for
from allocations.ports.explain import explain
from tests import make
from tests.make import FIRST, broken_invariants
from tests.users import client_with_role
from tests.views.helpers import text

pytestmark = pytest.mark.django_db


@pytest.fixture
def ports(ports: PortManager) -> PortManager:
    """Return the shared manager, after setting the mode of shop to ask."""
    projects.update(ports.context, "shop", mode="ask")
    return ports


def create_agent(ports: PortManager, name: str = "agent") -> PortManager:
    caller = caller_for_token(tokens.create(ports.context, name, role="operator")[1])
    assert caller is not None
    return PortManager(actor=caller.name, source="api", caller=caller)


def test_agent_requests_a_port_and_a_person_approves_it(ports: PortManager) -> None:
    agent = create_agent(ports)
    request = agent.get_or_allocate("shop", "web")
    assert (request.status, request.port_number, request.created) == ("pending", FIRST, True)
    assert request.allocated_by == "agent"
    again = agent.get_or_allocate("shop", "web")
    assert (again.pk, again.created) == (request.pk, False)
    assert ports.allocate("shop", "other").port_number == FIRST + 1, "a requested port must be held"
    explanation = explain(agent.context, FIRST)
    assert "is requested by" in explanation.sentence
    assert "once approved" in explanation.next_step
    with pytest.raises(errors.NotPermitted, match="A person decides"):
        allocations.approve_request(agent.context, request.pk)
    approved = allocations.approve_request(ports.context, request.pk)
    assert (approved.status, approved.expires_at) == ("allocated", None)
    allocation = agent.get_or_allocate("shop", "web")
    assert (allocation.pk, allocation.status, allocation.created) == (request.pk, "allocated", False)
    with pytest.raises(errors.Conflict, match="no request to decide"):
        allocations.approve_request(ports.context, request.pk)
    assert [e.verb for e in Event.objects.filter(subject_id=request.pk)] == ["approved", "requested"]
    assert broken_invariants() == []


def test_person_gets_a_port_without_a_request(ports: PortManager) -> None:
    assert ports.allocate("shop", "web").status == "allocated"


def test_every_mcp_caller_is_an_agent(ports: PortManager) -> None:
    assert PortManager(actor="cli:me", source="mcp").get_or_allocate("shop", "web").status == "pending"


def test_request_is_neither_available_nor_allocated(ports: PortManager) -> None:
    create_agent(ports).get_or_allocate("shop", "web")
    summary = ports.summary("shop")
    assert (summary.allocated_ports, summary.reserved_ports, summary.available_ports) == (0, 1, 19)
    assert ports.audit(record=False).summary.allocated == 0


def test_expired_request_frees_its_port(ports: PortManager) -> None:
    agent = create_agent(ports)
    request = agent.get_or_allocate("shop", "web")
    let_expire(request)
    assert ports.allocate("shop", "other").port_number == FIRST, "an expired request must not hold its port"
    new = agent.get_or_allocate("shop", "web")
    assert (new.status, new.port_number, new.instance) == ("pending", FIRST + 1, 0)
    let_expire(new)
    once_more = agent.get_or_allocate("shop", "web")
    assert (once_more.pk != new.pk, once_more.instance) == (True, 0)
    assert broken_invariants() == []


def test_agent_can_release_its_request_and_ask_again(ports: PortManager) -> None:
    agent = create_agent(ports)
    agent.get_or_allocate("shop", "web")
    agent.release("shop", "web")
    assert agent.get_or_allocate("shop", "web").created


def let_expire(request: PortAllocation) -> None:
    """Set the expiry in the past.

    The test is still in the transaction of an agent's operation, so act as a person first.
    """
    with connection.cursor() as cursor:
        cursor.execute(ACT_AS_PERSON)
    PortAllocation.objects.filter(pk=request.pk).update(expires_at="2020-01-01T00:00:00Z")


def violated_constraint(statement: str, *settings: str) -> str:
    with pytest.raises(DatabaseFault) as fault, transaction.atomic(), connection.cursor() as cursor:  # noqa: PT012
        for setting in settings:
            cursor.execute(setting)
        cursor.execute(statement)
    refusal = port_error_for(fault.value)
    assert refusal is not None
    return str(refusal.details["constraint"])


ACT_AS_PERSON = "SELECT set_config('portal.agent', 'off', true)"
ACT_AS_AGENT = "SELECT set_config('portal.agent', 'on', true)"


def test_database_refuses_invalid_changes_of_requests_and_projects(ports: PortManager) -> None:
    create_agent(ports).get_or_allocate("shop", "web")
    approve = "UPDATE port_allocations SET status = 'allocated' WHERE status = 'pending'"
    assert violated_constraint(approve, ACT_AS_AGENT) == "port_allocations_status_order"
    for change in ("allocated_by = 'x'", "token_id = NULL"):
        assert violated_constraint(f"UPDATE port_allocations SET {change}") == "port_allocations_identity"
    assert violated_constraint("UPDATE port_allocations SET status = 'reserved'") == "port_allocations_status_order"
    assert violated_constraint("UPDATE projects SET mode = 'maybe'") == "projects_mode"
    assert violated_constraint("UPDATE projects SET agent_quota = -1") == "projects_quota"


def test_agent_cannot_extend_a_request_or_a_reservation(ports: PortManager) -> None:
    """An agent's reservation needs no approval, so it must not outlive a request."""
    agent, later = create_agent(ports), timezone.now() + timedelta(days=9)
    request = agent.get_or_allocate("shop", "web")
    with pytest.raises(errors.InvalidValue, match="Only a reservation expires"):
        allocations.update_by_id(agent.context, request.pk, expires_at=later)
    for port, expires_at in ((FIRST + 5, None), (FIRST + 6, later)):
        reservation = agent.reserve("shop", port, expires_at=expires_at)
        assert reservation.expires_at is not None
        assert reservation.expires_at < timezone.now() + timedelta(days=1, minutes=1)
        for expiry in (None, later):
            with pytest.raises(errors.NotPermitted, match="and until when"):
                allocations.update_by_id(agent.context, reservation.pk, expires_at=expiry)
    assert allocations.update_by_id(ports.context, reservation.pk, expires_at=later).expires_at == later
    remove_expiry = "UPDATE port_allocations SET expires_at = NULL WHERE status = 'pending'"
    assert violated_constraint(remove_expiry, ACT_AS_PERSON) == "port_allocations_pending_expires"
    assert violated_constraint(remove_expiry, ACT_AS_AGENT) == "port_allocations_asked"
    projects.update(ports.context, "shop", mode="autonomous")
    reservation = agent.reserve("shop", FIRST + 7)
    assert reservation.expires_at is None, "in the mode autonomous, an agent's reservation need not expire"


def test_person_does_not_get_a_port_with_an_undecided_request(ports: PortManager) -> None:
    """A script would listen on the port, although a refusal may give it to another service."""
    request = create_agent(ports).get_or_allocate("shop", "web")
    for allocate in (
        lambda: ports.get_or_allocate("shop", "web"),
        lambda: ports.allocate_many("shop", ["api", "web"], new=False),
    ):
        with pytest.raises(errors.Conflict, match="nobody has decided yet: approve or refuse the request"):
            allocate()
    assert PortAllocation.objects.held().count() == 1
    allocations.approve_request(ports.context, request.pk)
    assert ports.get_or_allocate("shop", "web").pk == request.pk


def test_only_an_undecided_request_can_be_decided(ports: PortManager) -> None:
    """If two people decide at the same time, the second must not release the port that the first approved."""
    agent = create_agent(ports)
    request, other = agent.get_or_allocate("shop", "web"), agent.get_or_allocate("shop", "api")
    allocations.approve_request(ports.context, request.pk)
    with pytest.raises(errors.Conflict, match="is allocated: there is no request"):
        allocations.refuse_request(ports.context, request.pk)
    with pytest.raises(errors.NotPermitted, match="A person decides"):
        allocations.refuse_request(agent.context, other.pk)
    assert allocations.refuse_request(ports.context, other.pk).status == "released"
    late = agent.get_or_allocate("shop", "late")
    let_expire(late)
    with pytest.raises(errors.Conflict, match="no request to decide"):
        allocations.approve_request(ports.context, late.pk)


class TestQuota:
    def test_each_token_has_its_own_quota(self, ports: PortManager) -> None:
        projects.update(ports.context, "shop", mode="autonomous", agent_quota=2)
        first, second = create_agent(ports, "first"), create_agent(ports, "second")
        allocations.allocate_copies(first.context, "shop", "web", 2)
        with pytest.raises(
            errors.QuotaReached, match="This token holds 2 of the 2 ports that each may hold in shop: release one"
        ):
            first.allocate("shop", "web")
        assert first.get_or_allocate("shop", "web").created is False, "an existing allocation must be returned"
        second.allocate("shop", "api")
        allocations.allocate_copies(ports.context, "shop", "people", 5)
        first.release("shop", "web", instance=1)
        assert first.allocate("shop", "web").instance == 1
        projects.update(ports.context, "shop", agent_quota=None)
        allocations.allocate_copies(first.context, "shop", "more", 4)

    def test_invalid_quotas_and_modes_are_refused(self, ports: PortManager) -> None:
        for quota in (-1, 70_000, True, "3"):
            with pytest.raises(errors.InvalidValue):
                projects.update(ports.context, "shop", agent_quota=quota)  # type: ignore[arg-type]
        with pytest.raises(errors.InvalidValue):
            projects.update(ports.context, "shop", mode="maybe")


class TestPages:
    def test_operator_approves_and_refuses_requests(self, ports: PortManager) -> None:
        agent = create_agent(ports)
        web, api = agent.get_or_allocate("shop", "web"), agent.get_or_allocate("shop", "api", description="<b>now</b>")
        viewer, operator = client_with_role("viewer"), client_with_role("operator")
        for address in ("/", "/projects/shop"):
            page = operator.get(address).content.decode()
            assert "Agents have requested 2 ports" in page
            assert "&lt;b&gt;now" in page
            assert f"/allocations/{web.pk}/approve" not in viewer.get(address).content.decode()
        assert viewer.post(f"/allocations/{web.pk}/approve").status_code == 403
        approved = operator.post(f"/allocations/{web.pk}/approve", follow=True)
        assert f"Approved: shop/web has {FIRST}/tcp." in text(approved)
        operator.post(f"/allocations/{api.pk}/refuse")
        assert PortAllocation.objects.get(pk=api.pk).status == "released"
        assert "Agents have requested" not in text(operator.get("/projects/shop"))
        assert operator.post(f"/allocations/{web.pk}/approve").status_code == 409
        assert operator.post(f"/allocations/{web.pk}/refuse").status_code == 409
        assert PortAllocation.objects.get(pk=web.pk).status == "allocated"

    def test_admin_sets_mode_and_quota(self, ports: PortManager) -> None:
        form = {"name": "shop", "mode": "autonomous", "agent_quota": "3", "description": ""}
        assert client_with_role("admin").post("/projects/shop/edit", form).status_code == 303
        project = ports.list("shop", status="all").none() or projects.update(ports.context, "shop")
        assert (project.mode, project.agent_quota) == ("autonomous", 3)


def test_api_answers_202_for_requests(ports: PortManager) -> None:
    secret = tokens.create(ports.context, "agent", role="admin")[1]
    client = Client(headers={"Authorization": f"Bearer {secret}"})
    payload: dict[str, Any] = {"data": {"project": "shop", "service": "web"}, "content_type": "application/json"}
    first = client.post("/api/ports", **payload)
    assert (first.status_code, first.json()["status"]) == (202, "pending")
    assert client.get("/api/ports?status=pending").json()["items"][0]["service"] == "web"
    specs = {"project": "shop", "services": [{"service": "a"}, {"service": "b"}]}
    batch = client.post("/api/ports/batch", json.dumps(specs), "application/json")
    assert (batch.status_code, {a["status"] for a in batch.json()["allocations"]}) == (202, {"pending"})
    changed = client.patch(
        "/api/projects/shop", json.dumps({"mode": "autonomous", "agentQuota": 5}), "application/json"
    )
    assert (changed.json()["mode"], changed.json()["agentQuota"]) == ("autonomous", 5)
    cleared = client.patch("/api/projects/shop", json.dumps({"agentQuota": None}), "application/json")
    assert (cleared.json()["agentQuota"], cleared.json()["mode"]) == (None, "autonomous")


def test_person_with_a_session_gets_a_port_from_the_api(ports: PortManager) -> None:
    client = client_with_role("operator")
    payload: dict[str, Any] = {"data": {"project": "shop", "service": "web"}, "content_type": "application/json"}
    assert client.post("/api/ports", **payload).status_code == 201


def test_agent_cannot_take_a_reservation_of_a_person(ports: PortManager) -> None:
    """Refusing the agent's request would otherwise leave the port free for anybody."""
    agent = create_agent(ports)
    reservation = ports.reserve("shop", FIRST + 5, note="for the boss")
    with pytest.raises(errors.PortTaken, match="held by a reservation of shop"):
        agent.allocate("shop", "steal", port_number=FIRST + 5)
    reservation.refresh_from_db()
    assert reservation.status == "reserved"
    own = agent.reserve("shop", FIRST + 6)
    assert agent.allocate("shop", "mine", port_number=FIRST + 6).status == "pending"
    own.refresh_from_db()
    assert own.status == "released"
    assert ports.allocate("shop", "boss", port_number=FIRST + 5).status == "allocated"


def test_agent_cannot_rename_the_service_of_a_request(ports: PortManager) -> None:
    agent = create_agent(ports)
    request = agent.get_or_allocate("shop", "web")
    for _ in range(2):
        with pytest.raises(errors.NotPermitted, match="a person decides for which service"):
            allocations.update_by_id(agent.context, request.pk, service_name="other")
        allocations.update_by_id(agent.context, request.pk, description="still mine to say")
        if PortAllocation.objects.pending().exists():
            allocations.approve_request(ports.context, request.pk)
    assert allocations.update_by_id(ports.context, request.pk, service_name="other").service_name == "other"


@pytest.mark.django_db(transaction=True)
def test_concurrent_calls_of_one_token_do_not_exceed_its_quota() -> None:
    ports = make.manager()
    make.port_range("shop", FIRST, 10)
    projects.update(ports.context, "shop", agent_quota=1)
    agent = create_agent(ports)
    outcomes: list[object] = []

    def allocate_second() -> None:
        try:
            outcomes.append(agent.allocate("shop", "second"))
        except errors.QuotaReached as error:
            outcomes.append(error)
        finally:
            connection.close()

    with transaction.atomic():
        agent.allocate("shop", "first")
        thread = threading.Thread(target=allocate_second)
        thread.start()
        thread.join(1)
        assert outcomes == [], "the second call waits until the first has ended"
    thread.join(30)
    assert [type(outcome) for outcome in outcomes] == [errors.QuotaReached]
