"""Importing existing services: the operation and its command."""

import json
import socket
import sys
from pathlib import Path

import pytest
from django.conf import settings

from allocations.importers import parse, scan
from allocations.listeners import listening
from allocations.models import Event, PortAllocation
from allocations.ports import PortManager, allocations, projects
from allocations.ports.imports import ImportReport, import_rows
from allocations.ports.seed import seed
from tests import make
from tests.commands import run
from tests.make import FIRST

pytestmark = pytest.mark.django_db
DATA = settings.BASE_DIR / "tests" / "data" / "import"


@pytest.fixture
def seeded(db: None) -> PortManager:
    """Create the projects and ranges that a new Portal has, and return a manager that may do everything."""
    manager = make.manager()
    seed(manager.context)
    return manager


def imported(seeded: PortManager, rows: list[dict[str, object]], **how: object) -> ImportReport:
    text = ",\n".join(map(json.dumps, rows))  # one row per line
    return import_rows(seeded.context, parse(f"[{text}]".encode(), "json"), **how)  # type: ignore[arg-type]


def held() -> set[tuple[str, int]]:
    rows = PortAllocation.objects.held().exclude(project__name="meta-supervisor")
    return {(a.label, a.port_number) for a in rows.select_related("project")}


class TestRules:
    def test_a_free_port_in_a_range_of_the_project_is_kept(self, seeded: PortManager) -> None:
        report = imported(seeded, [{"project": "consilio", "service": "api", "port": 3150}])
        assert [i.allocation.port_number for i in report.imported] == [3150]
        assert held() == {("consilio/api", 3150)}

    def test_a_service_outside_the_ranges_is_moved(self, seeded: PortManager) -> None:
        report = imported(seeded, [{"project": "consilio", "service": "api", "port": 8080}])
        assert [(i.old, i.allocation.port_number) for i in report.moved] == [(8080, 3100)]

    def test_a_service_on_a_held_port_is_moved(self, seeded: PortManager) -> None:
        seeded.allocate("consilio", "web", port_number=3150)
        report = imported(seeded, [{"project": "consilio", "service": "api", "port": 3150}])
        assert [(i.old, i.allocation.port_number) for i in report.moved] == [(3150, 3100)]

    def test_the_range_determines_a_missing_project(self, seeded: PortManager) -> None:
        assert imported(seeded, [{"service": "api", "port": 3250}]).imported[0].allocation.label == "openhorizon/api"

    def test_the_default_project_is_used_outside_the_ranges(self, seeded: PortManager) -> None:
        assert (
            imported(seeded, [{"service": "api", "port": 8080}], project="odin").moved[0].allocation.label == "odin/api"
        )

    def test_a_row_without_a_project_is_left_out(self, seeded: PortManager) -> None:
        report = imported(seeded, [{"service": "a", "port": 3100}, {"service": "api", "port": 8080}])
        assert [(s.line, s.reason.split(":")[0]) for s in report.left_out] == [
            (2, "port 8080 lies in no range and no project is named")
        ]

    def test_an_unknown_project_is_left_out(self, seeded: PortManager) -> None:
        report = imported(seeded, [{"project": "consilo", "service": "api", "port": 3100}])
        assert "Did you mean consilio?" in report.left_out[0].reason

    def test_an_unknown_compose_project_is_ignored(self, seeded: PortManager) -> None:
        report = import_rows(seeded.context, parse(b"name: shop\nservices: {web: {ports: ['3105:80']}}", "compose"))
        assert report.imported[0].allocation.label == "consilio/web"

    def test_an_invalid_name_is_left_out(self, seeded: PortManager) -> None:
        report = imported(seeded, [{"project": "consilio", "service": "=cmd|'/c calc'!A1", "port": 3100}])
        assert "is not valid" in report.left_out[0].reason
        assert held() == set()

    def test_two_services_on_one_port_are_both_left_out(self, seeded: PortManager) -> None:
        report = imported(seeded, [{"service": "a", "port": 3100}, {"service": "b", "port": 3100}])
        assert [s.line for s in report.left_out] == [1, 2]
        assert "line 1 (a) and line 2 (b)" in report.left_out[0].reason
        assert held() == set()

    @pytest.mark.parametrize("port", [3100, 8080])
    def test_a_repeated_row_is_imported_once(self, seeded: PortManager, port: int) -> None:
        report = imported(seeded, [{"project": "consilio", "service": "a", "port": port}] * 2)
        assert [i.line for i in report.imported + report.moved] == [1]
        assert [i.line for i in report.already] == [2]
        assert held() == {("consilio/a", 3100)}

    def test_a_service_without_a_port_gets_one(self, seeded: PortManager) -> None:
        assert imported(seeded, [{"project": "odin", "service": "a"}]).imported[0].allocation.port_number == 3300

    def test_a_moved_service_does_not_get_the_port_of_another_row(self, seeded: PortManager) -> None:
        report = imported(
            seeded, [{"project": "consilio", "service": "a", "port": 8080}, {"service": "b", "port": 3100}]
        )
        assert [i.allocation.port_number for i in report.imported] == [3100]
        assert [i.allocation.port_number for i in report.moved] == [3101]

    def test_a_taken_cloudflare_hostname_is_left_out(self, seeded: PortManager) -> None:
        seeded.allocate("odin", "x", cloudflare_hostname="a.example.com")
        report = imported(seeded, [{"project": "consilio", "service": "a", "cloudflareHostname": "a.example.com"}])
        assert "points at odin/x" in report.left_out[0].reason


