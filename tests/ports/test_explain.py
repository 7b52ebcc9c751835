"""Test explain(): which service holds a port, what listens on it, and a next step that disturbs no other service."""

from __future__ import annotations

import os
import socket
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from allocations.auth.roles import Caller, Role
from allocations.models import Project
from allocations.ports import PortManager, projects
from allocations.ports.explain import Explanation, explain
from tests import make
from tests.commands import run
from tests.processes import process

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("bank")]
FIRST, BANK = make.FIRST, make.BANK
WARNING = "Do not stop a process that is not yours"


def limited(*projects: str) -> PortManager:
    """Return the manager of an operator who is limited to these projects."""
    visible = frozenset(Project.objects.filter(name__in=projects).values_list("pk", flat=True))
    return PortManager(actor="ann", caller=Caller("ann", Role.OPERATOR, visible))


def full_text(explanation: Explanation) -> str:
    return f"{explanation.sentence} {explanation.next_step}"


def test_held_port(ports: PortManager) -> None:
    ports.allocate("shop", "web")
    text = full_text(explain(ports.context, FIRST))
    assert f"{FIRST}/tcp on localhost is held by shop/web; nothing listens on it." in text
    assert "If you are shop/web, use it. Otherwise ask Portal for a port of your own" in text
    assert WARNING in text
    own = explain(ports.context, FIRST, project="shop")
    assert (own.is_yours, explain(ports.context, FIRST, project="bank").is_yours) == (True, False)
    assert "It belongs to your own project, for web: use it, and do not allocate another." in own.next_step
    with socket.create_server(("127.0.0.1", FIRST)):
        running = explain(ports.context, FIRST, project="shop")
    assert "listens on it" in running.sentence
    assert "web is already running" in running.next_step


def test_held_port_used_by_another_service(ports: PortManager) -> None:
    """The audit reports a conflict, so nobody is told to use the port as it is."""
    ports.allocate("shop", "web")
    with process(FIRST, PORTAL_PROJECT="bank", PORTAL_SERVICE="vault"):
        own, other = explain(ports.context, FIRST, project="shop"), explain(ports.context, FIRST)
    assert "listens on it, and it is bank/vault." in own.sentence
    assert "bank/vault listens on it. Do not stop anything" in own.next_step
    assert "runs already" not in own.next_step
    assert "wait until bank/vault has been moved" in other.next_step


