"""The commands: what they print, on which stream, and their exit status. tests/ports/ tests the operations."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import get_commands, load_command_class

from allocations.models import Event, Listener, PortAllocation, PortHealthCheck, Project
from allocations.ports import PortManager, allocations, reservations
from allocations.ports.seed import exclusive_setup
from portal.embedded.server import Server
from tests.commands import run
from tests.make import FIRST

pytestmark = pytest.mark.django_db
FIRST_UNUSED = FIRST + 490


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a PORTAL_HOME for this test only, in which Portal is set up."""
    Server(tmp_path).data.mkdir()
    monkeypatch.setattr(settings, "PORTAL_HOME", tmp_path)
    return tmp_path


def portal_commands() -> list[str]:
    return sorted(name for name, app in get_commands().items() if app == "allocations")


@pytest.mark.parametrize("name", portal_commands())
def test_help_has_an_example(name: str) -> None:
    command = load_command_class("allocations", name)
    text = command.create_parser("manage.py", name).format_help()
    assert f"example:\n  {command.example}" in text
    assert name in command.example
    assert "--settings" not in text


@pytest.mark.parametrize("name", portal_commands())
def test_help_text_ends_with_a_full_stop(name: str) -> None:
    assert load_command_class("allocations", name).help.endswith(".")


class TestAllocate:
    def test_prints_only_the_port_number(self, ports: PortManager) -> None:
        assert run("allocate", "shop", "api") == (f"{FIRST}\n", "", 0)

    def test_repeating_returns_the_same_port(self, ports: PortManager) -> None:
        run("allocate", "shop", "api")
        assert run("allocate", "shop", "api")[0] == f"{FIRST}\n"

    def test_warns_about_options_that_change_nothing(self, ports: PortManager) -> None:
        run("allocate", "shop", "api", "--type", "api")
        out, err, status = run("allocate", "shop", "api", "--type", "web", "--description", "Shop")
        assert (out, status) == (f"{FIRST}\n", 0)
        assert f"shop/api already holds {FIRST}/tcp" in err
        assert "--type and --description changed nothing" in err
        assert run("allocate", "shop", "api", "--type", "api")[1] == ""

    def test_warns_when_nothing_is_listening_on_the_adopted_port(
        self, ports: PortManager, listener: socket.socket
    ) -> None:
        assert run("allocate", "shop", "api", "--port", str(FIRST + 1), "--adopt") == (f"{FIRST + 1}\n", "", 0)
        out, err, _ = run("allocate", "shop", "web", "--port", str(FIRST + 2), "--adopt")
        assert (out, f"Nothing listens on {FIRST + 2}/tcp now" in err) == (f"{FIRST + 2}\n", True)

    def test_new_allocates_another_port(self, ports: PortManager) -> None:
        run("allocate", "shop", "api")
        assert run("allocate", "shop", "api", "--new")[0] == f"{FIRST + 1}\n"

    def test_count_allocates_that_many_new_ports(self, ports: PortManager) -> None:
        assert run("allocate", "shop", "api", "--count", "3")[0] == f"{FIRST}\n{FIRST + 1}\n{FIRST + 2}\n"

    def test_count_allocates_all_or_nothing(self, ports: PortManager) -> None:
        out, err, status = run("allocate", "shop", "api", "--count", "21")
        assert (out, status) == ("", 1)
        assert "no free port left" in err
        assert not PortAllocation.objects.exists()

    def test_port_allocates_exactly_that_port(self, ports: PortManager) -> None:
        assert run("allocate", "shop", "api", "--port", str(FIRST + 10))[0] == f"{FIRST + 10}\n"

    def test_every_option_is_stored(self, ports: PortManager) -> None:
        run(
            *("allocate", "shop", "api", "--type", "web", "--description", "The shop", "--host", "Web-1"),
            *("--protocol", "udp", "--cloudflare-hostname", "shop.example.com"),
        )
        allocation = PortAllocation.objects.get()
        assert (
            allocation.service_type,
            allocation.description,
            allocation.hostname,
            allocation.protocol,
            allocation.cloudflare_hostname,
        ) == (*("web", "The shop", "web-1", "udp", "shop.example.com"),)

    def test_json_prints_the_whole_allocation(self, ports: PortManager) -> None:
        allocation = json.loads(run("allocate", "shop", "api", "--json")[0])
        assert (allocation["project"], allocation["service"], allocation["port"]) == ("shop", "api", FIRST)

    def test_skips_the_port_of_an_unallocated_listener(self, ports: PortManager, listener: socket.socket) -> None:
        assert run("allocate", "shop", "api", "--count", "2")[0] == f"{FIRST}\n{FIRST + 2}\n"

    def test_adopt_allocates_the_port_of_a_listener(self, ports: PortManager, listener: socket.socket) -> None:
        refusal = run("allocate", "shop", "api", "--port", str(FIRST + 1))
        assert refusal[2] == 1
        assert "adopt" in refusal[1]
        assert run("allocate", "shop", "api", "--port", str(FIRST + 1), "--adopt")[0] == f"{FIRST + 1}\n"

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (("shpo", "api"), "Did you mean shop?"),
            (("shop", "Api"), "is not valid"),
            (("shop", "api", "--port", "70000"), "ports are 1 to 65535"),
            (("shop", "api", "--port", "３０００"), "not a whole number"),
            (("shop", "api", "--port", "1_000"), "not a whole number"),
            (("shop", "api", "--port", "99"), "lies outside the ranges of shop"),
            (("shop", "api", "--count", "0"), "from 1 to 500"),
            (("shop", "api", "--count", "2", "--port", str(FIRST)), "exclude each other"),
            (("shop", "api", "--adopt"), "--adopt needs --port"),
            (("shop", "api", "--range", "nowhere"), "There is no range nowhere"),
            (("shop", "api", "--host", "127.1"), "is not valid"),
            (("shop", "api", "--cloudflare-hostname", "a b"), "is not a public name"),
        ],
    )
    def test_refusals_are_one_line_with_status_1(
        self, ports: PortManager, words: tuple[str, ...], sentence: str
    ) -> None:
        out, err, status = run("allocate", *words)
        assert (out, status) == ("", 1)
        assert sentence in err
        assert "\n" not in err.strip()

    def test_the_history_names_the_unix_user(self, ports: PortManager) -> None:
        run("allocate", "shop", "api")
        event = Event.objects.first()
        assert event is not None
        assert event.actor.startswith("cli:")
        assert (event.source, event.verb) == ("shell", "allocated")


