"""Every call of the table of spec section 6, as a program makes it."""

from __future__ import annotations

import socket
import uuid
from datetime import timedelta

import pytest
from django.utils import timezone

from allocations.models import Audit, PortAllocation
from allocations.ports import PortManager
from tests.make import FIRST

from .conftest import Asking

pytestmark = pytest.mark.django_db


def test_allocate_is_safe_to_repeat(operator: Asking) -> None:
    asked = {"project": "shop", "service": "api", "serviceType": "api", "metadata": {"git": "abc"}}
    first, again = operator("POST", "/api/ports", asked), operator("POST", "/api/ports", asked)
    assert (first.status_code, again.status_code) == (201, 200)
    made = first.json()
    assert (made["port"], made["created"], made["serviceType"], made["metadata"]) == (
        FIRST,
        True,
        "api",
        {"git": "abc"},
    )
    assert again.json() == made | {"created": False}
    assert first["Location"] == f"/api/ports/{made['id']}"
    assert operator("GET", first["Location"]).json()["port"] == FIRST


def test_new_is_always_new(operator: Asking) -> None:
    asked = {"project": "shop", "service": "api", "new": True}
    assert [operator("POST", "/api/ports", asked).json()["port"] for _ in range(2)] == [FIRST, FIRST + 1]


def test_that_port_or_a_refusal(operator: Asking, web: PortAllocation) -> None:
    asked = {"project": "shop", "service": "api", "port": FIRST + 7}
    assert operator("POST", "/api/ports", asked).json()["port"] == FIRST + 7
    taken = operator("POST", "/api/ports", asked | {"service": "other"})
    assert (taken.status_code, taken.json()["code"]) == (409, "port_taken")
    assert "shop/api" in taken.json()["detail"]
    moved = operator("POST", "/api/ports", asked | {"port": FIRST + 8})
    assert (moved.status_code, moved.json()["code"]) == (409, "already_allocated")


def test_adopt(operator: Asking) -> None:
    asked = {"project": "shop", "service": "api", "port": FIRST + 3}
    with socket.create_server(("127.0.0.1", FIRST + 3)):
        assert operator("POST", "/api/ports", asked).json()["code"] == "port_taken"
        assert operator("POST", "/api/ports", asked | {"adopt": True}).status_code == 201
    assert operator("POST", "/api/ports", {"project": "shop", "service": "b", "adopt": True}).status_code == 400


def test_many_at_once_are_all_or_none(operator: Asking, web: PortAllocation) -> None:
    asked = {"project": "shop", "services": [{"service": "web"}, {"service": "api"}, {"service": "db"}]}
    answer = operator("POST", "/api/ports/batch", asked)
    assert (answer.status_code, answer.json()["created"]) == (201, 2)
    assert [a["port"] for a in answer.json()["allocations"]] == [FIRST, FIRST + 1, FIRST + 2]
    assert operator("POST", "/api/ports/batch", asked).status_code == 200
    held = PortAllocation.objects.held().count()
    refused = operator(
        "POST", "/api/ports/batch", {"project": "shop", "services": [{"service": "x"}, {"service": "y", "port": FIRST}]}
    )
    assert (refused.status_code, refused.json()["code"]) == (409, "port_taken")
    assert refused.json()["errors"][0]["field"] == "services.1.port"
    too_many = {"project": "shop", "services": [{"service": f"s{n}"} for n in range(30)]}
    full = operator("POST", "/api/ports/batch", too_many)
    assert (full.status_code, full.json()["details"]["index"]) == (409, 17)
    wrong = operator(
        "POST", "/api/ports/batch", {"project": "shop", "services": [{"service": "ok"}, {"service": "NO"}]}
    )
    assert wrong.json()["errors"][0]["field"] == "services.1.service"
    for more, field in (({"port": 9}, "port"), ({"range": "nope"}, "range"), ({"range": "bank"}, "range")):
        asked = {"project": "shop", "services": [{"service": "x"}, {"service": "y", **more}]}
        elsewhere = operator("POST", "/api/ports/batch", asked).json()
        assert (elsewhere["errors"][0]["field"], elsewhere["details"]["index"]) == (f"services.1.{field}", 1)
    assert PortAllocation.objects.held().count() == held


