"""Every address of the URL map and every operation of the OpenAPI file, asked by everybody who may not, and who may.

A route that is added fails here until the tables below know who may open it.
"""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from allocations.api.reference import description
from allocations.models import Event, PortAllocation, Token, UserLimit
from allocations.ports import PortManager
from tests.make import FIRST

pytestmark = pytest.mark.django_db

# Least role; `nobody` may open it without a login. Pages of one's own session need one, whatever its role.
PAGES = {
    "healthz": "nobody",
    "readyz": "nobody",
    "login": "nobody",
    "logout": "nobody",
    "metrics": "scraper",
    "mcp": "token",
    "api/docs": "viewer",
    "api/openapi.json": "viewer",
    "password": "session",
    "password/done": "session",
    "": "viewer",
    "audit": "viewer",
    "search": "viewer",
    "events": "viewer",
    "connect": "viewer",
    "tokens": "viewer",
    "tokens/<uuid:pk>/revoke": "viewer",
    "projects/<str:name>": "viewer",
    "allocations/<uuid:pk>": "viewer",
    "allocations/<uuid:pk>/row": "viewer",
    "ranges": "viewer",
    "listeners": "viewer",
    "projects/<str:name>/allocate": "operator",
    "projects/<str:name>/reserve": "operator",
    "allocations/<uuid:pk>/edit": "operator",
    "allocations/<uuid:pk>/release": "operator",
    "allocations/<uuid:pk>/approve": "operator",
    "allocations/<uuid:pk>/refuse": "operator",
    "listeners/adopt": "operator",
    "add-project": "admin",
    "projects/<str:name>/edit": "admin",
    "projects/<str:name>/delete": "admin",
    "ranges/add": "admin",
    "ranges/<uuid:pk>/edit": "admin",
    "ranges/<uuid:pk>/delete": "admin",
}
OPERATIONS = {
    ("get", "/api/ports/audit"): "viewer",
    ("get", "/api/ports/explain"): "viewer",
    ("get", "/api/ports"): "viewer",
    ("post", "/api/ports"): "operator",
    ("post", "/api/ports/batch"): "operator",
    ("post", "/api/reservations"): "operator",
    ("get", "/api/ports/{id}"): "viewer",
    ("patch", "/api/ports/{id}"): "operator",
    ("delete", "/api/ports/{id}"): "operator",
    ("get", "/api/projects"): "viewer",
    ("post", "/api/projects"): "admin",
    ("get", "/api/projects/{name}"): "viewer",
    ("patch", "/api/projects/{name}"): "admin",
    ("delete", "/api/projects/{name}"): "admin",
    ("get", "/api/projects/{name}/summary"): "viewer",
    ("get", "/api/ranges"): "viewer",
    ("post", "/api/ranges"): "admin",
    ("get", "/api/ranges/{id}"): "viewer",
    ("patch", "/api/ranges/{id}"): "admin",
    ("delete", "/api/ranges/{id}"): "admin",
    ("get", "/api/events"): "viewer",
    ("get", "/api/checks"): "viewer",
    ("get", "/api/discovery/prometheus"): "viewer",
    ("get", "/api/discovery/traefik"): "viewer",
}
ROLES = ["scraper", "viewer", "operator", "admin"]
SECRET = "vault-of-bank"


@pytest.fixture
def ports() -> PortManager:
    User.objects.create_superuser("root")  # an admin who is not limited stays
    manager = PortManager(actor="test")
    manager.add_project("shop", size=20, start=FIRST)
    manager.add_project("bank", size=20, start=FIRST + 100, description=SECRET)
    manager.allocate("shop", "web")
    return manager


@pytest.fixture
def vault(ports: PortManager) -> PortAllocation:
    return ports.allocate("bank", SECRET, cloudflare_hostname=f"{SECRET}.example.com")


