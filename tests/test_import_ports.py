"""Taking over existing services: the operation and its command."""

import json
import socket
import sys
from pathlib import Path

import pytest

from allocations.importers import read
from allocations.models import Event, PortAllocation
from allocations.ports import ImportReport, PortManager
from tests.test_commands import run

pytestmark = pytest.mark.django_db
DATA = Path(__file__).parent / "data" / "import"


@pytest.fixture
def ports() -> PortManager:
    manager = PortManager(actor="test")
    manager.seed()
    return manager


def imported(ports: PortManager, rows: list[dict[str, object]], **how: object) -> ImportReport:
    text = ",\n".join(map(json.dumps, rows))  # one row a line
    return ports.import_rows(read(f"[{text}]".encode(), "json"), **how)  # type: ignore[arg-type]


def held() -> set[tuple[str, int]]:
    rows = PortAllocation.objects.held().exclude(project__name="meta-supervisor")
    return {(a.label, a.port_number) for a in rows.select_related("project")}


class TestRules:
    def test_a_free_port_of_its_range_is_taken_over(self, ports: PortManager) -> None:
        report = imported(ports, [{"project": "consilio", "service": "api", "port": 3150}])
        assert [i.allocation.port_number for i in report.imported] == [3150]
        assert held() == {("consilio/api", 3150)}

    def test_a_port_elsewhere_is_moved(self, ports: PortManager) -> None:
        report = imported(ports, [{"project": "consilio", "service": "api", "port": 8080}])
        assert [(i.old, i.allocation.port_number) for i in report.moved] == [(8080, 3100)]

    def test_a_port_that_another_service_holds_is_moved(self, ports: PortManager) -> None:
        ports.allocate("consilio", "web", port=3150)
        report = imported(ports, [{"project": "consilio", "service": "api", "port": 3150}])
        assert [(i.old, i.allocation.port_number) for i in report.moved] == [(3150, 3100)]

    def test_without_a_project_the_range_decides(self, ports: PortManager) -> None:
        assert imported(ports, [{"service": "api", "port": 3250}]).imported[0].allocation.label == "openhorizon/api"

    def test_failing_that_the_named_project(self, ports: PortManager) -> None:
        assert (
            imported(ports, [{"service": "api", "port": 8080}], project="odin").moved[0].allocation.label == "odin/api"
        )

    def test_failing_that_it_is_left_out_with_line_and_reason(self, ports: PortManager) -> None:
        report = imported(ports, [{"service": "a", "port": 3100}, {"service": "api", "port": 8080}])
        assert [(s.line, s.reason.split(":")[0]) for s in report.left_out] == [
            (2, "port 8080 lies in no range and no project is named")
        ]

    def test_an_unknown_project_is_left_out(self, ports: PortManager) -> None:
        report = imported(ports, [{"project": "consilo", "service": "api", "port": 3100}])
        assert "Did you mean consilio?" in report.left_out[0].reason

    def test_an_unknown_project_of_compose_is_only_a_hint(self, ports: PortManager) -> None:
        report = ports.import_rows(read(b"name: shop\nservices: {web: {ports: ['3105:80']}}", "compose"))
        assert report.imported[0].allocation.label == "consilio/web"

    def test_a_name_that_is_none_is_left_out(self, ports: PortManager) -> None:
        report = imported(ports, [{"project": "consilio", "service": "=cmd|'/c calc'!A1", "port": 3100}])
        assert "is not a name" in report.left_out[0].reason
        assert held() == set()

    def test_two_services_on_one_port_are_both_named_and_none_applied(self, ports: PortManager) -> None:
        report = imported(ports, [{"service": "a", "port": 3100}, {"service": "b", "port": 3100}])
        assert [s.line for s in report.left_out] == [1, 2]
        assert "line 1 (a) and line 2 (b)" in report.left_out[0].reason
        assert held() == set()

    @pytest.mark.parametrize("port", [3100, 8080])
    def test_the_same_row_twice_is_one_and_already_there(self, ports: PortManager, port: int) -> None:
        report = imported(ports, [{"project": "consilio", "service": "a", "port": port}] * 2)
        assert [i.line for i in report.imported + report.moved] == [1]
        assert [i.line for i in report.already] == [2]
        assert held() == {("consilio/a", 3100)}

    def test_without_a_port_it_gets_one(self, ports: PortManager) -> None:
        assert imported(ports, [{"project": "odin", "service": "a"}]).imported[0].allocation.port_number == 3300

    def test_a_moved_service_takes_nobodys_port(self, ports: PortManager) -> None:
        report = imported(
            ports, [{"project": "consilio", "service": "a", "port": 8080}, {"service": "b", "port": 3100}]
        )
        assert [i.allocation.port_number for i in report.imported] == [3100]
        assert [i.allocation.port_number for i in report.moved] == [3101]

    def test_a_cloudflare_hostname_that_is_taken_is_left_out(self, ports: PortManager) -> None:
        ports.allocate("odin", "x", cloudflare_hostname="a.example.com")
        report = imported(ports, [{"project": "consilio", "service": "a", "cloudflareHostname": "a.example.com"}])
        assert "points at odin/x" in report.left_out[0].reason