def test_proposed_command_names_the_protocol(ports: PortManager) -> None:
    """Pasted, it would otherwise register TCP."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", FIRST + 2))
        told = explain(ports.context, FIRST + 2, protocol="udp")
        command = f"./manage.py allocate shop SERVICE --port {FIRST + 2} --protocol udp --adopt"
        assert command in told.next_step
        out, _, status = run(*command.removeprefix("./manage.py ").replace("SERVICE", "dns").split())
    assert (out, status) == (f"{FIRST + 2}\n", 0)
    assert explain(ports.context, FIRST + 2, protocol="udp").allocation is not None


@pytest.mark.parametrize(("asked", "used"), [("tcp", "udp"), ("udp", "tcp")])
def test_number_that_is_used_with_the_other_protocol_is_not_free(ports: PortManager, asked: str, used: str) -> None:
    ports.allocate("shop", "dns", port_number=FIRST + 2, protocol=used)
    told = explain(ports.context, FIRST + 2, protocol=asked)
    assert f"; {FIRST + 2}/{used} is held by shop/dns." in told.sentence
    assert "free" not in full_text(told)
    kind = socket.SOCK_STREAM if used == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as listener:
        listener.bind(("127.0.0.1", FIRST + 3))
        if used == "tcp":
            listener.listen()
        told = explain(ports.context, FIRST + 3, protocol=asked)
    assert f"; something listens on {FIRST + 3}/{used}." in told.sentence
    assert "free" not in full_text(told)
    assert "is free" in explain(ports.context, FIRST + 4, protocol=asked).sentence


def test_other_protocol_reveals_no_other_project(ports: PortManager) -> None:
    projects.add(ports.context, "depot", start_port=FIRST + 500, size=10, is_shared=True)
    ports.allocate("bank", "vault", port_number=FIRST + 500, protocol="udp", range_name="depot")
    told = explain(limited("shop").context, FIRST + 500)
    assert "held by another project" in told.sentence
    assert "bank" not in full_text(told)


def test_reserved_port(ports: PortManager) -> None:
    """Nobody is told to use the port without allocating it."""
    ports.reserve("shop", FIRST, expires_at=timezone.now() + timedelta(days=1))
    assert "is reserved by shop until " in explain(ports.context, FIRST).sentence
    for project in (None, "shop"):
        assert "allocate exactly this port to take it" in explain(ports.context, FIRST, project=project).next_step


def test_requested_port(ports: PortManager) -> None:
    projects.update(ports.context, "shop", mode="ask")
    PortManager(actor="agent", source="mcp").get_or_allocate("shop", "web")
    assert "is requested by shop/web until " in explain(ports.context, FIRST).sentence
    assert "Others take another port" in explain(ports.context, FIRST, project="bank").next_step
    own = explain(ports.context, FIRST, project="shop").next_step
    assert "wait until a person approves it" in own
    assert "use it, and do not allocate" not in own


def test_free_port_and_port_with_an_unallocated_listener(ports: PortManager) -> None:
    free = explain(ports.context, FIRST)
    assert f"lies in shop ({FIRST}-{FIRST + 19}) of shop and is free" in free.sentence
    assert WARNING not in free.next_step
    with socket.create_server(("127.0.0.1", FIRST)):
        taken = explain(ports.context, FIRST)
    assert "and no service holds it; " in taken.sentence
    assert "adopt it" in taken.next_step
    assert WARNING in taken.next_step


def test_port_outside_every_range(ports: PortManager) -> None:
    with socket.create_server(("127.0.0.1", FIRST + 30)):
        taken = explain(ports.context, FIRST + 30)
    assert "lies in no range; " in taken.sentence
    assert WARNING in taken.next_step
    assert "Add a range for it" in explain(ports.context, FIRST + 31).next_step


def test_old_port_of_a_moved_service(ports: PortManager) -> None:
    ports.allocate("shop", "web", metadata={"importedFrom": FIRST + 30})
    moved = explain(ports.context, FIRST + 30)
    assert f"is the old port of shop/web, which now has {FIRST}" in moved.sentence
    assert f"If you run shop/web, start it on {FIRST}." in moved.next_step
    assert "is the old port" not in explain(limited("bank").context, FIRST + 30).sentence
    assert "is the old port" not in explain(ports.context, FIRST + 30, protocol="udp").sentence
    # Anybody may write any port there, even one of bank's.
    ports.update("shop", "web", metadata={"importedFrom": BANK + 5})
    assert "is free" in explain(ports.context, BANK + 5).sentence
    ports.allocate("bank", "vault", metadata={"importedFrom": FIRST})
    assert "is held by shop/web" in explain(ports.context, FIRST).sentence  # the current holder takes precedence


def test_hidden_holder_is_called_another_project(ports: PortManager) -> None:
    ports.allocate("bank", "vault")
    ann = limited("shop")
    with socket.create_server(("127.0.0.1", BANK)):
        held = explain(ann.context, BANK, project="shop")
    assert "is held by another project; something listens on it." in held.sentence
    assert "Ask Portal for a port of your own project." in held.next_step
    assert WARNING in held.next_step
    assert (held.allocation, held.listener, held.port_range, held.is_yours) == (None, None, None, False)
    free = explain(ann.context, BANK + 1)
    assert "lies in a range of another project" in free.sentence
    assert "bank" not in full_text(held) + full_text(free)


def test_other_host_is_probed_only_for_a_service_the_caller_may_see(ports: PortManager, approved_host: str) -> None:
    """Portal cannot be used to scan a network."""
    with socket.create_server(("127.0.0.2", FIRST)) as server:
        unknown = explain(ports.context, FIRST, hostname=approved_host)
        assert (unknown.probe, unknown.is_observed) == (None, False)
        assert "whether anything listens on it cannot be seen from here" in unknown.sentence
        ports.allocate("shop", "web", hostname=approved_host)
        hidden = explain(limited("bank").context, FIRST, hostname=approved_host)
        assert (hidden.probe, hidden.is_observed) == (None, False)
        server.settimeout(0)
        with pytest.raises(BlockingIOError):  # no connection was made
            server.accept()
        probed = explain(ports.context, FIRST, hostname=approved_host)
        assert probed.probe is not None
        assert (probed.probe.status, probed.is_observed) == ("up", True)


def test_owner_is_shown_to_callers_who_may_see_the_service(ports: PortManager) -> None:
    ports.allocate("shop", "web", owner="team-payments")
    assert explain(ports.context, FIRST).sentence.endswith("nothing listens on it. Owner: team-payments.")
    assert explain(limited("shop").context, FIRST).sentence.endswith(" Owner: team-payments.")
    assert "team-payments" not in full_text(explain(limited("bank").context, FIRST))
    ports.update("shop", "web", owner="")
    assert "Owner" not in full_text(explain(ports.context, FIRST))


def test_a_directory_is_named_only_to_those_who_see_everything(ports: PortManager) -> None:
    with socket.create_server(("127.0.0.1", FIRST)):
        everything, part = explain(ports.context, FIRST), explain(limited("shop").context, FIRST)
    assert f" in {Path.cwd()} listens on it" in everything.sentence
    assert f"(pid {os.getpid()}) listens on it" in part.sentence
    assert part.listener is not None
    assert part.listener.cwd == ""


def test_a_process_outside_all_ranges_is_named_only_to_those_who_see_everything(ports: PortManager) -> None:
    with socket.create_server(("127.0.0.1", FIRST + 300)):
        everything, part = explain(ports.context, FIRST + 300), explain(limited("shop").context, FIRST + 300)
    assert everything.listener is not None
    assert f"(pid {os.getpid()}) in {Path.cwd()} listens on it" in everything.sentence
    assert part.listener is None
    assert "lies in no range; something listens on it." in part.sentence
    assert part.next_step == everything.next_step
