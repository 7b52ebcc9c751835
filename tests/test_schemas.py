"""The published JSON: its names, its values, and its agreement with the models."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from allocations import importers, schemas
from allocations.allocation_spec import DETAILS
from allocations.audit import AuditReport, Finding
from allocations.models import Event, PortAllocation, PortHealthCheck
from allocations.ports import PortManager, audits, explain, imports, projects, queries, ranges
from allocations.schemas import Output
from tests.make import FIRST
from tests.output_schemas import deviations, strict

ALLOCATION = (
    "id project service instance port hostname protocol status serviceType description owner cloudflareHostname "
    "metadata range lastPort health allocatedAt lastUsedAt expiresAt releasedAt"
)
USAGE = "rangeStart rangeEnd totalPorts allocatedPorts reservedPorts availablePorts utilizationPercent"
# The names that programs rely on, in their order.
PUBLISHED = {
    "AddedProject": "success project rangeStart rangeEnd",
    "Allocation": ALLOCATION,
    "AllocationRow": "project service instance port hostname protocol status lastPort health description owner",
    "Audit": "success summary conflicts unallocated",
    "AuditConflict": "port expected actual",
    "AuditSummary": "allocated inUse notRunning healthPercentage unknown drift unallocated",
    "Check": "id checkType status responseTimeMs checkedAt evidence",
    "Event": "id at actor source verb subject subjectId project label changes",
    "Explanation": "success port hostname protocol range project allocation listener answers explanation nextStep "
    "yours",
    "Host": "name held isApproved approvedBy approvedAt",
    "ImportReport": "success format dryRun imported moved already leftOut",
    "ImportedAllocation": f"line old {ALLOCATION}",
    "LeftOutRow": "line reason row",
    "NewAllocation": f"{ALLOCATION} created",
    "ObservedListener": "address process pid",
    "PortSummary": "success summary",
    "Project": "name id description mode agentQuota createdAt",
    "ProjectUsage": f"{USAGE} ranges",
    "Range": "id project name start end description shared active createdAt",
    "RangeUsage": f"rangeName {USAGE}",
    "UnallocatedListener": "port hostname protocol process project",
    "Uptime": "checks up percentage",
}
# They only hold what several of these have in common.
BASES = {"Output", "Identified", "AllocatedPort", "SpanUsage", "NamedRange", "ImportLine"}


def test_published_names() -> None:
    names = {
        name: " ".join(schema.model_json_schema(mode="serialization", by_alias=True)["properties"])
        for name, schema in vars(schemas).items()
        if isinstance(schema, type) and issubclass(schema, Output) and name not in BASES
    }
    assert names == PUBLISHED


def test_details_are_in_every_allocation() -> None:
    assert list(schemas.AllocationDetails.model_fields) == list(DETAILS)
    assert set(DETAILS) <= set(schemas.Allocation.model_fields)


def test_a_schema_of_an_answer_has_no_rules_for_input() -> None:
    """What is stored was accepted once; a limit that is lowered later must not make an answer invalid."""
    for name in PUBLISHED:
        text = json.dumps(getattr(schemas, name).model_json_schema(mode="serialization", by_alias=True))
        assert '"default"' not in text, name
        assert '"maxLength"' not in text, name


def check(value: Output) -> dict[str, Any]:
    """Return the dumped value, after comparing it with its schema."""
    dumped = json.loads(json.dumps(value.dump()))
    assert deviations(dumped, strict(type(value).model_json_schema(mode="serialization", by_alias=True))) == []
    return dict(dumped)


@pytest.mark.django_db
class TestValues:
    @pytest.fixture
    def web(self, ports: PortManager) -> PortAllocation:
        details = {"service_type": "web", "description": "The shop", "owner": "team-web"}
        details |= {"cloudflare_hostname": "shop.example.com"}
        return ports.allocate("shop", "web", metadata={"a": [1, {"b": None}]}, **details)

    def test_allocation(self, web: PortAllocation) -> None:
        assert check(schemas.Allocation.of(web)) == {
            **{"id": str(web.pk), "project": "shop", "service": "web", "instance": 0, "port": FIRST},
            **{"hostname": "localhost", "protocol": "tcp", "status": "allocated"},
            **{"serviceType": "web", "description": "The shop", "owner": "team-web"},
            **{
                "cloudflareHostname": "shop.example.com",
                "metadata": {"a": [1, {"b": None}]},
                "range": "shop",
                "health": None,
            },
            **{"allocatedAt": web.allocated_at.isoformat(), "lastUsedAt": None, "expiresAt": None, "releasedAt": None},
        }
        assert schemas.Allocation.of(web).dump()["allocatedAt"].endswith("+00:00")

    def test_new_allocation(self, ports: PortManager, web: PortAllocation) -> None:
        again = ports.get_or_allocate("shop", "web")
        assert check(schemas.NewAllocation.of(web))["created"] is True
        assert check(schemas.NewAllocation.of(again)) == check(schemas.Allocation.of(web)) | {"created": False}

    def test_reservation(self, ports: PortManager) -> None:
        expires_at = timezone.now() + timedelta(days=3)
        dumped = check(schemas.Allocation.of(ports.reserve("shop", FIRST + 3, expires_at=expires_at)))
        assert (dumped["service"], dumped["status"], dumped["expiresAt"]) == (None, "reserved", expires_at.isoformat())

    def test_released(self, ports: PortManager, web: PortAllocation) -> None:
        (released,) = ports.release("shop", "web")
        dumped = check(schemas.Allocation.of(released))
        assert (dumped["status"], dumped["releasedAt"]) == ("released", released.released_at.isoformat())

    def test_what_the_validators_refuse_today_is_published(self, web: PortAllocation) -> None:
        PortAllocation.objects.update(description="x" * 5000 + "\x07")
        web.refresh_from_db()
        assert check(schemas.Allocation.of(web))["description"] == "x" * 5000 + "\x07"

    def test_table(self, web: PortAllocation) -> None:
        assert schemas.Allocation.headings() == [
            *("Port", "Protocol", "Host", "Project", "Service", "Instance", "Status", "Health"),
            *("Type", "Description", "Owner"),
        ]
        assert schemas.Allocation.of(web).cells() == [
            *(FIRST, "tcp", "localhost", "shop", "web", 0, "allocated", None, "web", "The shop", "team-web")
        ]

    def test_row(self, web: PortAllocation) -> None:
        assert check(schemas.AllocationRow.of(web)) == {
            **{"project": "shop", "service": "web", "instance": 0, "port": FIRST, "hostname": "localhost"},
            **{"protocol": "tcp", "status": "allocated", "health": None, "description": "The shop"},
            "owner": "team-web",
        }

    def test_project_and_range(self, ports: PortManager) -> None:
        project = projects.update(ports.context, "shop", mode="ask", agent_quota=4, description="Sells")
        port_range = ranges.add(ports.context, "shop", "late", FIRST + 50, FIRST + 59, is_shared=True, is_active=False)
        assert check(schemas.Project.of(project)) == {
            **{"name": "shop", "id": str(project.pk), "description": "Sells", "mode": "ask", "agentQuota": 4},
            "createdAt": project.created_at.isoformat(),
        }
        assert check(schemas.Range.of(port_range)) == {
            **{"id": str(port_range.pk), "project": "shop", "name": "late", "start": FIRST + 50, "end": FIRST + 59},
            **{"description": "", "shared": True, "active": False, "createdAt": port_range.created_at.isoformat()},
        }
        assert check(schemas.AddedProject.of(port_range)) == {
            **{"success": True, "project": "shop", "rangeStart": FIRST + 50, "rangeEnd": FIRST + 59}
        }

    def test_summary(self, ports: PortManager, web: PortAllocation) -> None:
        one = {
            **{"rangeStart": FIRST, "rangeEnd": FIRST + 19, "totalPorts": 20, "allocatedPorts": 1},
            **{"reservedPorts": 0, "availablePorts": 19, "utilizationPercent": 5},
        }
        assert check(schemas.PortSummary.of(queries.summary(ports.context, "shop"))) == {
            **{"success": True, "summary": one}
        }
        ranges.add(ports.context, "shop", "late", FIRST + 50, FIRST + 59)
        summary = check(schemas.PortSummary.of(queries.summary(ports.context, "shop")))["summary"]
        assert summary["ranges"][0] == {"rangeName": "shop", **one}
        assert (summary["totalPorts"], len(summary["ranges"])) == (30, 2)

    def test_event(self, ports: PortManager, web: PortAllocation) -> None:
        ports.update("shop", "web", description="New")
        event = Event.objects.with_project_name()[0]
        assert check(schemas.Event.of(event)) == {
            **{"id": event.pk, "at": event.at.isoformat(), "actor": "test", "source": "python", "verb": "updated"},
            **{"subject": "allocation", "subjectId": str(web.pk), "project": "shop", "label": event.label},
            "changes": {"description": ["The shop", "New"]},
        }

    def test_check(self, ports: PortManager, web: PortAllocation) -> None:
        audits.run(ports.context)
        row = PortHealthCheck.objects.get()
        assert check(schemas.Check.of(row)) == {
            **{"id": str(row.pk), "checkType": "kernel", "status": "down", "responseTimeMs": None},
            **{"checkedAt": row.checked_at.isoformat(), "evidence": {"reason": "not running"}},
        }
        assert check(schemas.Uptime.of(PortHealthCheck.objects.uptime())) == {"checks": 1, "up": 0, "percentage": 0.0}

    def test_the_evidence_of_a_check_does_not_name_a_hidden_project(self) -> None:
        evidence = Finding(PortAllocation(), "conflict", "kernel", "odin/secret", foreign_project="odin").evidence
        row = PortHealthCheck(check_type="kernel", status="conflict", checked_at=timezone.now(), evidence=evidence)
        row.pk = "0" * 32
        assert schemas.Check.of(row).dump()["evidence"] == {"reason": "odin/secret"}
        assert "odin" not in json.dumps(schemas.Check.of(row, {"shop"}).dump())
        assert row.evidence == evidence, "the row stays as it is"

    def test_audit(self, web: PortAllocation) -> None:
        findings = [
            Finding(web, "up", "kernel", "listening"),
            Finding(web, "down", "kernel", "listens on 4000", listens_on=4000),
            Finding(web, "conflict", "kernel", "odin/worker"),
        ]
        assert check(schemas.Audit.of(AuditReport(findings=findings, unallocated=[]))) == {
            "success": True,
            "summary": {
                **{"allocated": 3, "inUse": 1, "notRunning": 2, "healthPercentage": 33},
                **{"unknown": 0, "drift": 1, "unallocated": 0},
            },
            "conflicts": [
                {"port": FIRST, "expected": "shop/web", "actual": "not running"},
                {"port": FIRST, "expected": "shop/web", "actual": "odin/worker"},
            ],
            "unallocated": [],
        }

    def test_explanation(self, ports: PortManager, web: PortAllocation) -> None:
        held = explain.explain(ports.context, FIRST, project="shop")
        assert check(schemas.Explanation.of(held)) == {
            **{"success": True, "port": FIRST, "hostname": "localhost", "protocol": "tcp", "range": "shop"},
            **{"project": "shop", "allocation": schemas.Allocation.of(web).dump(), "listener": None, "answers": None},
            **{"explanation": held.sentence, "nextStep": held.next_step, "yours": True},
        }
        nobody = check(schemas.Explanation.of(explain.explain(ports.context, FIRST + 900)))
        assert [nobody[name] for name in ("range", "project", "allocation", "yours")] == [None, None, None, None]

    def test_import_report(self, ports: PortManager) -> None:
        rows = f"project,service,port\nshop,api,{FIRST + 4}\nshop,old,9\nshop,NO NAME,5\n"
        report = imports.import_rows(ports.context, importers.parse(rows.encode(), "csv"))
        dumped = check(schemas.ImportReport.of(report))
        api, old = PortAllocation.objects.order_by("service_name")
        assert dumped["imported"] == [{"line": 2, "old": None, **schemas.Allocation.of(api).dump()}]
        assert dumped["moved"] == [{"line": 3, "old": 9, **schemas.Allocation.of(old).dump()}]
        assert [(row["line"], row["row"]) for row in dumped["leftOut"]] == [(4, "NO NAME 5")]
        assert (dumped["format"], dumped["dryRun"], dumped["already"]) == ("csv", False, [])
        report.has_lines = False
        assert [row["line"] for row in check(schemas.ImportReport.of(report))["leftOut"]] == [None]