@pytest.mark.parametrize("name", sorted(f.name for f in DATA.iterdir()))
def test_a_second_run_changes_nothing(ports: PortManager, name: str) -> None:
    reading = read((DATA / name).read_bytes())
    first = ports.import_rows(reading, project="consilio")
    before, events = held(), Event.objects.count()
    second = ports.import_rows(read((DATA / name).read_bytes()), project="consilio")
    assert (held(), Event.objects.count()) == (before, events)
    assert not second.imported
    assert not second.moved
    assert len(second.already) == len(first.imported) + len(first.moved)
    assert first.imported


def test_dry_run_says_the_same_and_writes_nothing(ports: PortManager) -> None:
    reading = read((DATA / "lsof.txt").read_bytes())
    dry = ports.import_rows(reading, project="consilio", dry_run=True)
    assert held() == set()
    real = ports.import_rows(reading, project="consilio")
    assert [i.allocation.address for i in dry.moved] == [i.allocation.address for i in real.moved]
    assert [i.allocation.address for i in dry.imported] == [i.allocation.address for i in real.imported]


LISTENS_ON_9001 = b'tcp LISTEN 0 5 127.0.0.1:9001 0.0.0.0:* users:(("python3",pid=13875,fd=3))'


class TestPortsOfSharedRangesThatAreHeld:
    @pytest.fixture
    def sh(self, ports: PortManager) -> PortAllocation:
        return ports.allocate("consilio", "sh", range_name="shared-services", port=9001)

    def test_what_listens_there_is_its_holder(self, ports: PortManager, sh: PortAllocation) -> None:
        report = ports.import_rows(read(LISTENS_ON_9001, "ss"))
        assert [(i.allocation.pk, i.old) for i in report.already] == [(sh.pk, None)]
        assert held() == {("consilio/sh", 9001)}

    def test_so_is_a_service_of_its_name(self, ports: PortManager, sh: PortAllocation) -> None:
        report = imported(ports, [{"service": "sh", "port": 9001}])
        assert [i.allocation.pk for i in report.already] == [sh.pk]

    def test_another_service_is_moved_within_the_range(self, ports: PortManager, sh: PortAllocation) -> None:
        report = imported(ports, [{"service": "api2", "port": 9001}])
        assert [(i.old, i.allocation.label) for i in report.moved] == [(9001, "shared-services/api2")]
        again = imported(ports, [{"service": "api2", "port": 9001}])
        assert [(i.old, i.allocation.label) for i in again.already] == [(9001, "shared-services/api2")]

    def test_a_service_of_another_project_is_moved(self, ports: PortManager, sh: PortAllocation) -> None:
        report = imported(ports, [{"project": "odin", "service": "sh", "port": 9001}])
        assert [(i.old, i.allocation.address) for i in report.moved] == [(9001, "3300/tcp")]

    def test_a_process_of_another_project_is_moved(self, ports: PortManager, sh: PortAllocation) -> None:
        report = imported(ports, [{"project": "odin", "port": 9001}])
        assert [(i.old, i.allocation.label) for i in report.moved] == [(9001, "odin/port-9001")]

    def test_what_an_agent_asked_for_waits_for_the_decision(self, ports: PortManager) -> None:
        ports.update_project("consilio", mode="ask")
        PortManager(actor="agent", source="mcp").allocate("consilio", "sh", port=3150)
        for rows in ([{"project": "consilio", "service": "sh", "port": 3150}], [{"port": 3150}]):
            assert "nobody has decided yet" in imported(ports, rows).left_out[0].reason


