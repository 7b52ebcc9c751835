"""explain: whose a port is, what listens there, and one next step that harms nobody."""

from __future__ import annotations

import socket
from datetime import timedelta

import pytest
from django.utils import timezone

from allocations.access import Caller, Role
from allocations.models import Project
from allocations.ports import Explanation, PortManager
from tests import make
from tests.test_audit import process

pytestmark = pytest.mark.django_db
FIRST = make.FIRST
CALM = "nobody else's process is to be stopped"


@pytest.fixture
def ports() -> PortManager:
    make.port_range("shop", FIRST, 10)
    make.port_range("bank", FIRST + 10, 10)
    return make.manager()


def limited(*projects: str) -> PortManager:
    """An operator of some projects."""
    seen = frozenset(Project.objects.filter(name__in=projects).values_list("pk", flat=True))
    return PortManager(actor="ann", caller=Caller("ann", Role.OPERATOR, seen))


def said(found: Explanation) -> str:
    return f"{found.sentence} {found.next_step}"


def test_one_that_is_held(ports: PortManager) -> None:
    ports.allocate("shop", "web")
    told = said(ports.explain(FIRST))
    assert f"{FIRST}/tcp on localhost is held by shop/web; nothing was seen listening there." in told
    assert "If you are shop/web, use it. Otherwise ask Portal for a port of your own" in told
    assert CALM in told
    own = ports.explain(FIRST, project="shop")
    assert (own.yours, ports.explain(FIRST, project="bank").yours) == (True, False)
    assert "It is your own project's, for web: use it, and do not allocate another." in own.next_step
    with socket.create_server(("127.0.0.1", FIRST)):
        running = ports.explain(FIRST, project="shop")
    assert "listens there" in running.sentence
    assert "web runs already" in running.next_step


def test_one_on_which_a_stranger_stands(ports: PortManager) -> None:
    """Nobody is told to use it as it is: the audit calls it a conflict."""
    ports.allocate("shop", "web")
    with process(FIRST, PORTAL_PROJECT="bank", PORTAL_SERVICE="vault"):
        own, other = ports.explain(FIRST, project="shop"), ports.explain(FIRST)
    assert "listens there, and it is bank/vault." in own.sentence
    assert "bank/vault stands on it: stop nothing." in own.next_step
    assert "runs already" not in own.next_step
    assert "wait until bank/vault has been moved" in other.next_step


def test_one_that_is_reserved(ports: PortManager) -> None:
    """Nobody is told to use it without allocating it."""
    ports.reserve("shop", FIRST, expires_at=timezone.now() + timedelta(days=1))
    assert "is reserved by shop until " in ports.explain(FIRST).sentence
    for project in (None, "shop"):
        assert "allocate exactly this port to take it" in ports.explain(FIRST, project=project).next_step


def test_one_that_an_agent_asked_for(ports: PortManager) -> None:
    ports.update_project("shop", mode="ask")
    PortManager(actor="agent", source="mcp").get_or_allocate("shop", "web")
    assert "is asked for by shop/web until " in ports.explain(FIRST).sentence
    assert "others take another port" in ports.explain(FIRST, project="bank").next_step
    own = ports.explain(FIRST, project="shop").next_step
    assert "wait until a person approves it" in own
    assert "use it, and do not allocate" not in own


def test_one_that_is_free_and_one_that_is_listened_on(ports: PortManager) -> None:
    free = ports.explain(FIRST)
    assert f"lies in shop ({FIRST}-{FIRST + 9}) of shop and is free" in free.sentence
    assert CALM not in free.next_step
    with socket.create_server(("127.0.0.1", FIRST)):
        taken = ports.explain(FIRST)
    assert "and no service holds it; " in taken.sentence
    assert "adopt it" in taken.next_step
    assert CALM in taken.next_step


def test_outside_every_range(ports: PortManager) -> None:
    with socket.create_server(("127.0.0.1", FIRST + 30)):
        taken = ports.explain(FIRST + 30)
    assert "lies in no range; " in taken.sentence
    assert CALM in taken.next_step
    assert "Add a range for it" in ports.explain(FIRST + 31).next_step


def test_the_old_port_of_a_service_that_was_moved(ports: PortManager) -> None:
    ports.allocate("shop", "web", metadata={"importedFrom": FIRST + 30})
    moved = ports.explain(FIRST + 30)
    assert f"is the old port of shop/web, which has {FIRST} now" in moved.sentence
    assert f"If you run shop/web, start it on {FIRST}." in moved.next_step
    assert "is the old port" not in limited("bank").explain(FIRST + 30).sentence
    assert "is the old port" not in ports.explain(FIRST + 30, protocol="udp").sentence
    ports.update("shop", "web", metadata={"importedFrom": FIRST + 15})  # anybody may write that, also of bank's ports
    assert "is free" in ports.explain(FIRST + 15).sentence
    ports.allocate("bank", "vault", metadata={"importedFrom": FIRST})
    assert "is held by shop/web" in ports.explain(FIRST).sentence  # who holds it comes first


def test_what_one_may_not_see_is_another_projects(ports: PortManager) -> None:
    ports.allocate("bank", "vault")
    ann = limited("shop")
    with socket.create_server(("127.0.0.1", FIRST + 10)):
        held = ann.explain(FIRST + 10, project="shop")
    assert "is held by another project; something listens there." in held.sentence
    assert "Ask Portal for a port of your own project." in held.next_step
    assert CALM in held.next_step
    assert (held.allocation, held.listener, held.port_range, held.yours) == (None, None, None, False)
    free = ann.explain(FIRST + 11)
    assert "lies in a range of another project" in free.sentence
    assert "bank" not in said(held) + said(free)


def test_another_host_is_asked_where_the_caller_knows_of_a_service(ports: PortManager, other_host: str) -> None:
    """Portal scans no network for anybody."""
    with socket.create_server(("127.0.0.2", FIRST)) as server:
        unknown = ports.explain(FIRST, hostname=other_host)
        assert (unknown.answers, unknown.looked) == (None, False)
        assert "whether anything listens there cannot be seen from here" in unknown.sentence
        ports.allocate("shop", "web", hostname=other_host)
        hidden = limited("bank").explain(FIRST, hostname=other_host)
        assert (hidden.answers, hidden.looked) == (None, False)
        server.settimeout(0)
        with pytest.raises(BlockingIOError):  # nobody connected
            server.accept()
        known = ports.explain(FIRST, hostname=other_host)
        assert known.answers is not None
        assert (known.answers.status, known.looked) == ("up", True)