def test_list_filters_and_pages(viewer: Asking, ports: PortManager, vault: PortAllocation) -> None:
    for n in range(5):
        ports.allocate("shop", f"s{n}")
    ports.reserve("shop", FIRST + 15, note="later")
    assert [a["service"] for a in viewer("GET", "/api/ports?project=bank").json()["items"]] == ["vault"]
    assert len(viewer("GET", "/api/ports?status=reserved").json()["items"]) == 1
    assert [a["port"] for a in viewer("GET", "/api/ports?service=s2&host=localhost&protocol=tcp").json()["items"]] == [
        FIRST + 2
    ]
    assert [a["service"] for a in viewer("GET", "/api/ports?q=vault.example").json()["items"]] == ["vault"]
    seen, address = [], "/api/ports?limit=3"
    while address:
        page = viewer("GET", address)
        seen += [a["port"] for a in page.json()["items"]]
        address = page["Link"].split(">")[0].removeprefix("<http://testserver") if "Link" in page else ""
        if address:
            assert page["Link"].endswith('; rel="next"')
            assert page.json()["next"] in address.replace("%3A", ":")
    assert seen == [FIRST, FIRST + 1, FIRST + 2, FIRST + 3, FIRST + 4, FIRST + 15, FIRST + 100]


def test_what_has_expired_is_no_reservation_any_more(viewer: Asking, ports: PortManager) -> None:
    ports.reserve("shop", FIRST + 15)
    PortAllocation.objects.update(expires_at="2020-01-01T00:00:00Z")
    assert viewer("GET", "/api/ports?status=reserved").json()["items"] == []


@pytest.mark.parametrize("address", ["/api/ports", "/api/ranges", "/api/events"])
def test_a_project_that_is_misspelt_is_told(of_shop: Asking, address: str) -> None:
    """An empty list would say that it has nothing."""
    assert of_shop("GET", f"{address}?project=shop").status_code == 200
    for name in ("shpo", "bank"):
        refused = of_shop("GET", f"{address}?project={name}")
        assert (refused.status_code, refused.json()["code"]) == (404, "unknown_project")
    assert "Did you mean shop?" in of_shop("GET", f"{address}?project=shpo").json()["detail"]


@pytest.mark.parametrize("address", ["/api/ports", "/api/projects/shop", "/api/ports/audit", "/api/projects/nope"])
def test_monitors_may_ask_by_head(viewer: Asking, address: str) -> None:
    asked, got = viewer("HEAD", address), viewer("GET", address)
    assert (asked.status_code, asked.content) == (got.status_code, b"")
    assert asked["Content-Type"] == got["Content-Type"]
    assert asked["Content-Length"] == str(len(got.content))


def test_what_comes_meanwhile_does_not_shift_pages(viewer: Asking, ports: PortManager) -> None:
    for n in range(4):
        ports.allocate("shop", f"s{n}", port=FIRST + 2 * n)
    first = viewer("GET", "/api/ports?limit=2").json()
    ports.allocate("shop", "between", port=FIRST + 1)
    second = viewer("GET", f"/api/ports?limit=2&cursor={first['next']}").json()
    assert [a["port"] for a in second["items"]] == [FIRST + 4, FIRST + 6]
    assert second["next"] is None


LISTS = ("/api/ports", "/api/projects", "/api/ranges", "/api/events")


@pytest.mark.parametrize("other", LISTS)
@pytest.mark.parametrize("address", LISTS)
def test_a_cursor_opens_no_other_list(viewer: Asking, web: PortAllocation, address: str, other: str) -> None:
    if address == "/api/ports":
        PortManager(actor="test").allocate("shop", "second")
    cursor = viewer("GET", f"{address}?limit=1").json()["next"]
    answer = viewer("GET", f"{other}?cursor={cursor}")
    if address == other:
        assert answer.status_code == 200
    else:
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "cursor")