class TestReserve:
    def test_reserves_a_port(self, ports: PortManager) -> None:
        out, _, status = run("reserve", "shop", str(FIRST + 5), "--note", "phase 2")
        assert (out, status) == (f"Reserved {FIRST + 5} for shop.\n", 0)
        assert PortAllocation.objects.get().description == "phase 2"

    def test_reserves_a_block_with_an_expiry(self, ports: PortManager) -> None:
        out, _, status = run("reserve", "shop", f"{FIRST + 5}-{FIRST + 7}", "--expires", "7d")
        assert status == 0
        assert out.startswith(f"Reserved {FIRST + 5}-{FIRST + 7} for shop until ")
        assert PortAllocation.objects.filter(expires_at__isnull=False).count() == 3

    def test_reserves_the_whole_block_or_nothing(self, ports: PortManager) -> None:
        run("allocate", "shop", "api", "--port", str(FIRST + 7))
        _, err, status = run("reserve", "shop", f"{FIRST + 5}-{FIRST + 8}")
        assert status == 1
        assert "held by shop/api" in err
        assert PortAllocation.objects.count() == 1

    @pytest.mark.parametrize("expires", ["yesterday", "2020-01-01", "9999-01-01", "0d"])
    def test_invalid_expiries_are_refused(self, ports: PortManager, expires: str) -> None:
        assert run("reserve", "shop", str(FIRST + 5), "--expires", expires)[2] == 1


