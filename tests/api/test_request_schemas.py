"""Fields and parameters: which values are refused, and under which names they are published."""

from __future__ import annotations

import json
from typing import Any

import pytest

from allocations.allocation_spec import DETAILS
from allocations.api import request_schemas
from allocations.api.request_schemas import ChangeAllocation, DetailsInput, Input, Reserve, Service
from allocations.models import Event, PortAllocation
from allocations.ports import PortManager
from allocations.schemas import AllocationDetails
from tests.make import FIRST

from .conftest import ApiClient

REQUEST = {"project": "shop", "service": "api"}
FIELDS: dict[str, tuple[dict[str, Any], str, str]] = {
    "an object": ({"port": {"$gt": 1}}, "port", "Port number "),
    "a list": ({"port": [1]}, "port", "Port number "),
    "port 0": ({"port": 0}, "port", "Port number 0 is out of range"),
    "port -1": ({"port": -1}, "port", "Port number "),
    "port 65536": ({"port": 65536}, "port", "Port number "),
    "port 10^40": ({"port": 10**40}, "port", "Port number "),
    "a fraction": ({"port": 80.5}, "port", "Port number "),
    "true": ({"port": True}, "port", "Port number "),
    "hexadecimal": ({"port": "0x50"}, "port", "Port number "),
    "text": ({"port": "3000"}, "port", "Port number "),
    "empty text": ({"port": ""}, "port", "Port number "),
    "an underscore": ({"port": "1_0002"}, "port", "Port number "),
    "Arabic digits": ({"port": "٣٠٠٠"}, "port", "Port number "),
    "a decimal point": ({"port": 10001.0}, "port", "Port number "),
    "an empty name": ({"service": ""}, "service", "Service name "),
    "a long name": ({"service": "a" * 256}, "service", "Service name "),
    "an upper-case name": ({"service": "Web"}, "service", "Service name "),
    "a leading dash": ({"service": "-x"}, "service", "Service name "),
    "dots": ({"service": ".."}, "service", "Service name "),
    "a full-width letter": ({"service": "ａ"}, "service", "Service name "),
    "a newline": ({"service": "web\n"}, "service", "Service name "),
    "an unknown field": ({"is_admin": True}, "is_admin", "is_admin: unknown field"),
    "a snake-case name": ({"service_type": "api"}, "service_type", "service_type: unknown field"),
    "the name of a column": ({"port_number": 3000}, "port_number", "port_number: unknown field"),
    "a status": ({"status": "released"}, "status", "status: unknown field"),
    "an id": ({"id": "x"}, "id", "id: unknown field"),
    "an unknown protocol": ({"protocol": "sctp"}, "protocol", "protocol: "),
    "an upper-case protocol": ({"protocol": "TCP"}, "protocol", "protocol: "),
    "a host with a newline": ({"hostname": "a\nservice: http://x"}, "hostname", "Host "),
    "a number as host": ({"hostname": "2130706433"}, "hostname", "Host "),
    "a flag as text": ({"new": "true"}, "new", "new: "),
    "a flag as a number": ({"new": 1}, "new", "new: "),
    "metadata as a list": ({"metadata": []}, "metadata", "Metadata "),
    "large metadata": ({"metadata": {"a": "x" * 20_000}}, "metadata", "Metadata "),
    "a long description": ({"description": "x" * 2001}, "description", "Description "),
    "null for a description": ({"description": None}, "description", "description: "),
    "a long owner": ({"owner": "x" * 256}, "owner", "Owner "),
    "a hostname without dots": ({"cloudflareHostname": "no dots"}, "cloudflareHostname", "Cloudflare hostname "),
}


@pytest.mark.django_db
@pytest.mark.parametrize("name", FIELDS)
def test_invalid_fields_are_refused(operator: ApiClient, name: str) -> None:
    changes, field, sentence = FIELDS[name]
    before = Event.objects.count()
    answer = operator("POST", "/api/ports", REQUEST | changes)
    problem = answer.json()
    assert answer.status_code == problem["status"] == 400, problem
    assert answer["Content-Type"] == "application/problem+json"
    assert [error["field"] for error in problem["errors"]] == [field]
    assert problem["detail"].startswith(sentence)
    assert Event.objects.count() == before
    assert not PortAllocation.objects.exists()