def test_change_and_release(operator: Asking, web: PortAllocation) -> None:
    address = f"/api/ports/{web.pk}"
    changed = operator(
        "PATCH", address, {"service": "shopfront", "description": "New", "cloudflareHostname": "shop.example.com"}
    )
    assert changed.status_code == 200
    assert (changed.json()["service"], changed.json()["cloudflareHostname"]) == ("shopfront", "shop.example.com")
    assert operator("PATCH", address, {"cloudflareHostname": None}).json()["cloudflareHostname"] is None
    assert operator("PATCH", address, {}).json()["description"] == "New"
    released = operator("DELETE", address)
    assert (released.status_code, released.json()["status"]) == (200, "released")
    again = operator("DELETE", address)
    assert (again.status_code, again.json()["code"]) == (409, "already_released")
    assert operator("PATCH", address, {"description": "x"}).status_code == 409


def test_who_has_seen_it_otherwise_changes_nothing(operator: Asking, web: PortAllocation) -> None:
    address = f"/api/ports/{web.pk}"
    seen = operator("GET", address)["ETag"]
    after = operator("PATCH", address, {"description": "mine"}, If_Match=seen)
    assert after.status_code == 200
    assert after["ETag"] != seen
    for method, body in (("PATCH", {"description": "theirs"}), ("DELETE", None)):
        stale = operator(method, address, body, If_Match=seen)
        assert (stale.status_code, stale.json()["code"]) == (412, "stale")
    assert operator("DELETE", address, If_Match=f'"x", {after["ETag"]}').status_code == 200


def test_an_audit_is_no_edit(operator: Asking, web: PortAllocation) -> None:
    address = f"/api/ports/{web.pk}"
    seen = operator("GET", address)["ETag"]
    operator("GET", "/api/ports/audit")
    web.refresh_from_db()
    assert web.health == "down"
    assert operator("PATCH", address, {"description": "mine"}, If_Match=seen).status_code == 200


def test_audit_is_the_payload_that_was_promised(viewer: Asking, web: PortAllocation, vault: PortAllocation) -> None:
    with socket.create_server(("127.0.0.1", FIRST)), socket.create_server(("127.0.0.1", FIRST + 9)):
        answer = viewer("GET", "/api/ports/audit")
    assert answer.json() == {
        "success": True,
        "summary": {"allocated": 2, "inUse": 1, "notRunning": 1, "healthPercentage": 50},
        "conflicts": [{"port": FIRST + 100, "expected": "bank/vault", "actual": "not running"}],
        "unallocated": [
            {
                "port": FIRST + 9,
                "hostname": "localhost",
                "protocol": "tcp",
                "process": answer.json()["unallocated"][0]["process"],
                "project": "shop",
            }
        ],
    }
    assert answer.json()["unallocated"][0]["process"]
    strict = viewer("GET", "/api/ports/audit?strict=1")
    assert (strict.status_code, strict.json()) == (503, answer.json())
    assert viewer("GET", "/api/ports/audit?strict=1&project=shop").status_code == 200
    assert viewer("GET", "/api/ports/audit?project=shop").json()["summary"]["allocated"] == 1
    assert Audit.objects.count() == 1, "asked again within two seconds"


def test_explain(viewer: Asking, web: PortAllocation) -> None:
    found = viewer("GET", f"/api/ports/explain?port={FIRST}").json()
    assert (found["project"], found["allocation"]["service"]) == ("shop", "web")
    assert "nobody else's process is to be stopped" in found["nextStep"]