class TestRelease:
    def test_releases_the_port(self, ports: PortManager) -> None:
        ports.allocate("shop", "api")
        assert run("release", "shop", "api") == (f"Released {FIRST}/tcp of shop/api.\n", "", 0)

    def test_several_instances_require_instance_or_all(self, ports: PortManager) -> None:
        allocations.allocate_copies(ports.context, "shop", "api", 3)
        _, err, status = run("release", "shop", "api")
        assert status == 1
        assert f"instance 2: {FIRST + 2}/tcp" in err
        assert run("release", "shop", "api", "--instance", "1")[0] == f"Released {FIRST + 1}/tcp of shop/api#1.\n"
        assert run("release", "shop", "api", "--all")[0].count("Released") == 2

    def test_releases_a_block_of_reservations(self, ports: PortManager) -> None:
        reservations.reserve_block(ports.context, "shop", FIRST + 5, FIRST + 6)
        answer = run("release", "shop", "--reservation", f"{FIRST + 5}-{FIRST + 6}")[0]
        assert answer == f"Released {FIRST + 5}-{FIRST + 6}/tcp of shop/(reserved).\n"

    def test_a_service_without_ports_is_refused(self, ports: PortManager) -> None:
        ports.allocate("shop", "api")
        _, err, status = run("release", "shop", "apo")
        assert status == 1
        assert "Did you mean api?" in err

    def test_requires_a_service_or_a_reservation(self, ports: PortManager) -> None:
        assert run("release", "shop")[2] == 1


class TestListPorts:
    def test_a_pipe_gets_plain_columns(self, ports: PortManager) -> None:
        ports.allocate("shop", "api", service_type="web")
        out = run("list_ports")[0].splitlines()
        assert out[0].split() == [
            *("Port", "Protocol", "Host", "Project", "Service", "Instance", "Status", "Health", "Type"),
            *("Description", "Owner"),
        ]
        assert out[1].split() == [str(FIRST), "tcp", "localhost", "shop", "api", "0", "allocated", "web"]

    def test_the_owner_is_listed(self, ports: PortManager) -> None:
        run("allocate", "shop", "api", "--owner", "team-payments")
        assert run("list_ports")[0].splitlines()[1].split()[-1] == "team-payments"
        assert (
            run("list_ports", "--search", "payments", "--format", "csv")[0].splitlines()[1].endswith(",team-payments")
        )
        assert json.loads(run("list_ports", "--json")[0])[0]["owner"] == "team-payments"

    def test_json_format(self, ports: PortManager) -> None:
        ports.allocate("shop", "api")
        assert [a["port"] for a in json.loads(run("list_ports", "--format", "json")[0])] == [FIRST]

    def test_csv_escapes_formulas(self, ports: PortManager) -> None:
        ports.allocate("shop", "api", description="=1+1")
        assert run("list_ports", "--format", "csv")[0].splitlines()[1].endswith(",'=1+1,")

    def test_the_list_can_be_filtered(self, ports: PortManager) -> None:
        ports.allocate("shop", "api")
        ports.allocate("shop", "db", hostname="db-1")
        ports.release("shop", "api")
        assert "api" not in run("list_ports", "--project", "shop")[0]
        assert "api" in run("list_ports", "--status", "released")[0]
        assert "db" in run("list_ports", "--host", "db-1")[0]
        assert run("list_ports", "--search", str(FIRST + 1))[1] != ""

    def test_an_empty_list_suggests_allocate(self, ports: PortManager) -> None:
        out, err, status = run("list_ports")
        assert (out, status) == ("", 0)
        assert "manage.py allocate" in err


