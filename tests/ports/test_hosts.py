"""Approve hosts: only unlimited admins can, and nothing else lets Portal connect to another host."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

import pytest
from django.db import IntegrityError, connection
from django.test import Client

from allocations import errors, probes
from allocations.auth.roles import Caller, Role
from allocations.migrations.sql import FOLDER
from allocations.models import Host, PortRange
from allocations.ports import Context, PortManager, explain, hosts
from tests import make
from tests.commands import run
from tests.users import client_of, client_with_role, superuser, user_with_role

pytestmark = pytest.mark.django_db
LIMITED = "You are limited to some projects"


def context_with(role: Role, *, projects: frozenset[Any] | None = None) -> Context:
    return Context.of(Caller("ann", role, projects), "web")


class TestOperations:
    def test_this_machine_is_approved_from_the_start(self) -> None:
        (host,) = Host.objects.all()
        assert (host.name, host.approved_by, host.is_this_machine) == ("localhost", "Portal", True)

    def test_who_approved_a_host_is_recorded_once(self) -> None:
        hosts.approve(context_with(Role.ADMIN), "Web-1.Example.com.")
        again = hosts.approve(Context.trusted("bob"), "web-1.example.com")
        assert (again.name, again.approved_by) == ("web-1.example.com", "ann")

    @pytest.mark.parametrize("change", [hosts.approve, hosts.withdraw])
    def test_only_unlimited_admins_approve(self, change: Callable[..., Any], bank: PortRange) -> None:
        with pytest.raises(errors.NotPermitted, match="requires the role admin"):
            change(context_with(Role.OPERATOR), "web-1")
        with pytest.raises(errors.NotPermitted, match=LIMITED):
            change(context_with(Role.ADMIN, projects=frozenset([bank.project_id])), "web-1")

    @pytest.mark.parametrize("name", ["169.254.169.254", "::a9fe:a9fe"])
    def test_address_that_is_never_probed_cannot_be_approved(self, name: str) -> None:
        with pytest.raises(errors.InvalidValue, match=f"{name} is never probed"):
            hosts.approve(context_with(Role.ADMIN), name)

    def test_withdraw(self) -> None:
        context = context_with(Role.ADMIN)
        hosts.approve(context, "web-1")
        hosts.withdraw(context, "web-1")
        with pytest.raises(errors.UnknownHost, match="web-1 is not approved, so nothing was changed"):
            hosts.withdraw(context, "web-1")
        with pytest.raises(errors.InvalidValue, match="this machine"):
            hosts.withdraw(context, "127.0.0.1")

    def test_mistyped_name_is_corrected(self) -> None:
        hosts.approve(context_with(Role.ADMIN), "web-1.example.com")
        with pytest.raises(errors.UnknownHost, match=r"Did you mean web-1\.example\.com\?"):
            hosts.withdraw(context_with(Role.ADMIN), "web-2.example.com")

    @pytest.mark.parametrize("name", ["Web-1", "127.0.0.1", "a b", ""])
    def test_database_refuses_other_ways_to_write_a_host(self, name: str) -> None:
        with pytest.raises(IntegrityError, match="hosts_canonical"):
            Host.objects.create(name=name, approved_by="ann")

    def test_one_query_decides_about_all_targets(self, django_assert_num_queries: Any) -> None:
        with django_assert_num_queries(1):
            results = hosts.probe([(f"host-{n}.example", 80) for n in range(50)])
        assert {probe.reason for probe in results.values()} == {"host not approved"}
        with django_assert_num_queries(0):
            assert hosts.probe([]) == {}

    def test_approved_host_that_leads_to_a_forbidden_address_is_not_probed(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hosts.approve(context_with(Role.ADMIN), "rebound.example")
        entry = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("64:ff9b:1::a9fe:a9fe", 0, 0, 0))
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [entry])
        result = hosts.probe([("rebound.example", 80)])["rebound.example", 80]
        assert (result.status, result.reason) == (probes.UNKNOWN, "forbidden")


def test_explain_leaves_a_host_alone_that_is_not_approved(ports: PortManager, other_host: str) -> None:
    ports.allocate("shop", "web", hostname=other_host)
    with socket.create_server(("127.0.0.2", make.FIRST)) as server:
        told = explain.explain(ports.context, make.FIRST, hostname=other_host)
        server.settimeout(0.2)
        with pytest.raises(TimeoutError):
            server.accept()
    assert "unknown, because no admin has approved the host" in told.sentence


class TestDoors:
    def test_command(self, ports: PortManager) -> None:
        ports.allocate("shop", "web", hostname="web-1")
        assert run("hosts")[0].splitlines()[-1].split() == ["web-1", "1", "not", "approved"]
        out, err, status = run("hosts", "--approve", "web-1", "--json")
        assert (err, status) == ("Audits connect to web-1 from now on.\n", 0)
        assert [(row["name"], row["held"], row["isApproved"]) for row in json.loads(out)] == [
            ("localhost", 0, True),
            ("web-1", 1, True),
        ]
        assert run("hosts", "--withdraw", "web-1")[2] == 0
        assert run("hosts", "--withdraw", "web-1")[2] == 1

    def test_admin_approves_and_withdraws(self) -> None:
        client = client_with_role("admin", is_staff=True)
        assert client.post("/admin/allocations/host/add/", {"hostname": "Web-1"}).status_code == 302
        assert "web-1" in client.get("/admin/allocations/host/").text
        assert client.post("/admin/allocations/host/web-1/delete/", {"post": "yes"}).status_code == 302
        assert not Host.objects.filter(name="web-1").exists()

    def test_admin_shows_refusals(self) -> None:
        client = client_with_role("admin", is_staff=True)
        page = client.post("/admin/allocations/host/add/", {"hostname": "169.254.169.254"})
        assert "is never probed" in page.text
        assert client.post("/admin/allocations/host/localhost/delete/", {"post": "yes"}).status_code == 403

    def test_limited_admin_sees_no_hosts(self, bank: PortRange) -> None:
        superuser()  # the database keeps an admin without a limit
        user = user_with_role("admin", is_staff=True, limited_to=[bank.project.name])
        client = client_of(user)
        assert client.get("/admin/allocations/host/add/").status_code == 403
        assert "localhost" not in client.get("/admin/allocations/host/").text

    def test_home_page_asks_admins_for_approval(self, ports: PortManager, admin: Client, viewer: Client) -> None:
        ports.allocate("shop", "web", hostname="web-1")
        assert "Services have ports on web-1" in admin.get("/").text
        assert "Services have ports on web-1" not in viewer.get("/").text
        hosts.approve(ports.context, "web-1")
        assert "Services have ports on" not in admin.get("/").text


def test_upgrade_approves_hosts_with_ports(ports: PortManager) -> None:
    """The statement of the migration, on a database with allocations."""
    ports.allocate("shop", "web", hostname="web-1")
    ports.allocate("shop", "old", hostname="web-2")
    ports.release("shop", "old")
    text = (FOLDER / "0005_hosts.sql").read_text()
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM hosts")
        cursor.execute(text[text.index("INSERT") :])
    assert set(Host.objects.values_list("name", "approved_by")) == {("localhost", "Portal"), ("web-1", "upgrade")}