def test_reserve(operator: Asking) -> None:
    soon = (timezone.now() + timedelta(days=9)).replace(microsecond=0)
    one = operator(
        "POST",
        "/api/reservations",
        {"project": "shop", "port": FIRST + 5, "note": "soon", "expiresAt": soon.isoformat().replace("+00:00", "Z")},
    )
    assert (one.status_code, one.json()["allocations"][0]["status"]) == (201, "reserved")
    assert one.json()["allocations"][0]["expiresAt"] == soon.isoformat()
    block = operator("POST", "/api/reservations", {"project": "shop", "port": FIRST + 6, "lastPort": FIRST + 8})
    assert [a["port"] for a in block.json()["allocations"]] == [FIRST + 6, FIRST + 7, FIRST + 8]
    taken = operator("POST", "/api/reservations", {"project": "shop", "port": FIRST + 4, "lastPort": FIRST + 6})
    assert (taken.status_code, taken.json()["code"]) == (409, "port_taken")
    named = operator("PATCH", one["Location"], {"service": "web"})
    assert (named.status_code, named.json()["errors"][0]["field"]) == (400, "service")
    later = (soon + timedelta(days=9)).isoformat()
    assert operator("PATCH", one["Location"], {"expiresAt": later}).json()["expiresAt"] == later
    assert operator("DELETE", one["Location"]).json()["status"] == "released"


def test_projects(admin: Asking, web: PortAllocation) -> None:
    made = admin("POST", "/api/projects", {"name": "mail", "size": 50, "description": "Post"})
    assert (made.status_code, made["Location"]) == (201, "/api/projects/mail")
    assert admin("GET", "/api/projects/mail/summary").json()["summary"]["totalPorts"] == 50
    assert [p["name"] for p in admin("GET", "/api/projects").json()["items"]] == ["bank", "mail", "shop"]
    seen = admin("GET", "/api/projects/mail")["ETag"]
    assert admin("PATCH", "/api/projects/mail", {"name": "post"}, If_Match=seen).json()["name"] == "post"
    assert admin("PATCH", "/api/projects/post", {"description": "x"}, If_Match=seen).status_code == 412
    assert admin("DELETE", "/api/projects/post").status_code == 204
    assert admin("GET", "/api/projects/post").status_code == 404
    used = admin("DELETE", "/api/projects/shop")
    assert (used.status_code, used.json()["code"]) == (409, "project_in_use")
    assert admin("POST", "/api/projects", {"name": "shop"}).json()["code"] == "name_taken"


def test_summary_is_the_payload_that_was_promised(viewer: Asking, web: PortAllocation) -> None:
    numbers = viewer("GET", "/api/projects/shop/summary").json()
    assert numbers["success"] is True
    wanted = {"rangeStart": FIRST, "rangeEnd": FIRST + 19, "totalPorts": 20, "allocatedPorts": 1, "availablePorts": 19}
    assert wanted.items() <= numbers["summary"].items()
    assert numbers["summary"]["utilizationPercent"] == 5


def test_ranges(admin: Asking, web: PortAllocation) -> None:
    asked = {"project": "shop", "name": "late", "start": FIRST + 50, "end": FIRST + 59}
    made = admin("POST", "/api/ranges", asked)
    assert (made.status_code, made.json()["shared"]) == (201, False)
    assert admin("GET", "/api/ranges?project=shop").json()["items"][1] == made.json()
    over = admin("POST", "/api/ranges", asked | {"name": "over"})
    assert (over.status_code, over.json()["code"]) == (409, "range_overlap")
    assert "late" in over.json()["detail"]
    changed = admin("PATCH", made["Location"], {"end": FIRST + 69, "shared": True})
    assert (changed.json()["end"], changed.json()["shared"]) == (FIRST + 69, True)
    stranded = admin("PATCH", f"/api/ranges/{web.port_range_id}", {"start": FIRST + 1})
    assert (stranded.status_code, stranded.json()["details"]["ports"]) == (409, [FIRST])
    assert admin("DELETE", made["Location"]).status_code == 204
    assert admin("DELETE", f"/api/ranges/{web.port_range_id}").json()["code"] == "range_in_use"
    upside_down = admin("POST", "/api/ranges", asked | {"end": FIRST + 1})
    assert upside_down.status_code == 400