class TestPortSummary:
    def test_summary_of_all_projects(self, ports: PortManager) -> None:
        allocations.allocate_copies(ports.context, "shop", "api", 5)
        assert f"shop     {FIRST}-{FIRST + 19}          5         0         15   25%  ██░" in run("port_summary")[0]

    def test_ports_that_unallocated_listeners_occupy_are_not_available(self, ports: PortManager) -> None:
        ports.allocate("shop", "api", port_number=FIRST)
        seen = [(FIRST, "udp"), (FIRST + 1, "tcp"), (FIRST + 1, "udp"), (FIRST + 2, "tcp"), (FIRST + 50, "tcp")]
        for port, protocol in seen:  # the first one is held on the other protocol, the last one is in no range
            Listener.objects.create(hostname="localhost", protocol=protocol, address="::", port=port)
        summary = ports.summary("shop")
        assert (summary.total_ports, summary.allocated_ports, summary.available_ports) == (20, 1, 17)
        assert summary.utilization_percent == 5
        assert f"shop     {FIRST}-{FIRST + 19}          1         0         17    5%" in run("port_summary")[0]

    def test_summary_of_one_project_as_json(self, ports: PortManager) -> None:
        ports.reserve("shop", FIRST + 5)
        ports.allocate("shop", "api")
        assert json.loads(run("port_summary", "shop", "--json")[0]) == {
            "success": True,
            "summary": {
                "rangeStart": FIRST,
                "rangeEnd": FIRST + 19,
                "totalPorts": 20,
                "allocatedPorts": 1,
                "reservedPorts": 1,
                "availablePorts": 18,
                "utilizationPercent": 10,
            },
        }

    def test_an_unknown_project_is_refused(self) -> None:
        assert run("port_summary", "nope")[2] == 1


class TestAddProject:
    def test_uses_the_next_free_block(self) -> None:
        assert run("add_project", "one")[0] == "one has the ports 3000-3099.\n"
        assert run("add_project", "two", "--size", "50")[0] == "two has the ports 3100-3149.\n"
        assert run("add_project", "three")[0] == "three has the ports 3200-3299.\n"

    def test_start_and_shared_options(self) -> None:
        assert (
            run("add_project", "one", "--start", "9000", "--size", "10", "--shared")[0]
            == "one has the ports 9000-9009.\n"
        )
        assert Project.objects.get().ranges.get().is_shared

    def test_an_overlap_names_the_other_range(self, ports: PortManager) -> None:
        _, err, status = run("add_project", "one", "--start", str(FIRST + 19))
        assert status == 1
        assert f"overlaps shop ({FIRST}-{FIRST + 19}) of shop in {FIRST + 19}-{FIRST + 19}" in err


class TestAddRange:
    def test_its_name_is_that_of_the_project_and_the_port(self, ports: PortManager) -> None:
        out, errors, status = run("add_range", "shop", f"{FIRST + 50}-{FIRST + 59}")
        assert (errors, status) == ("", 0)
        assert out == f"shop has the ports {FIRST + 50}-{FIRST + 59} too, as shop-{FIRST + 50}.\n"
        assert ports.summary("shop").total_ports == 30

    def test_options(self, ports: PortManager) -> None:
        words = ("--name", "extra", "--shared", "--description", "For later", "--json")
        added = json.loads(run("add_range", "shop", str(FIRST + 50), *words)[0])
        assert (added["name"], added["shared"], added["description"]) == ("extra", True, "For later")

    def test_an_overlap_is_refused(self, ports: PortManager) -> None:
        out, errors, status = run("add_range", "shop", f"{FIRST + 10}-{FIRST + 30}")
        assert (out, status) == ("", 1)
        assert "overlaps shop" in errors


class TestUpdate:
    def test_service_is_renamed_and_described(self, ports: PortManager) -> None:
        ports.allocate("shop", "api", owner="anna")
        words = ("--rename", "front", "--type", "web", "--cloudflare-hostname", "shop.example.com")
        assert run("update", "shop", "api", *words) == (f"Updated shop/front on {FIRST}/tcp.\n", "", 0)
        row = json.loads(run("update", "shop", "front", "--cloudflare-hostname", "", "--json")[0])
        assert (row["service"], row["serviceType"], row["owner"]) == ("front", "web", "anna")
        assert row["cloudflareHostname"] is None

    def test_instance_has_to_be_named(self, ports: PortManager) -> None:
        for _ in range(2):
            ports.allocate("shop", "api")
        _, errors, status = run("update", "shop", "api", "--owner", "anna")
        assert status == 1
        assert "name the instance" in errors
        assert run("update", "shop", "api", "--owner", "anna", "--instance", "1")[2] == 0

    def test_without_a_change_it_says_what_can_be_changed(self, ports: PortManager) -> None:
        ports.allocate("shop", "api")
        _, errors, status = run("update", "shop", "api")
        assert status == 1
        assert "--rename NAME" in errors