class TestReservations:
    def test_one_of_another_project_is_kept(self, ports: PortManager) -> None:
        ports.reserve("consilio", 9100)
        report = imported(ports, [{"project": "odin", "service": "zz", "port": 9100}])
        assert [(i.old, i.allocation.address) for i in report.moved] == [(9100, "3300/tcp")]
        assert held() == {("consilio/(reserved)", 9100), ("odin/zz", 3300)}

    def test_nobody_named_is_not_its_maker(self, ports: PortManager) -> None:
        ports.reserve("consilio", 9001)
        report = ports.import_rows(read(LISTENS_ON_9001, "ss"))
        assert [(i.old, i.allocation.label) for i in report.moved] == [(9001, "shared-services/python3-9001")]

    def test_ones_own_gives_way(self, ports: PortManager) -> None:
        ports.reserve("consilio", 9100)
        report = imported(ports, [{"project": "consilio", "service": "zz", "port": 9100}])
        assert [i.allocation.port_number for i in report.imported] == [9100]
        assert held() == {("consilio/zz", 9100)}


HARMFUL = ["\x1b[31mred\x1b[2J", "right\u202eleft", "sur\ud800", "\x9b2J"]


class TestWhatARowSaysIsHarmless:
    @pytest.mark.parametrize("name", HARMFUL)
    @pytest.mark.parametrize("how", [(), ("--json",)])
    def test_on_a_terminal(self, ports: PortManager, tmp_path: Path, name: str, how: tuple[str, ...]) -> None:
        rows = [{"project": "consilio", "service": "ok", "port": 3195}]
        rows += [{"project": "consilio", "service": name, "port": 3190}]
        rows += [{"project": "consilio", "service": name + end, "port": 3191} for end in "ab"]
        (tmp_path / "list.json").write_text(json.dumps(rows))
        out, _, status = run("import_ports", str(tmp_path / "list.json"), "--format", "json", *how)
        assert status == 2
        assert "is not a name" in out
        assert "all claim 3191/tcp" in out
        assert out.replace("\n", "").isprintable()

    def test_in_json_nothing_of_it_is_lost(self, ports: PortManager, tmp_path: Path) -> None:
        said = "c1 \x9b2J, left\u202eright, tag \U000e0041, straße 漢"
        (tmp_path / "list.json").write_text(json.dumps([{"service": "a", "port": 3100, "description": said}]))
        out = run("import_ports", str(tmp_path / "list.json"), "--json")[0]
        assert out.replace("\n", "").isprintable()
        assert "straße 漢" in out
        assert json.loads(out)["imported"][0]["description"] == said

    def test_in_what_is_no_import_at_all(self, tmp_path: Path) -> None:
        (tmp_path / "list.yaml").write_text("- *left\u202eright\n")
        err = run("import_ports", str(tmp_path / "list.yaml"), "--format", "yaml")[1]
        assert "not YAML" in err
        assert err.strip().isprintable()

    def test_a_port_that_many_claim_is_told_in_a_short_sentence(self, ports: PortManager) -> None:
        report = imported(ports, [{"service": f"{n}{'x' * 300}", "port": 3100} for n in range(500)])
        assert len(report.left_out) == 500
        assert len(report.left_out[0].reason) < 2000
        assert report.left_out[0].reason.endswith("and 490 more all claim 3100/tcp")