@pytest.mark.parametrize("name", sorted(f.name for f in DATA.iterdir()))
def test_a_second_run_changes_nothing(seeded: PortManager, name: str) -> None:
    reading = parse((DATA / name).read_bytes())
    first = import_rows(seeded.context, reading, project="consilio")
    before, events = held(), Event.objects.count()
    second = import_rows(seeded.context, parse((DATA / name).read_bytes()), project="consilio")
    assert (held(), Event.objects.count()) == (before, events)
    assert not second.imported
    assert not second.moved
    assert len(second.already) == len(first.imported) + len(first.moved)
    assert first.imported


def test_dry_run_reports_the_same_and_writes_nothing(seeded: PortManager) -> None:
    reading = parse((DATA / "lsof.txt").read_bytes())
    dry = import_rows(seeded.context, reading, project="consilio", dry_run=True)
    assert held() == set()
    real = import_rows(seeded.context, reading, project="consilio")
    assert [i.allocation.address for i in dry.moved] == [i.allocation.address for i in real.moved]
    assert [i.allocation.address for i in dry.imported] == [i.allocation.address for i in real.imported]


LISTENS_ON_9001 = b'tcp LISTEN 0 5 127.0.0.1:9001 0.0.0.0:* users:(("python3",pid=13875,fd=3))'


class TestHeldPortsOfSharedRanges:
    @pytest.fixture
    def sh(self, seeded: PortManager) -> PortAllocation:
        return seeded.allocate("consilio", "sh", range_name="shared-services", port_number=9001)

    def test_a_listener_is_the_service_that_holds_its_port(self, seeded: PortManager, sh: PortAllocation) -> None:
        report = import_rows(seeded.context, parse(LISTENS_ON_9001, "ss"))
        assert [(i.allocation.pk, i.old) for i in report.already] == [(sh.pk, None)]
        assert held() == {("consilio/sh", 9001)}

    def test_a_service_of_the_same_name_is_already_there(self, seeded: PortManager, sh: PortAllocation) -> None:
        report = imported(seeded, [{"service": "sh", "port": 9001}])
        assert [i.allocation.pk for i in report.already] == [sh.pk]

    def test_another_service_is_moved_within_the_range(self, seeded: PortManager, sh: PortAllocation) -> None:
        report = imported(seeded, [{"service": "api2", "port": 9001}])
        assert [(i.old, i.allocation.label) for i in report.moved] == [(9001, "shared-services/api2")]
        again = imported(seeded, [{"service": "api2", "port": 9001}])
        assert [(i.old, i.allocation.label) for i in again.already] == [(9001, "shared-services/api2")]

    def test_a_service_of_another_project_is_moved(self, seeded: PortManager, sh: PortAllocation) -> None:
        report = imported(seeded, [{"project": "odin", "service": "sh", "port": 9001}])
        assert [(i.old, i.allocation.address) for i in report.moved] == [(9001, "3300/tcp")]

    def test_a_process_of_another_project_is_moved(self, seeded: PortManager, sh: PortAllocation) -> None:
        report = imported(seeded, [{"project": "odin", "port": 9001}])
        assert [(i.old, i.allocation.label) for i in report.moved] == [(9001, "odin/port-9001")]

    def test_the_port_of_a_request_is_left_out(self, seeded: PortManager) -> None:
        projects.update(seeded.context, "consilio", mode="ask")
        PortManager(actor="agent", source="mcp").allocate("consilio", "sh", port_number=3150)
        for rows in ([{"project": "consilio", "service": "sh", "port": 3150}], [{"port": 3150}]):
            assert "nobody has decided yet" in imported(seeded, rows).left_out[0].reason