class TestMove:
    def test_to_another_host_it_keeps_the_port(self, ports: PortManager) -> None:
        ports.allocate("shop", "api", owner="anna", description="The API", cloudflare_hostname="shop.example.com")
        out = run("move", "shop", "api", "--to-host", "web-2")[0]
        assert out == f"shop/api moved from {FIRST}/tcp to {FIRST}/tcp on web-2.\n"
        (held,) = PortAllocation.objects.held()
        assert (held.owner, held.description, held.cloudflare_hostname) == ("anna", "The API", "shop.example.com")
        ports.allocate("shop", "web")
        assert run("move", "shop", "api", "--to-host", "localhost")[0].endswith(f" to {FIRST + 1}/tcp.\n"), "taken"

    def test_to_another_range(self, ports: PortManager) -> None:
        ports.allocate("shop", "api")
        run("add_range", "shop", f"{FIRST + 50}-{FIRST + 59}", "--name", "more")
        row = json.loads(run("move", "shop", "api", "--to-range", "more", "--json")[0])
        assert (row["port"], row["range"], row["metadata"]) == (FIRST + 50, "more", {"importedFrom": FIRST})
        with socket.create_server(("127.0.0.1", FIRST)):
            assert f"shop/api is listening on {FIRST} instead of {FIRST + 50}/tcp." in run("audit")[0]

    @pytest.mark.parametrize("where", [("--to-range", "less"), ("--to-port", str(FIRST + 5)), ("--to-port", "1")])
    def test_all_or_nothing(self, ports: PortManager, where: tuple[str, str]) -> None:
        ports.allocate("shop", "api")
        ports.allocate("shop", "web", port_number=FIRST + 5)
        assert run("move", "shop", "api", *where)[2] == 1
        assert {(a.label, a.port_number) for a in PortAllocation.objects.held().select_related("project")} == {
            ("shop/api", FIRST),
            ("shop/web", FIRST + 5),
        }

    def test_it_says_where_to_move_to(self, ports: PortManager) -> None:
        ports.allocate("shop", "api")
        assert "--to-host HOST" in run("move", "shop", "api")[1]


