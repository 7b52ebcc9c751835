"""Each command: what it prints, where, and its exit status. What the operations do is tested in test_ports.py."""

import io
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command, get_commands, load_command_class

from allocations.models import Event, PortAllocation, PortHealthCheck, Project
from allocations.ports import PortManager
from allocations.ports.seeding import setting_up
from portal.embedded.server import Server

pytestmark = pytest.mark.django_db
FIRST_UNUSED = 20990


@pytest.fixture
def ports() -> PortManager:
    manager = PortManager(actor="test")
    manager.add_project("shop", size=20, start=20500)
    return manager


def run(*words: str) -> tuple[str, str, int]:
    """Standard output, standard error and exit status of a command."""
    out, err = io.StringIO(), io.StringIO()
    try:
        call_command(*words, stdout=out, stderr=err)
        status = 0
    except CommandError as refused:
        err.write(str(refused))
        status = refused.returncode
    except SystemExit as ended:
        status = int(ended.code or 0)
    return out.getvalue(), err.getvalue(), status


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A real socket on shop's second port."""
    with socket.create_server(("127.0.0.1", 20501)) as found:
        yield found


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PORTAL_HOME of this test alone, in which a Portal was set up."""
    Server(tmp_path).data.mkdir()
    monkeypatch.setattr(settings, "PORTAL_HOME", tmp_path)
    return tmp_path


def ours() -> list[str]:
    return sorted(name for name, app in get_commands().items() if app == "allocations")


@pytest.mark.parametrize("name", ours())
def test_help_has_an_example(name: str) -> None:
    command = load_command_class("allocations", name)
    text = command.create_parser("manage.py", name).format_help()
    assert f"example:\n  {command.example}" in text
    assert name in command.example
    assert "--settings" not in text


@pytest.mark.parametrize("name", ours())
def test_help_text_ends_with_a_full_stop(name: str) -> None:
    assert load_command_class("allocations", name).help.endswith(".")


class TestAllocate:
    def test_it_prints_the_number_alone(self, ports: PortManager) -> None:
        assert run("allocate", "shop", "api") == ("20500\n", "", 0)

    def test_it_gives_the_same_port_again(self, ports: PortManager) -> None:
        run("allocate", "shop", "api")
        assert run("allocate", "shop", "api")[0] == "20500\n"

    def test_what_it_does_not_change_is_told(self, ports: PortManager) -> None:
        run("allocate", "shop", "api", "--type", "api")
        out, err, status = run("allocate", "shop", "api", "--type", "web", "--description", "Shop")
        assert (out, status) == ("20500\n", 0)
        assert "shop/api holds 20500/tcp already" in err
        assert "--type and --description changed nothing" in err
        assert run("allocate", "shop", "api", "--type", "api")[1] == ""

    def test_adopting_what_does_not_listen_is_told(self, ports: PortManager, listener: socket.socket) -> None:
        assert run("allocate", "shop", "api", "--port", "20501", "--adopt") == ("20501\n", "", 0)
        out, err, _ = run("allocate", "shop", "web", "--port", "20502", "--adopt")
        assert (out, "Nothing listens on 20502/tcp now" in err) == ("20502\n", True)

    def test_new_gives_another(self, ports: PortManager) -> None:
        run("allocate", "shop", "api")
        assert run("allocate", "shop", "api", "--new")[0] == "20501\n"

    def test_count_gives_that_many_new_ones(self, ports: PortManager) -> None:
        assert run("allocate", "shop", "api", "--count", "3")[0] == "20500\n20501\n20502\n"

    def test_count_is_all_or_none(self, ports: PortManager) -> None:
        out, err, status = run("allocate", "shop", "api", "--count", "21")
        assert (out, status) == ("", 1)
        assert "no free port left" in err
        assert not PortAllocation.objects.exists()

    def test_port_is_taken_as_named(self, ports: PortManager) -> None:
        assert run("allocate", "shop", "api", "--port", "20510")[0] == "20510\n"

    def test_everything_that_is_said_is_kept(self, ports: PortManager) -> None:
        run(
            *("allocate", "shop", "api", "--type", "web", "--description", "The shop", "--host", "Web-1"),
            *("--protocol", "udp", "--cloudflare-hostname", "shop.example.com"),
        )
        kept = PortAllocation.objects.get()
        assert (kept.service_type, kept.description, kept.hostname, kept.protocol, kept.cloudflare_hostname) == (
            *("web", "The shop", "web-1", "udp", "shop.example.com"),
        )

    def test_json_is_the_whole_allocation(self, ports: PortManager) -> None:
        shown = json.loads(run("allocate", "shop", "api", "--json")[0])
        assert (shown["project"], shown["service"], shown["port"]) == ("shop", "api", 20500)

    def test_an_unregistered_listener_is_passed_by(self, ports: PortManager, listener: socket.socket) -> None:
        assert run("allocate", "shop", "api", "--count", "2")[0] == "20500\n20502\n"

    def test_adopt_registers_what_listens(self, ports: PortManager, listener: socket.socket) -> None:
        refused = run("allocate", "shop", "api", "--port", "20501")
        assert refused[2] == 1
        assert "adopt" in refused[1]
        assert run("allocate", "shop", "api", "--port", "20501", "--adopt")[0] == "20501\n"

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (("shpo", "api"), "Did you mean shop?"),
            (("shop", "Api"), "is not a name"),
            (("shop", "api", "--port", "70000"), "ports are 1 to 65535"),
            (("shop", "api", "--port", "３０００"), "not a whole number"),
            (("shop", "api", "--port", "1_000"), "not a whole number"),
            (("shop", "api", "--port", "99"), "lies outside the ranges of shop"),
            (("shop", "api", "--count", "0"), "from 1 to 500"),
            (("shop", "api", "--count", "2", "--port", "20500"), "exclude each other"),
            (("shop", "api", "--adopt"), "--adopt needs --port"),
            (("shop", "api", "--range", "nowhere"), "There is no range nowhere"),
            (("shop", "api", "--host", "127.1"), "is not a host"),
            (("shop", "api", "--cloudflare-hostname", "a b"), "is not a public name"),
        ],
    )
    def test_a_refusal_is_one_line_and_status_1(self, ports: PortManager, words: tuple[str, ...], said: str) -> None:
        out, err, status = run("allocate", *words)
        assert (out, status) == ("", 1)
        assert said in err
        assert "\n" not in err.strip()

    def test_the_history_names_the_unix_user(self, ports: PortManager) -> None:
        run("allocate", "shop", "api")
        event = Event.objects.first()
        assert event is not None
        assert event.actor.startswith("cli:")
        assert (event.source, event.verb) == ("shell", "allocated")


class TestReserve:
    def test_it_reserves_one(self, ports: PortManager) -> None:
        out, _, status = run("reserve", "shop", "20505", "--note", "phase 2")
        assert (out, status) == ("Reserved 20505 for shop.\n", 0)
        assert PortAllocation.objects.get().description == "phase 2"

    def test_it_reserves_a_block_that_expires(self, ports: PortManager) -> None:
        out, _, status = run("reserve", "shop", "20505-20507", "--expires", "7d")
        assert status == 0
        assert out.startswith("Reserved 20505-20507 for shop until ")
        assert PortAllocation.objects.filter(expires_at__isnull=False).count() == 3

    def test_a_block_is_all_or_none(self, ports: PortManager) -> None:
        run("allocate", "shop", "api", "--port", "20507")
        _, err, status = run("reserve", "shop", "20505-20508")
        assert status == 1
        assert "held by shop/api" in err
        assert PortAllocation.objects.count() == 1

    @pytest.mark.parametrize("expires", ["yesterday", "2020-01-01", "9999-01-01", "0d"])
    def test_nonsense_expiry(self, ports: PortManager, expires: str) -> None:
        assert run("reserve", "shop", "20505", "--expires", expires)[2] == 1


class TestRelease:
    def test_it_works(self, ports: PortManager) -> None:
        ports.allocate("shop", "api")
        assert run("release", "shop", "api") == ("Released 20500/tcp of shop/api.\n", "", 0)

    def test_several_need_a_word(self, ports: PortManager) -> None:
        ports.allocate_copies("shop", "api", 3)
        _, err, status = run("release", "shop", "api")
        assert status == 1
        assert "instance 2: 20502/tcp" in err
        assert run("release", "shop", "api", "--instance", "1")[0] == "Released 20501/tcp of shop/api#1.\n"
        assert run("release", "shop", "api", "--all")[0].count("Released") == 2

    def test_a_reservation(self, ports: PortManager) -> None:
        ports.reserve_block("shop", 20505, 20506)
        assert run("release", "shop", "--reservation", "20505-20506")[0].count("Released") == 2

    def test_nothing_held(self, ports: PortManager) -> None:
        ports.allocate("shop", "api")
        _, err, status = run("release", "shop", "apo")
        assert status == 1
        assert "Did you mean api?" in err

    def test_neither_service_nor_reservation(self, ports: PortManager) -> None:
        assert run("release", "shop")[2] == 1


class TestListPorts:
    def test_a_pipe_gets_plain_columns(self, ports: PortManager) -> None:
        ports.allocate("shop", "api", service_type="web")
        out = run("list_ports")[0].splitlines()
        assert out[0].split() == [
            *("Port", "Protocol", "Host", "Project", "Service", "Instance", "Status", "Health", "Type", "Description")
        ]
        assert out[1].split() == ["20500", "tcp", "localhost", "shop", "api", "0", "allocated", "web"]

    def test_json(self, ports: PortManager) -> None:
        ports.allocate("shop", "api")
        assert [a["port"] for a in json.loads(run("list_ports", "--format", "json")[0])] == [20500]

    def test_csv_is_harmless_in_a_spreadsheet(self, ports: PortManager) -> None:
        ports.allocate("shop", "api", description="=1+1")
        assert run("list_ports", "--format", "csv")[0].splitlines()[1].endswith(",'=1+1")

    def test_filters(self, ports: PortManager) -> None:
        ports.allocate("shop", "api")
        ports.allocate("shop", "db", hostname="db-1")
        ports.release("shop", "api")
        assert "api" not in run("list_ports", "--project", "shop")[0]
        assert "api" in run("list_ports", "--status", "released")[0]
        assert "db" in run("list_ports", "--host", "db-1")[0]
        assert run("list_ports", "--search", "20501")[1] != ""

    def test_nothing_says_what_to_do(self, ports: PortManager) -> None:
        out, err, status = run("list_ports")
        assert (out, status) == ("", 0)
        assert "manage.py allocate" in err


class TestPortSummary:
    def test_all_projects(self, ports: PortManager) -> None:
        ports.allocate_copies("shop", "api", 5)
        assert "shop     20500-20519          5         0         15   25%  ██░" in run("port_summary")[0]

    def test_one_project_as_json(self, ports: PortManager) -> None:
        ports.reserve("shop", 20505)
        ports.allocate("shop", "api")
        assert json.loads(run("port_summary", "shop", "--json")[0]) == {
            "success": True,
            "summary": {
                "rangeStart": 20500,
                "rangeEnd": 20519,
                "totalPorts": 20,
                "allocatedPorts": 1,
                "reservedPorts": 1,
                "availablePorts": 18,
                "utilizationPercent": 10,
            },
        }

    def test_unknown_project(self) -> None:
        assert run("port_summary", "nope")[2] == 1


class TestAddProject:
    def test_it_finds_the_next_free_block(self) -> None:
        assert run("add_project", "one")[0] == "one owns 3000-3099.\n"
        assert run("add_project", "two", "--size", "50")[0] == "two owns 3100-3149.\n"
        assert run("add_project", "three")[0] == "three owns 3200-3299.\n"

    def test_start_and_shared(self) -> None:
        assert run("add_project", "one", "--start", "9000", "--size", "10", "--shared")[0] == "one owns 9000-9009.\n"
        assert Project.objects.get().ranges.get().is_shared

    def test_overlap_is_told_in_words(self, ports: PortManager) -> None:
        _, err, status = run("add_project", "one", "--start", "20519")
        assert status == 1
        assert "overlaps shop (20500-20519) of shop in 20519-20519" in err


class TestAudit:
    def test_healthy(self, ports: PortManager, listener: socket.socket) -> None:
        ports.adopt("shop", "api", port=20501)
        out, _, status = run("audit")
        assert status == 0
        assert out.startswith("1 allocated, 1 in use, 0 not running")

    def test_quiet_says_nothing_when_all_is_well(self, ports: PortManager, listener: socket.socket) -> None:
        ports.adopt("shop", "api", port=20501)
        assert run("audit", "--quiet") == ("", "", 0)

    def test_conflicts_are_status_1(self, ports: PortManager) -> None:
        ports.allocate("shop", "api")
        out, _, status = run("audit", "--quiet")
        assert status == 1
        assert "shop/api" in out
        assert "not running" in out

    def test_unallocated_listeners_are_told(self, ports: PortManager, listener: socket.socket) -> None:
        assert "20501/tcp in shop: python" in run("audit")[0]

    def test_a_host_that_holds_nothing_could_not_be_audited(self, ports: PortManager) -> None:
        ports.allocate("shop", "api")
        out, err, status = run("audit", "--host", "loclhost")
        assert (out, status) == ("", 2)
        assert "Nothing is allocated on loclhost, so nothing was audited. Did you mean localhost?" in err
        assert run("audit", "--host", "localhost")[2] == 1

    def test_json_is_the_payload(self, ports: PortManager, listener: socket.socket) -> None:
        ports.adopt("shop", "api", port=20501)
        ports.allocate("shop", "web")
        out, _, status = run("audit", "--json")
        assert status == 1
        assert json.loads(out) == {
            "success": True,
            "summary": {"allocated": 2, "inUse": 1, "notRunning": 1, "healthPercentage": 50},
            "conflicts": [{"port": 20500, "expected": "shop/web", "actual": "not running"}],
            "unallocated": [],
        }

    def test_it_is_recorded_unless_told_otherwise(self, ports: PortManager) -> None:
        ports.allocate("shop", "api")
        run("audit", "--no-record")
        assert not PortHealthCheck.objects.exists()
        run("audit")
        assert PortHealthCheck.objects.get().status == "down"

    def test_an_unknown_project_could_not_be_audited(self) -> None:
        out, err, status = run("audit", "--project", "nope", "--json")
        assert status == 2
        assert json.loads(out)["code"] == "unknown_project"
        assert "nope" in err

    def test_a_service_that_listens_elsewhere_is_told(self, ports: PortManager, listener: socket.socket) -> None:
        ports.allocate("shop", "api", metadata={"importedFrom": 20501})
        out = run("audit")[0]
        assert "shop/api  not running  listens on 20501" in out
        assert "shop/api was given 20500/tcp and listens on 20501." in out

    def test_restart_starts_what_is_down(self, ports: PortManager, home: Path) -> None:
        ports.allocate("shop", "api")
        started = home / "started"
        serve = f"import pathlib, socket, time; pathlib.Path({str(started)!r}).touch()"
        (home / "restart.toml").write_text(f"[services]\n'shop/api' = ['{sys.executable}', '-c', \"{serve}\"]\n")
        (home / "restart.toml").chmod(0o600)
        _, err, status = run("audit", "--restart")
        assert started.exists()
        assert "shop/api: restarted" in err
        assert status == 1  # the program ended again: the second look says so

    def test_restart_refuses_a_file_that_others_may_write(self, ports: PortManager, home: Path) -> None:
        ports.allocate("shop", "api")
        (home / "restart.toml").write_text("[services]\n")
        (home / "restart.toml").chmod(0o666)
        _, err, status = run("audit", "--restart")
        assert status == 2
        assert "can be changed by others" in err


class TestExplain:
    def test_who_holds_it(self, ports: PortManager) -> None:
        ports.allocate("shop", "api")
        out, _, status = run("explain", "20500")
        assert status == 0
        assert "is held by shop/api; nothing was seen listening there." in out

    def test_what_listens_there(self, ports: PortManager, listener: socket.socket) -> None:
        assert "no service holds it; python" in run("explain", "20501")[0]

    def test_json(self, ports: PortManager) -> None:
        shown = json.loads(run("explain", "20500", "--json")[0])
        assert (shown["project"], shown["allocation"], shown["listener"]) == ("shop", None, None)

    def test_nonsense(self) -> None:
        assert run("explain", "70000")[2] == 1


class TestPrune:
    def test_it_keeps_what_is_young(self, ports: PortManager) -> None:
        ports.allocate("shop", "api")
        run("audit")
        assert run("prune")[0] == "Deleted 0 checks.\n"

    def test_it_deletes_what_is_old(self, ports: PortManager) -> None:
        ports.allocate("shop", "api")
        run("audit")
        PortHealthCheck.objects.update(checked_at="2020-01-01T00:00Z")
        assert run("prune", "--checks", "30d")[0] == "Deleted 1 check.\n"

    def test_quiet_says_nothing(self, ports: PortManager) -> None:
        assert run("prune", "--quiet") == ("", "", 0)

    @pytest.mark.parametrize("age", ["", "30", "-1d", "0d", "soon"])
    def test_nonsense_deletes_nothing(self, ports: PortManager, age: str) -> None:
        assert run("prune", "--checks", age)[2] == 1


def test_a_usage_error_is_status_2_and_prints_nothing() -> None:
    """Only the parser knows these, so the real command is run; it never reaches a database."""
    for words in (["allocate"], ["allocate", "a", "b", "--nope"], ["list_ports", "--format", "xml"]):
        done = subprocess.run(
            [sys.executable, "manage.py", *words], capture_output=True, text=True, cwd=settings.BASE_DIR
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert "usage:" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("words", "status"), [(["list_ports"], 1), (["allocate", "a", "b"], 1), (["audit"], 2)])
def test_where_no_portal_is_a_command_makes_none(checkout: Path, words: list[str], status: int) -> None:
    """A shell or cron that looks in the wrong place would be given a new, empty registry."""
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


def test_without_its_packages_manage_py_says_what_installs_them(checkout: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-S", "manage.py", "list_ports"], capture_output=True, text=True, cwd=checkout
    )
    assert (done.returncode, done.stderr) == (1, "Portal is not installed here yet: `make up` does that.\n")


def test_work_in_a_pipe_prints_nothing_of_its_progress() -> None:
    """Cron sends a mail for an empty line."""
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


def test_a_database_that_is_gone_is_one_line() -> None:
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
        given = {"PATH": "/usr/bin:/bin", "PORTAL_HOME": str(home), "PORTAL_PORT": str(FIRST_UNUSED), **variables}
        return subprocess.run(
            [sys.executable, "manage.py", "up"], capture_output=True, text=True, cwd=settings.BASE_DIR, env=given
        )

    def test_an_address_of_another_machine_is_told_before_anything_is_set_up(self, tmp_path: Path) -> None:
        for host in ("bogus.invalid", "192.0.2.1"):
            done = self.up(tmp_path / "home", PORTAL_HOST=host)
            assert (done.returncode, done.stdout) == (1, "")
            assert f"Portal cannot serve on {host}:{FIRST_UNUSED} (" in done.stderr
            assert "set PORTAL_HOST to an address of this machine" in done.stderr
        assert not Server(tmp_path / "home").data.exists()

    @pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user runs the database as himself")
    def test_a_home_that_the_database_cannot_enter_is_told(self, tmp_path: Path) -> None:
        """Root's own home directory, for one: waiting and trying again, as for a database that is busy, is no use."""
        (tmp_path / "closed").mkdir(mode=0o700)
        done = self.up(tmp_path / "closed" / "home")
        assert done.returncode == 1
        assert "the account nobody" in done.stderr
        assert "such as /var/lib/portal" in done.stderr
        assert "try again" not in done.stderr


@pytest.mark.django_db(transaction=True)
def test_of_two_that_set_up_at_once_one_waits() -> None:
    order: list[str] = []
    entered = threading.Event()

    def second() -> None:
        entered.wait(10)
        with setting_up():
            order.append("second")

    other = threading.Thread(target=second)
    other.start()
    with setting_up():
        entered.set()
        other.join(0.5)
        assert other.is_alive()
        order.append("first")
    other.join(10)
    assert order == ["first", "second"]
