"""What must be refused is refused with one clear problem, and changes nothing; the letters are the catalogue's."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client

from allocations.models import Event, PortAllocation
from allocations.ports import PortManager
from tests.make import FIRST

from .conftest import Asking

pytestmark = pytest.mark.django_db

GOOD = {"project": "shop", "service": "api"}


def body(**changes: Any) -> bytes:
    return json.dumps(GOOD | changes).encode()


BODIES: dict[str, tuple[bytes, str]] = {
    "B1 empty": (b"", "a JSON object is required"),
    "B1 no field": (b"{}", "required"),
    "B2 not JSON": (b"{{{", "line 1, column 2"),
    "B3 an array": (b"[]", "not a JSON object"),
    "B3 a string": (b'"x"', "not a JSON object"),
    "B4 no UTF-8": (b'{"project": "\xff"}', "not UTF-8"),
    "B5 a BOM": (b"\xef\xbb\xbf{}", "BOM"),
    "B6 NUL in a value": (body(description="a\0b"), "NUL"),
    "B6 NUL in a key": (body(metadata={"a\0b": 1}), "NUL"),
    "B7 half a surrogate pair": (b'{"project": "shop", "service": "api", "description": "\\ud800"}', "surrogate"),
    "B8 nested": (b'{"project": ' + b"[" * 100_000, "nested"),
    "B8 nested and closed": (body(metadata=json.loads('{"a":' * 40 + "1" + "}" * 40)), "nested"),
    "B9 NaN": (b'{"project": NaN}', "NaN is no JSON number"),
    "B10 twice": (b'{"project": "shop", "project": "bank"}', "twice"),
    "B12 an object for a port": (body(port={"$gt": 1}), "port "),
    "B12 a list for a port": (body(port=[1]), "port "),
    "B13 port 0": (body(port=0), "port "),
    "B13 port -1": (body(port=-1), "port "),
    "B13 port 65536": (body(port=65536), "port "),
    "B13 port 10^40": (body(port=10**40), "port "),
    "B13 port 10^5000": (b'{"project": "shop", "service": "api", "port": 1' + b"0" * 5000 + b"}", "JSON"),
    "B14 a fraction": (body(port=80.5), "port "),
    "B14 true": (body(port=True), "port "),
    "B14 hexadecimal": (body(port="0x50"), "port "),
    "B14 text": (body(port="3000"), "port "),
    "B14 empty text": (body(port=""), "port "),
    "B15 underscore": (body(port="1_0002"), "port "),
    "B17 Arabic digits": (body(port="٣٠٠٠"), "port "),
    "B19 exponent": (b'{"project": "shop", "service": "api", "port": 1e4}', "port "),
    "B19 point nought": (b'{"project": "shop", "service": "api", "port": 10001.0}', "port "),
    "B20 no name": (body(service=""), "service "),
    "B20 long": (body(service="a" * 256), "service "),
    "B20 upper": (body(service="Web"), "service "),
    "B20 dash first": (body(service="-x"), "service "),
    "B20 dots": (body(service=".."), "service "),
    "B20 wide": (body(service="ａ"), "service "),
    "B21 newline": (body(service="web\n"), "service "),
    "B22 unknown field": (body(is_admin=True), "is_admin: unknown field"),
    "B22 snake case": (body(service_type="api"), "service_type: unknown field"),
    "B23 status": (body(status="released"), "status: unknown field"),
    "B23 id": (body(id="x"), "id: unknown field"),
    "B24 protocol": (body(protocol="sctp"), "protocol: "),
    "B24 upper protocol": (body(protocol="TCP"), "protocol: "),
    "B76 host with a newline": (body(hostname="a\nservice: http://x"), "host "),
    "B80 a number for a host": (body(hostname="2130706433"), "host "),
    "flag as text": (body(new="true"), "new: "),
    "flag as number": (body(new=1), "new: "),
    "metadata as list": (body(metadata=[]), "metadata"),
    "metadata too large": (body(metadata={"a": "x" * 20_000}), "metadata "),
    "description too long": (body(description="x" * 2001), "description "),
    "tunnel": (body(cloudflareHostname="no dots"), "Cloudflare hostname"),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_is_wrong(operator: Asking, name: str) -> None:
    sent, told = BODIES[name]
    before = Event.objects.count()
    answer = operator.client.generic(
        "POST", "/api/ports", sent, content_type="application/json", headers=operator.headers
    )
    problem = answer.json()
    assert answer.status_code == problem["status"] == 400, problem
    assert answer["Content-Type"] == "application/problem+json"
    assert told in problem["detail"]
    assert {"type", "title", "code"} <= set(problem)
    assert Event.objects.count() == before
    assert not PortAllocation.objects.exists()


def test_every_wrong_field_is_named(operator: Asking) -> None:
    problem = operator("POST", "/api/ports", {"project": "NO", "port": "x", "extra": 1}).json()
    assert {e["field"] for e in problem["errors"]} == {"project", "service", "port", "extra"}


@pytest.mark.parametrize("kind", ["application/xml", "text/plain", "", "multipart/form-data; boundary=x"])
def test_b25_another_content_type(operator: Asking, kind: str) -> None:
    answer = operator.client.generic("POST", "/api/ports", body(), content_type=kind, headers=operator.headers)
    assert (answer.status_code, answer.json()["code"]) == (415, "not_json")


def test_b25_a_body_that_is_too_large(operator: Asking) -> None:
    answer = operator("POST", "/api/ports", body(description="x" * 10_000_000))
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


QUERIES = {
    "B27 NUL": ("/api/ports?service=a%00b", "service"),
    "B28 text for a number": ("/api/ports/explain?port=abc", "port"),
    "B29 a long number": ("/api/ports/explain?port=" + "9" * 30, "port"),
    "B29 nought": ("/api/ports/explain?port=0", "port"),
    "Arabic digits": ("/api/ports/explain?port=%D9%A3%D9%A0%D9%A0%D9%A0", "port"),
    "no port": ("/api/ports/explain", "port"),
    "B31 unknown filter": ("/api/ports?prot=80", "prot"),
    "B34 a token in the address": ("/api/ports?token=ptl_x", "token"),
    "twice": ("/api/ports?project=shop&project=bank", "project"),
    "limit 0": ("/api/ports?limit=0", "limit"),
    "limit 501": ("/api/ports?limit=501", "limit"),
    "limit text": ("/api/ports?limit=ten", "limit"),
    "cursor": ("/api/ports?cursor=forged", "cursor"),
    "cursor of another list": ("/api/events?cursor={}", "cursor"),
    "status": ("/api/ports?status=gone", "status"),
    "search with a NUL": ("/api/ports?q=%00", "q"),
    "host": ("/api/ports?host=a_b", "host"),
    "no id": ("/api/checks?port=7", "port"),
    "strict": ("/api/ports/audit?strict=yes", "strict"),
    "a name": ("/api/projects/A_B", "project"),
    "a parameter where none is": ("/api/projects/shop?x=1", "x"),
}


@pytest.mark.parametrize("name", QUERIES)
def test_an_address_that_is_wrong(viewer: Asking, ports: PortManager, name: str) -> None:
    address, field = QUERIES[name]
    if "{}" in address:
        ports.allocate_many("shop", ["a", "b"])
        address = address.format(viewer("GET", "/api/ports?limit=1").json()["next"])
    answer = viewer("GET", address)
    assert answer.status_code == 400, answer.content
    assert answer["Content-Type"] == "application/problem+json"
    assert field in json.dumps(answer.json())


@pytest.mark.parametrize(
    "address", ["/api/ports/" + "9" * 40, "/api/ports/%00", "/api/nothing", "/api/", "/api/ports/", "/api/../x"]
)
def test_b32_nothing_is_there(viewer: Asking, address: str) -> None:
    answer = viewer("GET", address)
    assert (answer.status_code, answer["Content-Type"]) == (404, "application/problem+json")
    assert answer.json()["code"] == "not_found"


@pytest.mark.parametrize("method", ["FOO", "PUT", "DELETE", "OPTIONS"])
def test_b33_a_method_that_is_not_taken(viewer: Asking, method: str) -> None:
    answer = viewer(method, "/api/ports")
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert set(answer["Allow"].split(", ")) == {"GET", "POST"}


def test_b34_a_token_in_the_address_opens_nothing(ports: PortManager) -> None:
    text = ports.create_token("x")[1]
    assert Asking()("GET", f"/api/ports?token={text}").status_code == 401


def test_b35_another_host(viewer: Asking) -> None:
    answer = viewer("GET", "/api/ports", Host="evil.example")
    assert (answer.status_code, answer["Content-Type"]) == (400, "application/problem+json")


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://testserver:81", "https://testserver"])
def test_another_origin(viewer: Asking, origin: str) -> None:
    assert viewer("GET", "/api/ports", Origin=origin).status_code == 403
    assert viewer("GET", "/api/ports", Origin="http://testserver").status_code == 200


def test_b37_to_b42_ranges(admin: Asking, ports: PortManager) -> None:
    ports.allocate("shop", "web", port=FIRST + 19)

    def add(start: int, end: int) -> Any:
        return admin("POST", "/api/ranges", {"project": "shop", "name": f"r{start}", "start": start, "end": end})

    assert add(FIRST + 60, FIRST + 59).status_code == 400
    overlap = add(FIRST + 10, FIRST + 30)
    assert (overlap.status_code, overlap.json()["details"]["overlap"]) == (409, [FIRST + 10, FIRST + 19])
    assert add(FIRST + 20, FIRST + 29).status_code == 201
    assert add(FIRST + 30, FIRST + 30).status_code == 201
    assert add(0, 70000).status_code == 400
    whole = admin("GET", "/api/ranges?project=shop").json()["items"][0]
    shrunk = admin("PATCH", f"/api/ranges/{whole['id']}", {"end": FIRST + 10})
    assert (shrunk.status_code, shrunk.json()["details"]["ports"]) == (409, [FIRST + 19])


def test_b47_a_full_range(operator: Asking, ports: PortManager) -> None:
    ports.allocate_copies("shop", "many", 20)
    full = operator("POST", "/api/ports", GOOD)
    assert (full.status_code, full.json()["code"], full.json()["details"]["size"]) == (409, "range_exhausted", 20)
    assert "Release a service" in full.json()["detail"]


@pytest.mark.parametrize(
    "moment",
    ["2020-01-01T00:00:00Z", "9999-12-31T00:00:00Z", "2027-01-01T00:00:00", "soon", 5, 1800000000, "1800000000"],
)
def test_b49_an_expiry_that_is_none(operator: Asking, moment: object) -> None:
    answer = operator("POST", "/api/reservations", {"project": "shop", "port": FIRST, "expiresAt": moment})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "expiresAt")


@pytest.mark.parametrize("many", [0, 501])
def test_as_many_services_as_there_may_be(operator: Asking, many: int) -> None:
    asked = {"project": "shop", "services": [{"service": f"s{n}"} for n in range(many)]}
    answer = operator("POST", "/api/ports/batch", asked)
    assert answer.status_code == 400
    assert many == 0 or answer.json()["detail"] == "services: at most 500 services at once, not 501."
    assert not PortAllocation.objects.exists()


def test_any_zone_is_a_zone(operator: Asking) -> None:
    """PostgreSQL takes no offset of more than 16 hours; the moment is what counts."""
    asked = {"project": "shop", "port": FIRST, "expiresAt": "2027-01-02T00:00:00+23:59"}
    answer = operator("POST", "/api/reservations", asked)
    assert (answer.status_code, answer.json()["allocations"][0]["expiresAt"]) == (201, "2027-01-01T00:01:00+00:00")


def test_text_that_only_looks_like_a_nul_is_text(operator: Asking) -> None:
    given = operator("POST", "/api/ports", GOOD | {"metadata": {"path": "C:\\u0000"}})
    assert (given.status_code, given.json()["metadata"]) == (201, {"path": "C:\\u0000"})


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("/api/ports?limit=501", "limit: use a whole number from 1 to 500."),
        ("/api/ports/explain?port=abc", "port: use a whole number from 1 to 65535."),
        ("/api/ports?q=%00", "q: use text without control characters."),
    ],
)
def test_no_sentence_is_a_regular_expression(viewer: Asking, address: str, said: str) -> None:
    assert viewer("GET", address).json()["detail"] == said


def test_a_key_that_is_none(operator: Asking) -> None:
    answer = operator("POST", "/api/ports", GOOD, Idempotency_Key="a b")
    assert (answer.status_code, "1 to 255 printable ASCII characters" in answer.json()["detail"]) == (400, True)


@pytest.mark.parametrize(
    ("address", "sent", "field"),
    [
        ("/api/projects", {"name": "bank"}, "name"),
        ("/api/projects", {"name": "new", "size": 0}, "size"),
        ("/api/ranges", {"project": "shop", "name": "bank", "start": 61000, "end": 61001}, "name"),
        ("/api/reservations", {"project": "shop", "port": FIRST + 3, "lastPort": FIRST + 2}, "lastPort"),
    ],
)
def test_a_field_is_called_as_it_was_sent(admin: Asking, address: str, sent: dict[str, object], field: str) -> None:
    problem = admin("POST", address, sent).json()
    assert [e["field"] for e in problem["errors"]] == [field]
    if field == "size":
        assert problem["detail"] == "size 0 is not a number of ports from 1 to 65535."


@pytest.mark.parametrize("address", ["/api/openapi.json", "/api/docs"])
def test_the_description_takes_no_other_method(viewer: Asking, address: str) -> None:
    for client in (viewer.client, Client(enforce_csrf_checks=True)):
        assert client.post(address).status_code == 405


def test_what_changes_nothing_cannot_be_changed(operator: Asking, ports: PortManager) -> None:
    web = ports.allocate("shop", "web")
    for change in ({"port": 3}, {"hostname": "x"}, {"status": "released"}, {"project": "bank"}, {"service": None}):
        assert operator("PATCH", f"/api/ports/{web.pk}", change).status_code == 400
    expiry = operator("PATCH", f"/api/ports/{web.pk}", {"expiresAt": "2027-01-01T00:00:00Z"})
    assert expiry.status_code == 400
    assert "Only a reservation expires" in expiry.json()["detail"]


def test_a_crash_is_a_problem_too(viewer: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(PortManager, "summary", broken)
    viewer.client.raise_request_exception = False
    answer = viewer("GET", "/api/projects/shop/summary")
    assert (answer.status_code, answer["Content-Type"]) == (500, "application/problem+json")
    assert answer.json()["code"] == "internal_server_error"
    assert "ZeroDivision" not in answer.content.decode()