class TestAudit:
    def test_a_healthy_audit_is_status_0(self, ports: PortManager, listener: socket.socket) -> None:
        allocations.adopt(ports.context, "shop", "api", port_number=FIRST + 1)
        out, _, status = run("audit")
        assert status == 0
        assert out.startswith("1 allocated, 1 in use, 0 not running")

    def test_quiet_prints_nothing_when_healthy(self, ports: PortManager, listener: socket.socket) -> None:
        allocations.adopt(ports.context, "shop", "api", port_number=FIRST + 1)
        assert run("audit", "--quiet") == ("", "", 0)

    def test_conflicts_are_status_1(self, ports: PortManager) -> None:
        ports.allocate("shop", "api")
        out, _, status = run("audit")
        assert status == 1
        assert "shop/api" in out
        assert "not running" in out

    def test_quiet_prints_what_has_changed(self, ports: PortManager) -> None:
        ports.allocate("shop", "api")
        down = f"shop/api on {FIRST}/tcp: not running.\n"
        assert run("audit", "--quiet") == (f"New: {down}", "", 1)
        assert run("audit", "--quiet") == ("", "", 1)
        assert run("audit", "--quiet", "--json") == ("", "", 1)
        assert run("audit", "--quiet", "--project", "shop")[0] == f"New: {down}", "other filters"
        ports.allocate("shop", "web")
        assert run("audit", "--quiet")[0] == f"New: shop/web on {FIRST + 1}/tcp: not running.\n"
        with socket.create_server(("127.0.0.1", FIRST)):
            assert run("audit", "--quiet")[0] == f"Solved: {down}"
        ports.release("shop", "web")
        out = run("audit", "--quiet")[0]
        assert out == f"New: {down}Solved: shop/web on {FIRST + 1}/tcp: not running.\n"

    def test_quiet_reports_another_reason(self, ports: PortManager) -> None:
        ports.allocate("shop", "api", metadata={"process": "node"})
        run("audit", "--quiet")
        with socket.create_server(("127.0.0.1", FIRST)):
            out = run("audit", "--quiet")[0]
        assert out.startswith(f"New: shop/api on {FIRST}/tcp: conflict with process ")

    def test_unallocated_listeners_are_reported(self, ports: PortManager, listener: socket.socket) -> None:
        out, _, status = run("audit")
        assert f"{FIRST + 1}/tcp in shop: python" in out
        assert status == 3
        out, errors, status = run("audit", "--quiet")
        assert (out.startswith(f"New: {FIRST + 1}/tcp in shop: "), errors, status) == (True, "", 3)
        assert run("audit", "--quiet") == ("", "", 3)

    def test_conflicts_come_before_unallocated_listeners(self, ports: PortManager, listener: socket.socket) -> None:
        ports.allocate("shop", "api")
        assert run("audit")[2] == 1

    def test_nothing_that_can_be_judged_has_no_percentage(self, ports: PortManager) -> None:
        ports.allocate("shop", "api", hostname="db-1")
        out, _, status = run("audit")
        assert (
            "1 allocated, 0 in use, 0 not running, 1 unknown, 0 unallocated listeners: nothing could be judged." in out
        )
        assert status == 0
        assert json.loads(run("audit", "--json")[0])["summary"]["healthPercentage"] is None

    def test_a_host_without_allocations_is_status_2(self, ports: PortManager) -> None:
        ports.allocate("shop", "api")
        out, err, status = run("audit", "--host", "loclhost")
        assert (out, status) == ("", 2)
        assert "Nothing is allocated on loclhost, so nothing was audited. Did you mean localhost?" in err
        assert run("audit", "--host", "localhost")[2] == 1

    def test_json_prints_the_report(self, ports: PortManager, listener: socket.socket) -> None:
        allocations.adopt(ports.context, "shop", "api", port_number=FIRST + 1)
        ports.allocate("shop", "web")
        out, _, status = run("audit", "--json")
        assert status == 1
        assert json.loads(out) == {
            "success": True,
            "summary": {
                **{"allocated": 2, "inUse": 1, "notRunning": 1, "healthPercentage": 50},
                **{"unknown": 0, "drift": 0, "unallocated": 0},
            },
            "conflicts": [{"port": FIRST, "expected": "shop/web", "actual": "not running"}],
            "unallocated": [],
        }

    def test_an_audit_is_recorded_by_default(self, ports: PortManager) -> None:
        ports.allocate("shop", "api")
        run("audit", "--no-record")
        assert not PortHealthCheck.objects.exists()
        run("audit")
        assert PortHealthCheck.objects.get().status == "down"

    def test_an_unknown_project_is_status_2(self) -> None:
        out, err, status = run("audit", "--project", "nope", "--json")
        assert status == 2
        assert json.loads(out)["code"] == "unknown_project"
        assert "nope" in err

    def test_drift_is_reported(self, ports: PortManager, listener: socket.socket) -> None:
        ports.allocate("shop", "api", metadata={"importedFrom": FIRST + 1})
        out = run("audit")[0]
        assert f"shop/api  not running  listens on {FIRST + 1}" in out
        assert f"shop/api is listening on {FIRST + 1} instead of {FIRST}/tcp." in out

    def test_restart_starts_services_that_are_down(self, ports: PortManager, home: Path) -> None:
        ports.allocate("shop", "api")
        started = home / "started"
        serve = f"import pathlib, socket, time; pathlib.Path({str(started)!r}).touch()"
        (home / "restart.toml").write_text(f"[services]\n'shop/api' = ['{sys.executable}', '-c', \"{serve}\"]\n")
        (home / "restart.toml").chmod(0o600)
        _, err, status = run("audit", "--restart")
        assert started.exists()
        assert "shop/api: restarted" in err
        assert status == 1  # the program has ended, so the second audit finds the service down

    def test_restart_refuses_a_file_that_others_can_change(self, ports: PortManager, home: Path) -> None:
        ports.allocate("shop", "api")
        (home / "restart.toml").write_text("[services]\n")
        (home / "restart.toml").chmod(0o666)
        _, err, status = run("audit", "--restart")
        assert status == 2
        assert "can be changed by others" in err

    def test_restart_names_services_that_do_not_exist(self, ports: PortManager, home: Path) -> None:
        ports.allocate("shop", "api")
        (home / "restart.toml").write_text('[services]\n"shop/apo" = ["true"]\n')
        (home / "restart.toml").chmod(0o600)
        _, err, _ = run("audit", "--restart")
        assert "restart.toml names shop/apo, which holds no port. Did you mean shop/api?" in err
        assert "shop/api: not restarted (restart.toml has no command for it)." in err