class TestReservations:
    def test_a_reservation_of_another_project_is_kept(self, seeded: PortManager) -> None:
        seeded.reserve("consilio", 9100)
        report = imported(seeded, [{"project": "odin", "service": "zz", "port": 9100}])
        assert [(i.old, i.allocation.address) for i in report.moved] == [(9100, "3300/tcp")]
        assert held() == {("consilio/(reserved)", 9100), ("odin/zz", 3300)}

    def test_a_row_without_a_project_does_not_use_a_reservation(self, seeded: PortManager) -> None:
        seeded.reserve("consilio", 9001)
        report = import_rows(seeded.context, parse(LISTENS_ON_9001, "ss"))
        assert [(i.old, i.allocation.label) for i in report.moved] == [(9001, "shared-services/python3-9001")]

    def test_a_reservation_of_the_same_project_is_used(self, seeded: PortManager) -> None:
        seeded.reserve("consilio", 9100)
        report = imported(seeded, [{"project": "consilio", "service": "zz", "port": 9100}])
        assert [i.allocation.port_number for i in report.imported] == [9100]
        assert held() == {("consilio/zz", 9100)}


HARMFUL = ["\x1b[31mred\x1b[2J", "right\u202eleft", "sur\ud800", "\x9b2J"]


class TestUnprintableText:
    @pytest.mark.parametrize("name", HARMFUL)
    @pytest.mark.parametrize("options", [(), ("--json",)])
    def test_output_is_printable(
        self, seeded: PortManager, tmp_path: Path, name: str, options: tuple[str, ...]
    ) -> None:
        rows = [{"project": "consilio", "service": "ok", "port": 3195}]
        rows += [{"project": "consilio", "service": name, "port": 3190}]
        rows += [{"project": "consilio", "service": name + end, "port": 3191} for end in "ab"]
        (tmp_path / "list.json").write_text(json.dumps(rows))
        out, _, status = run("import_ports", str(tmp_path / "list.json"), "--format", "json", *options)
        assert status == 2
        assert "is not valid" in out
        assert "all claim 3191/tcp" in out
        assert out.replace("\n", "").isprintable()

    def test_json_output_is_printable_and_complete(self, seeded: PortManager, tmp_path: Path) -> None:
        description = "c1 \x9b2J, left\u202eright, tag \U000e0041, straße 漢"
        (tmp_path / "list.json").write_text(json.dumps([{"service": "a", "port": 3100, "description": description}]))
        out = run("import_ports", str(tmp_path / "list.json"), "--json")[0]
        assert out.replace("\n", "").isprintable()
        assert "straße 漢" in out
        assert json.loads(out)["imported"][0]["description"] == description

    def test_errors_of_unreadable_input_are_printable(self, tmp_path: Path) -> None:
        (tmp_path / "list.yaml").write_text("- *left\u202eright\n")
        err = run("import_ports", str(tmp_path / "list.yaml"), "--format", "yaml")[1]
        assert "not YAML" in err
        assert err.strip().isprintable()

    def test_the_reason_stays_short_when_many_rows_claim_a_port(self, seeded: PortManager) -> None:
        report = imported(seeded, [{"service": f"{n}{'x' * 300}", "port": 3100} for n in range(500)])
        assert len(report.left_out) == 500
        assert len(report.left_out[0].reason) < 2000
        assert report.left_out[0].reason.endswith("and 490 more all claim 3100/tcp")