def routes(resolver: URLResolver, before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for pattern in resolver.url_patterns:
        route = before + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            found |= routes(pattern, route)
        elif isinstance(pattern, URLPattern):
            found[route] = pattern
    return found


def is_operation(route: str) -> bool:
    return route.startswith("api/") and route not in PAGES


def test_every_route_is_known() -> None:
    found = set(routes(get_resolver()))
    pages = {r for r in found if not r.startswith("admin/") and not is_operation(r)}
    assert pages == set(PAGES)
    asked = {(m, a) for a, methods in description()["paths"].items() for m in methods}
    assert asked == set(OPERATIONS)
    told = {re.sub(r"<(\w+:)?(\w+)>", r"{\2}", "/" + r) for r in found if is_operation(r)} - {"/api/"}
    assert told == {address for _, address in OPERATIONS}


def client_of(text: str) -> Client:
    return Client(headers={"Authorization": f"Bearer {text}"})


def page_address(route: str, of: PortAllocation) -> str:
    pk = of.port_range_id if route.startswith("ranges/") else of.pk
    return "/" + route.replace("<str:name>", of.project.name).replace("<uuid:pk>", str(pk))


def good_body(method: str, address: str, of: PortAllocation) -> dict[str, Any]:
    """What would be done, were it allowed."""
    project = of.project.name
    return {
        ("post", "/api/ports"): {"project": project, "service": "late"},
        ("post", "/api/ports/batch"): {"project": project, "services": [{"service": "late"}]},
        ("post", "/api/reservations"): {"project": project, "port": of.port_number + 9},
        ("patch", "/api/ports/{id}"): {"description": "late"},
        ("post", "/api/projects"): {"name": "late"},
        ("patch", "/api/projects/{name}"): {"description": "late"},
        ("post", "/api/ranges"): {"project": project, "name": "late", "start": 61000, "end": 61001},
        ("patch", "/api/ranges/{id}"): {"description": "late"},
    }.get((method, address), {})


def ask(client: Client, method: str, address: str, of: PortAllocation) -> Any:
    id_ = of.port_range_id if "/ranges/" in address else of.pk
    query = {"/api/ports/explain": f"?port={of.port_number}", "/api/checks": f"?port={of.pk}"}.get(address, "")
    where = address.replace("{id}", str(id_)).replace("{name}", of.project.name) + query
    sent = json.dumps(good_body(method, address, of)) if method in ("post", "patch") else ""
    return client.generic(method.upper(), where, sent, content_type="application/json")


def closed_tokens(ports: PortManager) -> dict[str, str]:
    """Tokens that open nothing, each for another reason."""
    expired, revoked = ports.create_token("expired", role="admin"), ports.create_token("revoked", role="admin")
    Token.objects.filter(pk=expired[0].pk).update(expires_at=expired[0].created_at + timedelta(microseconds=1))
    ports.revoke_token(revoked[0].pk)
    return {
        "garbage": "garbage",
        "no such": "ptl_" + "a" * 8 + "_" + "b" * 46,
        "revoked": revoked[1],
        "expired": expired[1],
        "secret of another": expired[1][:13] + revoked[1][13:],
        "cut short": expired[1][:-1],
    }


@pytest.mark.parametrize(("method", "address"), OPERATIONS, ids=lambda v: v)
def test_operations(method: str, address: str, ports: PortManager, vault: PortAllocation) -> None:
    before = Event.objects.count()
    answers = {reason: ask(client_of(text), method, address, vault) for reason, text in closed_tokens(ports).items()}
    answers["nobody"] = ask(Client(), method, address, vault)
    for reason, answer in answers.items():
        assert answer.status_code == 401, reason
        assert answer["WWW-Authenticate"] == "Bearer"
        assert answer.content == answers["nobody"].content, "one and the same, whatever the cause"
    least = ROLES.index(OPERATIONS[method, address])
    for role in ROLES[:least]:
        answer = ask(client_of(ports.create_token(role, role=role)[1]), method, address, vault)
        assert (answer.status_code, answer.json()["code"]) == (403, "not_permitted"), role
    assert Event.objects.count() == before
    text = ports.create_token("able", role=OPERATIONS[method, address])[1]
    answer = ask(client_of(text), method, address, vault)
    assert answer.status_code in (200, 201, 204) or answer.json()["code"] in ("project_in_use", "range_in_use")


@pytest.mark.parametrize(("method", "address"), OPERATIONS, ids=lambda v: v)
def test_operations_of_another_project_do_not_exist(
    method: str, address: str, ports: PortManager, vault: PortAllocation
) -> None:
    """A caller who is limited to shop, of the highest role: bank answers as what never was."""
    PortManager(actor="audit").audit()
    text = ports.create_token("limited", role="admin", projects=["shop"])[1]
    before = Event.objects.count()
    answer = ask(client_of(text), method, address, vault)
    assert SECRET not in answer.content.decode()
    assert Event.objects.count() == before
    of_one = "{" in address or method == "post" or address == "/api/checks"
    if of_one and (method, address) != ("post", "/api/projects"):
        assert answer.status_code == 404
        if "{name}" not in address and method != "post":
            nowhere = PortAllocation(project=vault.project, port_range=vault.port_range, port_number=1, pk=uuid4())
            if "/ranges/" in address:
                nowhere.port_range_id = nowhere.pk
            never, shown = ask(client_of(text), method, address, nowhere).json(), answer.json()
            for one in (never, shown):
                one.pop("details", None)
            assert never == shown
    elif address == "/api/ports/explain":
        assert "another project" in answer.json()["explanation"]
        assert answer.json()["project"] is None


@pytest.mark.parametrize("route", [r for r, role in PAGES.items() if role not in ("nobody", "scraper", "token")])
def test_pages(route: str, ports: PortManager, vault: PortAllocation) -> None:
    address = page_address(route, vault)
    for asked in (Client(), client_of("garbage")):
        answer = asked.get(address)
        assert answer.status_code in (302, 401)
        assert SECRET not in answer.content.decode()
    if PAGES[route] == "session":
        return
    least = ROLES.index(PAGES[route])
    for role in ["", *ROLES[1:least]]:
        user = User.objects.create_user(f"a-{role}")
        user.groups.set(Group.objects.filter(name=role))
        client = Client()
        client.force_login(user)
        if not (route == "api/openapi.json" or route == "api/docs"):
            assert {client.get(address).status_code, client.post(address).status_code} <= {403, 405}, role


@pytest.mark.parametrize("route", [r for r, role in PAGES.items() if role in ("viewer", "operator", "admin")])
def test_pages_of_another_project_do_not_exist(route: str, ports: PortManager, vault: PortAllocation) -> None:
    user = User.objects.create_user("anna")
    user.groups.set(Group.objects.filter(name="admin"))
    UserLimit.objects.create(user=user).projects.set([ports.list("shop").get().project])
    client = Client()
    client.force_login(user)
    before = Event.objects.count()
    for answer in (client.get(page_address(route, vault)), client.post(page_address(route, vault))):
        assert SECRET not in answer.content.decode()
        if "<" in route:
            assert answer.status_code in (404, 405), answer.content.decode()
    assert Event.objects.count() == before


def test_a_limited_admin_sees_no_more_in_the_django_admin(ports: PortManager, vault: PortAllocation) -> None:
    PortManager(actor="audit").audit()
    user = User.objects.create_user("anna", is_staff=True)
    user.groups.set(Group.objects.filter(name="admin"))
    UserLimit.objects.create(user=user).projects.set([ports.list("shop").get().project])
    client = Client()
    client.force_login(user)
    for model in ("project", "portrange", "portallocation", "event", "audit", "porthealthcheck", "listener", "token"):
        listed = client.get(f"/admin/allocations/{model}/")
        assert listed.status_code == 200
        assert SECRET not in listed.content.decode(), model
    assert client.get(f"/admin/allocations/portallocation/{vault.pk}/change/").status_code == 302
    assert client.get("/admin/auth/user/").status_code == 403


def test_a_limit_to_nothing_is_no_freedom(ports: PortManager, vault: PortAllocation) -> None:
    user = User.objects.create_user("anna")
    user.groups.set(Group.objects.filter(name="admin"))
    UserLimit.objects.create(user=user)
    client = Client()
    client.force_login(user)
    assert client.get("/api/ports").json()["items"] == []
    assert SECRET not in client.get("/").content.decode()