@pytest.mark.django_db
def test_a_number_with_an_exponent_is_refused(operator: ApiClient) -> None:
    body = '{"project": "shop", "service": "api", "port": 1e4}'
    answer = operator.send("POST", "/api/ports", body, **{"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "port")


@pytest.mark.django_db
def test_every_invalid_field_is_named(operator: ApiClient) -> None:
    problem = operator("POST", "/api/ports", {"project": "NO", "port": "x", "extra": 1}).json()
    assert {e["field"] for e in problem["errors"]} == {"project", "service", "port", "extra"}
    assert problem["code"] == "invalid_value"
    assert problem["detail"].endswith("(and 1 more)")


@pytest.mark.django_db
def test_missing_fields_are_named(operator: ApiClient) -> None:
    problem = operator("POST", "/api/ports", {}).json()
    assert {(e["field"], e["message"]) for e in problem["errors"]} == {("project", "required"), ("service", "required")}


@pytest.mark.django_db
def test_the_code_names_the_rule(operator: ApiClient) -> None:
    for changes, code in (({"service": "A B"}, "invalid_name"), ({"port": 0}, "port_out_of_range")):
        assert operator("POST", "/api/ports", REQUEST | changes).json()["code"] == code


PARAMETERS = {
    "NUL": ("/api/ports?service=a%00b", "service"),
    "text for a number": ("/api/ports/explain?port=abc", "port"),
    "a long number": ("/api/ports/explain?port=" + "9" * 30, "port"),
    "zero": ("/api/ports/explain?port=0", "port"),
    "Arabic digits": ("/api/ports/explain?port=%D9%A3%D9%A0%D9%A0%D9%A0", "port"),
    "a missing port": ("/api/ports/explain", "port"),
    "limit 0": ("/api/ports?limit=0", "limit"),
    "limit 501": ("/api/ports?limit=501", "limit"),
    "limit as text": ("/api/ports?limit=ten", "limit"),
    "an unknown status": ("/api/ports?status=gone", "status"),
    "a search with a NUL": ("/api/ports?q=%00", "q"),
    "an invalid host": ("/api/ports?host=a_b", "host"),
    "not an id": ("/api/checks?port=7", "port"),
    "an invalid flag": ("/api/ports/audit?strict=yes", "strict"),
    "an invalid name": ("/api/projects/A_B", "name"),
}


@pytest.mark.django_db
@pytest.mark.parametrize("name", PARAMETERS)
def test_invalid_parameters_are_refused(viewer: ApiClient, name: str) -> None:
    address, field = PARAMETERS[name]
    answer = viewer("GET", address)
    assert answer.status_code == 400, answer.content
    assert answer["Content-Type"] == "application/problem+json"
    assert [error["field"] for error in answer.json()["errors"]] == [field]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("/api/ports?limit=501", "limit: use a whole number from 1 to 500."),
        ("/api/ports/explain?port=abc", "port: use a whole number from 1 to 65535."),
        ("/api/ports?q=%00", "q: use text without control characters."),
    ],
)
def test_no_sentence_contains_a_regular_expression(viewer: ApiClient, address: str, sentence: str) -> None:
    assert viewer("GET", address).json()["detail"] == sentence


@pytest.mark.django_db
@pytest.mark.parametrize(
    "moment",
    ["2020-01-01T00:00:00Z", "9999-12-31T00:00:00Z", "2027-01-01T00:00:00", "soon", 5, 1800000000, "1800000000"],
)
def test_invalid_expiries_are_refused(operator: ApiClient, moment: object) -> None:
    answer = operator("POST", "/api/reservations", {"project": "shop", "port": FIRST, "expiresAt": moment})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "expiresAt")