class TestExplain:
    def test_names_the_service_that_holds_the_port(self, ports: PortManager) -> None:
        ports.allocate("shop", "api")
        out, _, status = run("explain", str(FIRST))
        assert status == 0
        assert "is held by shop/api; nothing listens on it." in out

    def test_names_the_process_that_is_listening(self, ports: PortManager, listener: socket.socket) -> None:
        assert "no service holds it; python" in run("explain", str(FIRST + 1))[0]

    def test_json_prints_the_explanation(self, ports: PortManager) -> None:
        explanation = json.loads(run("explain", str(FIRST), "--json")[0])
        assert (explanation["project"], explanation["allocation"], explanation["listener"]) == ("shop", None, None)

    def test_an_invalid_port_is_refused(self) -> None:
        assert run("explain", "70000")[2] == 1


class TestPrune:
    def test_recent_checks_are_kept(self, ports: PortManager) -> None:
        ports.allocate("shop", "api")
        run("audit")
        assert run("prune")[0] == "Deleted 0 checks.\n"

    def test_old_checks_are_deleted(self, ports: PortManager) -> None:
        ports.allocate("shop", "api")
        run("audit")
        PortHealthCheck.objects.update(checked_at="2020-01-01T00:00Z")
        assert run("prune", "--checks", "30d")[0] == "Deleted 1 check.\n"

    def test_quiet_prints_nothing(self, ports: PortManager) -> None:
        assert run("prune", "--quiet") == ("", "", 0)

    @pytest.mark.parametrize("age", ["", "30", "-1d", "0d", "soon"])
    def test_invalid_ages_are_refused(self, ports: PortManager, age: str) -> None:
        assert run("prune", "--checks", age)[2] == 1


def test_usage_errors_are_status_2_without_output() -> None:
    """Run the real command, because only its parser finds these errors. It does not connect to a database."""
    for words in (["allocate"], ["allocate", "a", "b", "--nope"], ["list_ports", "--format", "xml"]):
        done = subprocess.run(
            [sys.executable, "manage.py", *words], capture_output=True, text=True, cwd=settings.BASE_DIR
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert "usage:" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("words", "status"), [(["list_ports"], 1), (["allocate", "a", "b"], 1), (["audit"], 2)])
def test_commands_do_not_create_a_portal(checkout: Path, words: list[str], status: int) -> None:
    """A shell or a cron job with a wrong PORTAL_HOME must not get a new, empty registry."""
    (checkout / ".portal").mkdir()
    done = subprocess.run(
        [sys.executable, "manage.py", *words],
        capture_output=True,
        text=True,
        cwd=checkout,
        env={"PATH": "/usr/bin:/bin", "PORTAL_HOME": str(checkout / "elsewhere")},
    )
    assert (done.returncode, done.stdout) == (status, "")
    assert f"There is no Portal in {checkout / 'elsewhere'}: run `make up`" in done.stderr
    assert f"There is one in {checkout / '.portal'}: PORTAL_HOME={checkout / '.portal'}." in done.stderr
    assert not Server(checkout / "elsewhere").data.exists()


def test_manage_py_without_packages_says_how_to_install_them(checkout: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-S", "manage.py", "list_ports"], capture_output=True, text=True, cwd=checkout
    )
    assert (done.returncode, done.stderr) == (
        1,
        "Portal is not installed here yet. Run `make up` to install and start it.\n",
    )