def test_history(viewer: Asking, operator: Asking, web: PortAllocation) -> None:
    operator("PATCH", f"/api/ports/{web.pk}", {"description": "x"})
    newest = viewer("GET", "/api/events?project=shop&limit=1").json()["items"][0]
    assert (newest["actor"], newest["source"], newest["verb"]) == ("operator", "api", "updated")
    assert newest["changes"] == {"description": ["", "x"]}
    of_it = viewer("GET", f"/api/events?subject={web.pk}").json()["items"]
    assert [e["verb"] for e in of_it] == ["updated", "allocated"]


def test_checks(viewer: Asking, web: PortAllocation) -> None:
    with socket.create_server(("127.0.0.1", FIRST)):
        viewer("GET", "/api/ports/audit")
    told = viewer("GET", f"/api/checks?port={web.pk}").json()
    assert told["uptime"] == {"checks": 1, "up": 1, "percentage": 100.0}
    assert told["items"][0]["status"] == "up"
    assert viewer("GET", f"/api/checks?port={uuid.uuid4()}").status_code == 404


def test_discovery(viewer: Asking, web: PortAllocation, vault: PortAllocation) -> None:
    groups = viewer("GET", "/api/discovery/prometheus").json()
    assert [g["targets"] for g in groups] == [[f"localhost:{FIRST}"], [f"localhost:{FIRST + 100}"]]
    assert groups[0]["labels"]["__meta_portal_service"] == "web"
    routed = viewer("GET", "/api/discovery/traefik").json()["http"]
    (name,) = routed["routers"]
    assert routed["routers"][name] == {"rule": "Host(`vault.example.com`)", "service": name}
    assert routed["services"][name]["loadBalancer"]["servers"] == [{"url": f"http://localhost:{FIRST + 100}"}]
    assert viewer("GET", "/api/discovery/traefik?project=shop").json() == {}


class TestIdempotencyKey:
    def test_the_same_request_gets_the_same_answer(self, operator: Asking) -> None:
        asked = {"project": "shop", "service": "api", "new": True}
        first = operator("POST", "/api/ports", asked, Idempotency_Key="a1")
        again = operator("POST", "/api/ports", asked, Idempotency_Key="a1")
        assert (first.status_code, again.status_code) == (201, 201)
        assert again.json() == first.json()
        assert (again["Location"], again["Idempotency-Replayed"]) == (first["Location"], "true")
        assert PortAllocation.objects.count() == 1
        assert operator("POST", "/api/ports", asked, Idempotency_Key="a2").json()["port"] == FIRST + 1

    def test_another_request_under_the_same_key_is_refused(self, operator: Asking) -> None:
        asked = {"project": "shop", "service": "api"}
        operator("POST", "/api/ports", asked, Idempotency_Key="a1")
        for address, other in (
            ("/api/ports", asked | {"service": "b"}),
            ("/api/reservations", {"project": "shop", "port": FIRST + 9}),
        ):
            refused = operator("POST", address, other, Idempotency_Key="a1")
            assert (refused.status_code, refused.json()["code"]) == (422, "key_reused")

    def test_keys_of_others_are_others(self, operator: Asking, admin: Asking) -> None:
        asked = {"project": "shop", "service": "api", "new": True}
        ports = [ask("POST", "/api/ports", asked, Idempotency_Key="a1").json()["port"] for ask in (operator, admin)]
        assert ports == [FIRST, FIRST + 1]

    def test_a_refusal_is_not_remembered(self, operator: Asking, web: PortAllocation) -> None:
        asked = {"project": "shop", "service": "api", "port": FIRST}
        assert operator("POST", "/api/ports", asked, Idempotency_Key="a1").status_code == 409
        operator("DELETE", f"/api/ports/{web.pk}")
        assert operator("POST", "/api/ports", asked, Idempotency_Key="a1").status_code == 201

    def test_a_key_is_printable(self, operator: Asking) -> None:
        asked = {"project": "shop", "service": "api"}
        for key in ("", " ", "a b", "x" * 256):
            assert operator("POST", "/api/ports", asked, Idempotency_Key=key).status_code == 400