class TestCommand:
    def test_all_in_is_0_also_the_second_time(self, ports: PortManager) -> None:
        out, _, status = run("import_ports", str(DATA / "lsof.txt"), "--project", "consilio")
        assert status == 0
        assert "lsof: 4 imported, 2 moved, 0 already there, 0 left out." in out
        out, _, status = run("import_ports", str(DATA / "lsof.txt"), "--project", "consilio")
        assert status == 0
        assert "lsof: 0 imported, 0 moved, 6 already there, 0 left out." in out

    def test_the_moves_are_listed_again_the_second_time(self, ports: PortManager) -> None:
        """Who lost the list has it again, until the services listen where they should."""
        moves = [run("import_ports", str(DATA / "services.json"))[0] for _ in range(2)]
        for out in moves:
            assert "8080  →  3100  tcp       consilio/legacy" in out
        assert "0 moved" in moves[1]

    def test_a_move_that_stands_there_twice_is_listed_once(self, ports: PortManager, tmp_path: Path) -> None:
        (tmp_path / "list.csv").write_text("project,service,port\n" + "consilio,a,8080\n" * 2)
        for counts in ("0 imported, 1 moved, 1 already there, 0 left out", "0 imported, 0 moved, 2 already there"):
            out = run("import_ports", str(tmp_path / "list.csv"))[0]
            assert out.count("8080  →  3100") == 1
            assert counts in out

    def test_one_line_passed_over_is_one(self, ports: PortManager) -> None:
        lines = run("import_ports", str(DATA / "ss_header.txt"))[1]
        assert "1 line is passed over: headings and connections, no listeners." in lines

    def test_some_left_out_is_2(self, ports: PortManager) -> None:
        out, _, status = run("import_ports", str(DATA / "lsof.txt"))
        assert status == 2
        assert "port 8080 lies in no range" in out

    def test_nothing_is_1(self, ports: PortManager, tmp_path: Path) -> None:
        (tmp_path / "empty").touch()
        out, err, status = run("import_ports", str(tmp_path / "empty"))
        assert (out, status) == ("", 1)
        assert "the input is empty" in err
        assert run("import_ports", "/dev/zero")[2] == 1

    def test_a_list_of_which_nothing_can_be_read_says_why(self, ports: PortManager, tmp_path: Path) -> None:
        (tmp_path / "list").write_text("project,service,port\nconsilio,api\nconsilio,web,3100,x\n")
        out, _, status = run("import_ports", str(tmp_path / "list"))
        assert status == 1
        assert "2  2 columns instead of 3" in out
        assert "csv: 0 imported, 0 moved, 0 already there, 2 left out." in out
        (tmp_path / "list").write_text('[{"project": "consilio", "service": "api", "port": "3180"},\n]')
        out, err, status = run("import_ports", str(tmp_path / "list"))
        assert (out, status) == ("", 1)
        assert "in line " in err
        assert held() == set()

    def test_the_moves_are_a_list_to_work_through(self, ports: PortManager) -> None:
        out = run("import_ports", str(DATA / "services.json"))[0]
        assert "8080  →  3100  tcp       consilio/legacy" in out

    def test_dry_run(self, ports: PortManager) -> None:
        assert "3 would be imported" in run("import_ports", str(DATA / "lsof_piped.txt"), "--dry-run")[0]
        assert held() == set()

    def test_json(self, ports: PortManager) -> None:
        shown = json.loads(run("import_ports", str(DATA / "services.json"), "--json")[0])
        assert [(m["old"], m["port"]) for m in shown["moved"]] == [(8080, 3100)]

    def test_standard_input(self, ports: PortManager, monkeypatch: pytest.MonkeyPatch) -> None:
        with (DATA / "ss.txt").open() as file:
            monkeypatch.setattr(sys, "stdin", file)
            assert "ss: 4 imported" in run("import_ports", "-")[0]

    def test_scan_takes_what_listens_here(self, ports: PortManager) -> None:
        with socket.create_server(("127.0.0.1", 3577)):
            run("import_ports", "--scan")
        assert any(label.startswith("quiculum-monitor/python") and port == 3577 for label, port in held())

    def test_what_is_left_out_of_a_file_stands_on_a_line_of_it(self, ports: PortManager) -> None:
        out = run("import_ports", str(DATA / "compose.yaml"))[0]
        assert "Line  Reason" in out
        assert "  16  the port is a variable without a default" in out
        left_out = json.loads(run("import_ports", str(DATA / "compose.yaml"), "--json")[0])["leftOut"]
        assert {row["line"] for row in left_out} == {16, 17}

    def test_what_is_left_out_of_a_scan_stands_on_none(self, ports: PortManager) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("127.0.0.1", 3577)):
            out = run("import_ports", "--scan")[0]
            told = json.loads(run("import_ports", "--scan", "--json")[0])
            assert f"port {server.getsockname()[1]} lies in no range" in out
        assert "Line" not in out
        assert {row["line"] for row in told["leftOut"] + told["already"]} == {None}

    def test_neither_file_nor_scan(self) -> None:
        assert run("import_ports")[2] == 1

    def test_an_unknown_project_is_1(self, ports: PortManager) -> None:
        assert run("import_ports", str(DATA / "lsof.txt"), "--project", "nope")[2] == 1