class TestCommand:
    def test_a_complete_import_is_status_0(self, seeded: PortManager) -> None:
        out, _, status = run("import_ports", str(DATA / "lsof.txt"), "--project", "consilio")
        assert status == 0
        assert "lsof: 4 imported, 2 moved, 0 already there, 0 left out." in out
        out, _, status = run("import_ports", str(DATA / "lsof.txt"), "--project", "consilio")
        assert status == 0
        assert "lsof: 0 imported, 0 moved, 6 already there, 0 left out." in out

    def test_a_second_run_lists_the_moves_again(self, seeded: PortManager) -> None:
        """A person who lost the list can print it again, until every service listens on its new port."""
        moves = [run("import_ports", str(DATA / "services.json"))[0] for _ in range(2)]
        for out in moves:
            assert "8080  →  3100  tcp       consilio/legacy" in out
        assert "0 moved" in moves[1]

    def test_a_repeated_move_is_listed_once(self, seeded: PortManager, tmp_path: Path) -> None:
        (tmp_path / "list.csv").write_text("project,service,port\n" + "consilio,a,8080\n" * 2)
        for counts in ("0 imported, 1 moved, 1 already there, 0 left out", "0 imported, 0 moved, 2 already there"):
            out = run("import_ports", str(tmp_path / "list.csv"))[0]
            assert out.count("8080  →  3100") == 1
            assert counts in out

    def test_ignored_lines_are_counted(self, seeded: PortManager) -> None:
        lines = run("import_ports", str(DATA / "ss_header.txt"))[1]
        assert "1 line is ignored: headings and connections, not listeners." in lines

    def test_an_incomplete_import_is_status_2(self, seeded: PortManager) -> None:
        out, _, status = run("import_ports", str(DATA / "lsof.txt"))
        assert status == 2
        assert "port 8080 lies in no range" in out

    def test_unreadable_input_is_status_1(self, seeded: PortManager, tmp_path: Path) -> None:
        (tmp_path / "empty").touch()
        out, err, status = run("import_ports", str(tmp_path / "empty"))
        assert (out, status) == ("", 1)
        assert "the input is empty" in err
        assert run("import_ports", "/dev/zero")[2] == 1

    def test_a_list_without_valid_rows_is_status_1_with_reasons(self, seeded: PortManager, tmp_path: Path) -> None:
        (tmp_path / "list").write_text("project,service,port\nconsilio,api\nconsilio,web,3100,x\n")
        out, _, status = run("import_ports", str(tmp_path / "list"))
        assert status == 1
        assert "2  2 columns instead of 3" in out
        assert "csv: 0 imported, 0 moved, 0 already there, 2 left out." in out
        (tmp_path / "list").write_text('[{"project": "consilio", "service": "api", "port": "3180"},\n]')
        out, err, status = run("import_ports", str(tmp_path / "list"))
        assert (out, status) == ("", 1)
        assert "at line " in err
        assert held() == set()

    def test_the_moves_are_listed(self, seeded: PortManager) -> None:
        out = run("import_ports", str(DATA / "services.json"))[0]
        assert "8080  →  3100  tcp       consilio/legacy" in out

    def test_dry_run_imports_nothing(self, seeded: PortManager) -> None:
        assert "3 would be imported" in run("import_ports", str(DATA / "lsof_piped.txt"), "--dry-run")[0]
        assert held() == set()

    def test_json_lists_the_moves(self, seeded: PortManager) -> None:
        result = json.loads(run("import_ports", str(DATA / "services.json"), "--json")[0])
        assert [(m["old"], m["port"]) for m in result["moved"]] == [(8080, 3100)]

    def test_dash_reads_standard_input(self, seeded: PortManager, monkeypatch: pytest.MonkeyPatch) -> None:
        with (DATA / "ss.txt").open() as file:
            monkeypatch.setattr(sys, "stdin", file)
            assert "ss: 4 imported" in run("import_ports", "-")[0]

    @pytest.mark.usefixtures("ports", "listener")
    def test_scan_imports_the_listeners_of_this_host(self) -> None:
        run("import_ports", "--scan")
        assert any(label.startswith("shop/") and port == FIRST + 1 for label, port in held())

    def test_rows_left_out_of_a_file_have_a_line_number(self, seeded: PortManager) -> None:
        out = run("import_ports", str(DATA / "compose.yaml"))[0]
        assert "Line  Reason" in out
        assert "  16  the port is a variable without a default" in out
        left_out = json.loads(run("import_ports", str(DATA / "compose.yaml"), "--json")[0])["leftOut"]
        assert {row["line"] for row in left_out} == {16, 17}

    @pytest.mark.usefixtures("ports", "listener")
    def test_rows_left_out_of_a_scan_have_no_line_number(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            out = run("import_ports", "--scan")[0]
            result = json.loads(run("import_ports", "--scan", "--json")[0])
            assert f"port {server.getsockname()[1]} lies in no range" in out
        assert "Line" not in out
        assert {row["line"] for row in result["leftOut"] + result["already"]} == {None}

    def test_many_rows_that_are_alike_are_one_line(self, seeded: PortManager, tmp_path: Path) -> None:
        rows = "".join(f"service{port},{port}\n" for port in range(40000, 40020))
        file = tmp_path / "list.csv"
        file.write_text(f"service,port\n{rows}consilio-api,3150\n")
        out = run("import_ports", str(file), "--dry-run")[0]
        assert "20 rows (--verbose lists them)" in out
        assert out.count("lies in no range") == 1
        assert "Would be imported" in out
        out = run("import_ports", str(file), "--verbose")[0]
        assert out.count("lies in no range") == 20
        assert out.startswith("Imported")

    def test_a_scan_leaves_what_is_registered(self, seeded: PortManager) -> None:
        """Also if it would give the service another name."""
        with socket.create_server(("127.0.0.1", 3150)):
            allocations.adopt(seeded.context, "consilio", "my-name", port_number=3150)
            report = import_rows(seeded.context, scan(listening(3150, 3150)))
        assert [i.allocation.label for i in report.already] == ["consilio/my-name"]
        assert not report.moved

    def test_requires_a_file_or_scan(self) -> None:
        assert run("import_ports")[2] == 1

    def test_an_unknown_project_is_status_1(self, seeded: PortManager) -> None:
        assert run("import_ports", str(DATA / "lsof.txt"), "--project", "nope")[2] == 1


class TestLongInputs:
    """Long inputs are imported in batches, so that an interruption loses only the last one."""

    @pytest.fixture
    def rows(self, monkeypatch: pytest.MonkeyPatch) -> str:
        monkeypatch.setattr("allocations.ports.imports.BATCH", 3)
        monkeypatch.setattr("allocations.management.commands.import_ports.BATCH", 3)
        return "project,service\n" + "".join(f"odin,s{i}\n" for i in range(8))

    @pytest.mark.django_db(transaction=True)
    def test_batches_that_are_done_stay_and_the_next_run_goes_on(self, rows: str) -> None:
        manager = make.manager()
        seed(manager.context)

        def interrupt(done: int) -> None:
            if done == 5:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            import_rows(manager.context, parse(rows.encode()), progress=interrupt)
        assert {label for label, _ in held()} == {"odin/s0", "odin/s1", "odin/s2"}
        again = import_rows(manager.context, parse(rows.encode()))
        assert (len(again.imported), len(again.already), len(again.left_out)) == (5, 3, 0)
        assert len(held()) == 8

    def test_progress_counts_rows(self, seeded: PortManager, rows: str) -> None:
        for dry_run in (True, False):
            steps: list[int] = []
            import_rows(seeded.context, parse(rows.encode()), dry_run=dry_run, progress=steps.append)
            assert steps == list(range(1, 9))

    def test_a_dry_run_reports_what_the_import_does(self, seeded: PortManager, rows: str) -> None:
        dry = import_rows(seeded.context, parse(rows.encode()), dry_run=True)
        assert held() == set()
        real = import_rows(seeded.context, parse(rows.encode()))
        ports = [[i.allocation.port_number for i in report.imported] for report in (dry, real)]
        assert ports[0] == ports[1]
        assert len(set(ports[0])) == 8