@pytest.mark.django_db
def test_a_time_in_any_zone_is_accepted(operator: ApiClient) -> None:
    """PostgreSQL accepts no offset of more than 16 hours, so Portal must convert the time."""
    request = {"project": "shop", "port": FIRST, "expiresAt": "2027-01-02T00:00:00+23:59"}
    answer = operator("POST", "/api/reservations", request)
    assert (answer.status_code, answer.json()["allocations"][0]["expiresAt"]) == (201, "2027-01-01T00:01:00+00:00")


@pytest.mark.django_db
@pytest.mark.parametrize("count", [0, 501])
def test_a_batch_has_1_to_500_services(operator: ApiClient, count: int) -> None:
    request = {"project": "shop", "services": [{"service": f"s{n}"} for n in range(count)]}
    answer = operator("POST", "/api/ports/batch", request)
    assert answer.status_code == 400
    assert count == 0 or answer.json()["detail"] == "services: at most 500 services at once, not 501."
    assert not PortAllocation.objects.exists()


@pytest.mark.django_db
def test_fields_that_never_change_are_refused(operator: ApiClient, ports: PortManager) -> None:
    web = ports.allocate("shop", "web")
    for change in ({"port": 3}, {"hostname": "x"}, {"status": "released"}, {"project": "bank"}, {"service": None}):
        assert operator("PATCH", f"/api/ports/{web.pk}", change).status_code == 400
    expiry = operator("PATCH", f"/api/ports/{web.pk}", {"expiresAt": "2027-01-01T00:00:00Z"})
    assert expiry.status_code == 400
    assert "Only a reservation expires" in expiry.json()["detail"]


# Published names


PUBLISHED = {
    "AddProject": "description name shared size start withRange",
    "AddRange": "active description end name project shared start",
    "Allocate": "adopt cloudflareHostname description hostname metadata new owner port project protocol range "
    "service serviceType",
    "AllocateMany": "new project services",
    "AuditQuery": "project strict",
    "ChangeAllocation": "cloudflareHostname description expiresAt metadata owner service serviceType",
    "ChangeProject": "agentQuota description mode name",
    "ChangeRange": "active description end name project shared start",
    "ChecksQuery": "cursor limit port",
    "DiscoveryQuery": "project",
    "EventsQuery": "cursor limit project subject",
    "ExplainQuery": "hostname port project protocol",
    "PortsQuery": "cursor host limit project protocol q service status",
    "ProjectPath": "name",
    "ProjectsQuery": "cursor limit q",
    "RangesQuery": "cursor limit project",
    "ReleaseQuery": "ports",
    "Reserve": "expiresAt hostname lastPort note port project protocol",
    "Service": "cloudflareHostname description hostname metadata owner port protocol range service serviceType",
}
BASES = {"Input", "PageQuery", "DetailsInput", "Changes"}


def test_every_schema_publishes_its_names() -> None:
    names = {
        name: " ".join(sorted(str(schema.published_name(field)) for field in schema.model_fields))
        for name, schema in vars(request_schemas).items()
        if isinstance(schema, type) and issubclass(schema, Input) and name not in BASES
    }
    assert names == PUBLISHED


def test_the_schemas_contain_every_detail() -> None:
    assert list(AllocationDetails.model_fields) == list(DETAILS)
    for schema in (Service, ChangeAllocation, DetailsInput):
        assert set(DETAILS) <= set(schema.model_fields)


@pytest.mark.parametrize(
    ("schema", "field", "name"),
    [(Reserve, "end_port", "lastPort"), (Reserve, "port_number", "port"), (Service, "nothing", None)],
)
def test_the_published_name_of_a_field(schema: type[Input], field: str, name: str | None) -> None:
    assert schema.published_name(field) == name


def test_a_change_has_no_defaults() -> None:
    """A client that fills in defaults would change what its user did not mention."""
    for schema in (ChangeAllocation, request_schemas.ChangeProject, request_schemas.ChangeRange):
        assert '"default"' not in json.dumps(schema.model_json_schema())