def test_progress_is_not_printed_to_a_pipe() -> None:
    """Cron would send an email even for an empty line."""
    work = (
        "import django; django.setup(); from allocations.management.command import PortCommand\n"
        "with PortCommand().working('Auditing'): pass"
    )
    done = subprocess.run(
        [sys.executable, "-c", work],
        capture_output=True,
        text=True,
        cwd=settings.BASE_DIR,
        env={"PATH": "/usr/bin:/bin", "DJANGO_SETTINGS_MODULE": "tests.settings"},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_unavailable_database_is_reported_in_one_line() -> None:
    environment = {
        "PATH": "/usr/bin:/bin",
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
        "PORTAL_SECRET_KEY": "only-for-tests-" * 4,
    }
    for words, status in ((["list_ports"], 1), (["allocate", "a", "b"], 1), (["audit"], 2)):
        done = subprocess.run(
            [sys.executable, "manage.py", *words],
            capture_output=True,
            text=True,
            cwd=settings.BASE_DIR,
            env=environment,
        )
        assert (done.returncode, done.stdout) == (status, "")
        assert "The database cannot answer now" in done.stderr
        assert "Traceback" not in done.stderr


class TestUp:
    @staticmethod
    def up(home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": "/usr/bin:/bin", "PORTAL_HOME": str(home), "PORTAL_PORT": str(FIRST_UNUSED), **variables}
        return subprocess.run(
            [sys.executable, "manage.py", "up"], capture_output=True, text=True, cwd=settings.BASE_DIR, env=environment
        )

    def test_an_address_of_another_machine_is_refused_before_the_setup(self, tmp_path: Path) -> None:
        for host in ("bogus.invalid", "192.0.2.1"):
            done = self.up(tmp_path / "home", PORTAL_HOST=host)
            assert (done.returncode, done.stdout) == (1, "")
            assert f"Portal cannot serve on {host}:{FIRST_UNUSED} (" in done.stderr
            assert "set PORTAL_HOST to an address of this machine" in done.stderr
        assert not Server(tmp_path / "home").data.exists()

    @pytest.fixture
    def own_home(self) -> Iterator[Path]:
        """Provide a PORTAL_HOME that the account of PostgreSQL can enter, and stop the server in it afterwards."""
        path = Path(tempfile.mkdtemp(prefix="portal-test-", dir="/tmp"))
        path.chmod(0o711)
        yield path / "home"
        Server(path / "home").stop()
        shutil.rmtree(path)

    @pytest.mark.parametrize(("password", "reason"), [("admin", "too short"), ("password1", "too common")])
    def test_a_weak_password_is_refused(self, own_home: Path, password: str, reason: str) -> None:
        done = self.up(own_home, PORTAL_ADMIN_PASSWORD=password)
        assert done.returncode == 1
        assert "PORTAL_ADMIN_PASSWORD is too weak" in done.stderr
        assert reason in done.stderr
        assert "Traceback" not in done.stderr

    @pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user runs the database under the same account")
    def test_a_home_that_the_database_account_cannot_enter_is_refused(self, tmp_path: Path) -> None:
        """This happens in root's home directory. Trying again would not help, so the message does not suggest it."""
        (tmp_path / "closed").mkdir(mode=0o700)
        done = self.up(tmp_path / "closed" / "home")
        assert done.returncode == 1
        assert "the account portal" in done.stderr
        assert "such as /var/lib/portal" in done.stderr
        assert "try again" not in done.stderr


@pytest.mark.django_db(transaction=True)
def test_concurrent_setups_wait_for_each_other() -> None:
    order: list[str] = []
    entered = threading.Event()

    def second() -> None:
        entered.wait(10)
        with exclusive_setup():
            order.append("second")

    other = threading.Thread(target=second)
    other.start()
    with exclusive_setup():
        entered.set()
        other.join(0.5)
        assert other.is_alive()
        order.append("first")
    other.join(10)
    assert order == ["first", "second"]
