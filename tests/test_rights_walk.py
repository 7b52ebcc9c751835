"""Every address of the URL map and every operation of the OpenAPI file, asked by everybody who may not, and who may.

A route that is added fails here until the tables below know who may open it.
"""

from __future__ import annotations

import itertools
import json
import re
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from axes.models import AccessAttempt, AccessFailureLog, AccessLog
from django.contrib.admin import site
from django.contrib.auth.models import Group, User
from django.contrib.contenttypes.models import ContentType
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from allocations.api.reference import description
from allocations.models import Audit, Event, Listener, PortAllocation, Project, Token, UserLimit
from allocations.ports import PortManager
from tests.loops import in_a_thread_beside
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


class Rights(NamedTuple):
    """The least role of staff that may do it with a model's rows in the Django admin; None: none of Portal's."""

    view: str | None = "viewer"
    add: str | None = None
    change: str | None = None
    delete: str | None = None


OF_SUPERUSERS = Rights(view=None)
ADMIN_MODELS = {
    "allocations/project": Rights(add="admin", change="admin", delete="admin"),
    "allocations/portrange": Rights(add="admin", change="admin", delete="admin"),
    "allocations/portallocation": Rights(add="operator", change="operator"),
    "allocations/token": Rights(view="admin", add="admin"),
    "allocations/event": Rights(),
    "allocations/audit": Rights(),
    "allocations/porthealthcheck": Rights(),
    "allocations/listener": Rights(),
    "auth/group": OF_SUPERUSERS,
    "auth/user": OF_SUPERUSERS,
    "axes/accessattempt": OF_SUPERUSERS,
    "axes/accesslog": OF_SUPERUSERS,
    "axes/accessfailurelog": OF_SUPERUSERS,
}
# What GET and POST of each page of a model take.
ADMIN_PAGES = {
    "": ("view", "view"),
    "add/": ("add", "add"),
    "<path:object_id>/change/": ("view", "change"),
    "<path:object_id>/delete/": ("delete", "delete"),
    "<path:object_id>/history/": ("view", "view"),
}
# The site's own pages, with an address of each; anybody may come to those of the login.
ADMIN_SITE = {
    "": "",
    "password_change/": "password_change/",
    "password_change/done/": "password_change/done/",
    "autocomplete/": "autocomplete/?app_label=allocations&model_name=portallocation&field_name=project&term=",
    "jsi18n/": "jsi18n/",
    "r/<path:content_type_id>/<path:object_id>/": "r/{type}/{object}/",
    "^(?P<app_label>auth|allocations|axes)/$": "allocations/",
    "(?P<url>.*)$": "nowhere",
}
ADMIN_LOGIN = {"login/", "logout/"}
STAFF = ["viewer", "operator", "admin"]


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
    admin_pages = {f"{model}/{page}" for model in ADMIN_MODELS for page in (*ADMIN_PAGES, "<path:object_id>/")}
    admin_pages |= {"auth/user/<id>/password/", *ADMIN_SITE, *ADMIN_LOGIN}
    assert {r.removeprefix("admin/") for r in found if r.startswith("admin/")} == admin_pages
    asked = {(m, a) for a, methods in description()["paths"].items() for m in methods}
    assert asked == set(OPERATIONS)
    told = {re.sub(r"<(\w+:)?(\w+)>", r"{\2}", "/" + r) for r in found if is_operation(r)} - {"/api/"}
    assert told == {address for _, address in OPERATIONS}


def client_of(text: str) -> Client:
    return Client(headers={"Authorization": f"Bearer {text}"})


def member(role: str, *, staff: bool = False, limited: bool = False) -> Client:
    """A person of that role; of all projects, or of shop alone."""
    user = User.objects.create_user(f"a-{role}-{staff}-{limited}", is_staff=staff)
    user.groups.set(Group.objects.filter(name=role))
    if limited:
        UserLimit.objects.create(user=user).projects.set(Project.objects.filter(name="shop"))
    client = Client()
    client.force_login(user)
    return client


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


def limited(by: str, role: str, ports: PortManager) -> Client:
    """A program or a person of that role who is limited to shop."""
    if by == "session":
        return member(role, limited=True)
    return client_of(ports.create_token("limited", role=role, projects=["shop"])[1])


@pytest.mark.parametrize(("method", "address"), OPERATIONS, ids=lambda v: v)
@pytest.mark.parametrize("by", ["token", "session"])
@pytest.mark.parametrize("role", ["operator", "admin"])
def test_operations_of_another_project_do_not_exist(
    by: str, role: str, method: str, address: str, ports: PortManager, vault: PortAllocation
) -> None:
    """A caller who is limited to shop: bank answers as what never was."""
    PortManager(actor="audit").audit()
    client = limited(by, role, ports)
    before = Event.objects.count()
    answer = ask(client, method, address, vault)
    assert SECRET not in answer.content.decode()
    assert Event.objects.count() == before
    of_one = "{" in address or method == "post" or address == "/api/checks"
    if ROLES.index(role) < ROLES.index(OPERATIONS[method, address]):
        assert (answer.status_code, answer.json()["code"]) == (403, "not_permitted")
    elif of_one and (method, address) != ("post", "/api/projects"):
        assert answer.status_code == 404
        if "{name}" not in address and method != "post":
            assert without_details(answer) == without_details(ask(client, method, address, never_was(vault)))
    elif address == "/api/ports/explain":
        assert "another project" in answer.json()["explanation"]
        assert answer.json()["project"] is None


def never_was(vault: PortAllocation) -> PortAllocation:
    """An allocation whose id, and whose range's, nobody has."""
    found = PortAllocation(project=vault.project, port_range=vault.port_range, port_number=1, pk=uuid4())
    found.port_range_id = found.pk
    return found


def without_details(answer: Any) -> dict[str, Any]:
    """A refusal without the id that was asked for."""
    return {name: value for name, value in answer.json().items() if name != "details"}


@pytest.mark.parametrize("route", [r for r, role in PAGES.items() if role not in ("nobody", "scraper", "token")])
def test_pages(route: str, ports: PortManager, vault: PortAllocation) -> None:
    address = page_address(route, vault)
    closed = {reason: client_of(text) for reason, text in closed_tokens(ports).items()} | {"nobody": Client()}
    if not route.startswith("api/"):
        closed["token"] = client_of(ports.create_token("able", role="admin")[1])  # pages take a session
    for reason, asked in closed.items():
        for answer in (asked.get(address), asked.post(address)):
            assert answer.status_code in (302, 401, 405), reason
            assert answer.status_code != 302 or answer["Location"].startswith("/login?"), reason
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
@pytest.mark.parametrize("role", ["operator", "admin"])
def test_pages_of_another_project_do_not_exist(
    role: str, route: str, ports: PortManager, vault: PortAllocation
) -> None:
    client = limited("session", role, ports)
    before = Event.objects.count()
    for answer in (client.get(page_address(route, vault)), client.post(page_address(route, vault))):
        assert SECRET not in answer.content.decode()
        if ROLES.index(role) < ROLES.index(PAGES[route]):
            assert answer.status_code in (403, 405)
        elif "<" in route:
            assert answer.status_code in (404, 405), answer.content.decode()
    assert Event.objects.count() == before


# The metrics, and the door of agents


def test_metrics(ports: PortManager, vault: PortAllocation) -> None:
    ports.audit()
    closed = {reason: client_of(text) for reason, text in closed_tokens(ports).items()} | {"nobody": Client()}
    for reason, client in closed.items():
        answer = client.get("/metrics")
        assert (answer.status_code, answer["WWW-Authenticate"]) == (401, "Bearer"), reason
        assert answer.content == b"Send a token.\n"
    tokens = {role: client_of(ports.create_token(role, role=role)[1]) for role in ROLES}
    assert {role: client.get("/metrics").status_code for role, client in tokens.items()} == {
        **{"scraper": 200, "viewer": 403, "operator": 403, "admin": 200}
    }
    people = {role: member(role) for role in ("", "viewer", "operator", "admin")}
    assert {role: client.get("/metrics").status_code for role, client in people.items()} == {
        **{"": 403, "viewer": 403, "operator": 403, "admin": 200}
    }
    assert SECRET in tokens["scraper"].get("/metrics").content.decode()


@pytest.mark.parametrize("by", ["token", "session"])
def test_metrics_of_another_project_do_not_exist(by: str, ports: PortManager, vault: PortAllocation) -> None:
    ports.audit()
    told = limited(by, "admin", ports).get("/metrics").content.decode()
    assert 'project="shop"' in told
    assert "bank" not in told


TOOLS = {
    "list-ports": ("viewer", {"projectName": "bank"}),
    "audit-ports": ("viewer", {"projectName": "bank"}),
    "port-summary": ("viewer", {"projectName": "bank"}),
    "explain-port": ("viewer", {"projectName": "bank", "port": FIRST}),
    "get-port": ("operator", {"projectName": "bank", "serviceName": "late"}),
    "allocate-port": ("operator", {"projectName": "bank", "serviceName": "late"}),
    "update-port": ("operator", {"projectName": "bank", "serviceName": SECRET, "description": "late"}),
    "reserve-port": ("operator", {"projectName": "bank", "port": FIRST + 109}),
    "release-port": ("operator", {"projectName": "bank", "serviceName": SECRET}),
}


def tell_mcp(client: Client, method: str, **params: Any) -> Any:
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    accepts = {"Accept": "application/json, text/event-stream"}
    return in_a_thread_beside(lambda: client.post("/mcp", message, content_type="application/json", headers=accepts))


def is_refused(answer: Any) -> bool:
    """What a tool, or a resource, answers to who may not."""
    assert answer.status_code == 200
    told = answer.json()
    return "error" in told or told["result"].get("isError", False)


def test_mcp_takes_a_token_and_no_other(ports: PortManager, vault: PortAllocation) -> None:
    people = {role: member(role) for role in ("viewer", "operator", "admin")}
    closed = {reason: client_of(text) for reason, text in closed_tokens(ports).items()}
    for reason, client in ({"nobody": Client()} | people | closed).items():
        answer = tell_mcp(client, "tools/call", name="list-ports", arguments={})
        assert (answer.status_code, answer["WWW-Authenticate"]) == (401, "Bearer"), reason
        assert SECRET not in answer.content.decode()
    able = client_of(ports.create_token("able", role="viewer")[1])
    assert SECRET in tell_mcp(able, "tools/call", name="list-ports", arguments={}).content.decode()


def test_every_tool_is_known(ports: PortManager) -> None:
    offered = tell_mcp(client_of(ports.create_token("able")[1]), "tools/list").json()["result"]["tools"]
    assert {tool["name"] for tool in offered} == set(TOOLS)


@pytest.mark.parametrize("tool", TOOLS)
def test_tools(tool: str, ports: PortManager, vault: PortAllocation) -> None:
    least, arguments = TOOLS[tool]
    before = Event.objects.count()
    for role in ROLES[: ROLES.index(least)]:
        client = client_of(ports.create_token(role, role=role)[1])
        answer = tell_mcp(client, "tools/call", name=tool, arguments=arguments)
        assert is_refused(answer), role
        assert f"takes the role {least}" in answer.content.decode()
    assert Event.objects.count() == before
    able = client_of(ports.create_token("able", role=least)[1])
    assert not is_refused(tell_mcp(able, "tools/call", name=tool, arguments=arguments))


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("role", ["operator", "admin"])
def test_tools_of_another_project_do_not_exist(role: str, tool: str, ports: PortManager, vault: PortAllocation) -> None:
    client = limited("token", role, ports)
    before = Event.objects.count()
    answer = tell_mcp(client, "tools/call", name=tool, arguments=TOOLS[tool][1])
    assert is_refused(answer)
    assert "There is no project bank" in answer.content.decode()
    assert SECRET not in answer.content.decode()
    assert Event.objects.count() == before


@pytest.mark.parametrize("tool", ["list-ports", "audit-ports", "explain-port"])
def test_tools_tell_nothing_of_another_project(tool: str, ports: PortManager, vault: PortAllocation) -> None:
    """Those that take no project, or none that has to be named."""
    PortManager(actor="audit").audit()
    arguments = {"port": vault.port_number} if tool == "explain-port" else {}
    answer = tell_mcp(limited("token", "operator", ports), "tools/call", name=tool, arguments=arguments)
    assert not is_refused(answer)
    assert "bank" not in answer.content.decode()


def test_resources_of_another_project_do_not_exist(ports: PortManager, vault: PortAllocation) -> None:
    client = limited("token", "operator", ports)
    assert "bank" not in tell_mcp(client, "resources/read", uri="portal://projects").content.decode()
    answer = tell_mcp(client, "resources/read", uri="portal://projects/bank")
    assert is_refused(answer)
    assert SECRET not in answer.content.decode()


# The Django admin


@pytest.fixture
def of_bank(ports: PortManager, vault: PortAllocation) -> dict[str, Any]:
    """A row of each model of the admin, which somebody who is limited to shop must not see."""
    ports.audit("bank")
    elsewhere = {"hostname": f"{SECRET}.internal", "protocol": "tcp", "port": FIRST + 105}
    ports.allocate("bank", "other", **elsewhere | {"port": FIRST + 106})
    seen = {"username": SECRET, "ip_address": "192.0.2.1", "path_info": "/login"}
    return {
        "allocations/project": vault.project,
        "allocations/portrange": vault.port_range,
        "allocations/portallocation": vault,
        "allocations/token": ports.create_token(SECRET, role="viewer", projects=["bank"])[0],
        "allocations/event": Event.objects.filter(subject_id=vault.pk)[0],
        "allocations/audit": Audit.objects.get(),
        "allocations/porthealthcheck": vault.checks.get(),
        "allocations/listener": Listener.objects.create(**elsewhere, address="192.0.2.1", process=SECRET),
        "auth/group": Group.objects.get(name="admin"),
        "auth/user": User.objects.create_user("carla"),
        "axes/accessattempt": AccessAttempt.objects.create(**seen, failures_since_start=1),
        "axes/accesslog": AccessLog.objects.create(**seen),
        "axes/accessfailurelog": AccessFailureLog.objects.create(**seen),
    }


def outsiders(ports: PortManager) -> dict[str, Client]:
    """Who may not come into the Django admin at all: a token opens no page of it, whatever its role."""
    found = {role: member(role) for role in ("viewer", "operator", "admin")}
    return {"nobody": Client(), "token": client_of(ports.create_token("able", role="admin")[1]), **found}


def pages_of(model: str) -> dict[str, tuple[str, str]]:
    """What GET and POST of each page of the model take."""
    password = {"<path:object_id>/password/": ("change", "change")}
    return ADMIN_PAGES | (password if model == "auth/user" else {})


def admin_address(model: str, page: str, row: Any) -> str:
    return f"/admin/{model}/{page.replace('<path:object_id>', str(row.pk))}"


def everything() -> dict[str, list[Any]]:
    """All rows of the models of the admin."""
    return {m.__name__: list(m._base_manager.order_by("pk").values()) for m in site._registry}


def refuses_to_open(answer: Any) -> bool:
    return answer.status_code == 302 and answer["Location"].startswith(("/admin/login/?", "/login?"))


def denies(answer: Any) -> bool:
    """Whether it is refused, or the row is said not to exist; all else is a page, or the way to one."""
    assert answer.status_code in (200, 302, 403)
    return answer.status_code == 403 or answer.get("Location") == "/admin/"


def tells_of_bank(answer: Any) -> bool:
    return "bank" in answer.content.decode() + answer.get("Location", "")


@pytest.mark.parametrize("model", ADMIN_MODELS)
def test_the_admin_is_closed_to_who_is_no_staff(model: str, ports: PortManager, of_bank: dict[str, Any]) -> None:
    clients, before = outsiders(ports), everything()
    for page, (who, client) in itertools.product([*pages_of(model), "<path:object_id>/"], clients.items()):
        address = admin_address(model, page, of_bank[model])
        for answer in (client.get(address), client.post(address, {"post": "yes"})):
            assert refuses_to_open(answer), (who, address)
            assert SECRET not in answer.content.decode()
    assert everything() == before


@pytest.mark.parametrize("page", ADMIN_SITE)
def test_the_site_of_the_admin(page: str, ports: PortManager, vault: PortAllocation) -> None:
    kind = ContentType.objects.get_for_model(PortAllocation).pk
    address = "/admin/" + ADMIN_SITE[page].format(type=kind, object=vault.pk)
    for who, client in outsiders(ports).items():
        for answer in (client.get(address), client.post(address)):
            assert refuses_to_open(answer) or (page == "(?P<url>.*)$" and answer.status_code == 404), who
            assert SECRET not in answer.content.decode()
    client = member("admin", staff=True, limited=True)
    for answer in (client.get(address), client.post(address)):
        assert answer.status_code in (200, 302, 403, 404, 405)
        assert not refuses_to_open(answer)
        assert not tells_of_bank(answer)


@pytest.mark.parametrize("model", ADMIN_MODELS)
@pytest.mark.parametrize("role", STAFF)
def test_staff_may_in_the_admin_what_their_role_may(role: str, model: str, of_bank: dict[str, Any]) -> None:
    client = member(role, staff=True)
    before = everything()
    for page, rights in pages_of(model).items():
        address = admin_address(model, page, of_bank[model])
        for right, answer in zip(rights, (client.get(address), client.post(address, {"post": "yes"})), strict=True):
            least = getattr(ADMIN_MODELS[model], right)
            may = least is not None and ROLES.index(role) >= ROLES.index(least)
            assert denies(answer) != may, (right, address)
            assert may or SECRET not in answer.content.decode()
    assert everything() == before


@pytest.mark.parametrize("model", ADMIN_MODELS)
def test_limited_staff_see_nothing_of_another_project_in_the_admin(model: str, of_bank: dict[str, Any]) -> None:
    client = member("admin", staff=True, limited=True)
    before = everything()
    for page in pages_of(model):
        address = admin_address(model, page, of_bank[model])
        for answer in (client.get(address), client.post(address, {"post": "yes"})):
            assert not tells_of_bank(answer), address
            if page.startswith("<"):
                assert denies(answer), address
    assert everything() == before


@pytest.mark.parametrize("model", ADMIN_MODELS)
@pytest.mark.parametrize("role", ["viewer", "limited admin"])
def test_actions_of_the_admin_take_the_right(role: str, model: str, of_bank: dict[str, Any]) -> None:
    client = member(role.split()[-1], staff=True, limited="limited" in role)
    before = everything()
    names = {"delete_selected", *(name for model_admin in site._registry.values() for name in model_admin.actions)}
    for name in names:
        chosen = {"action": name, "_selected_action": of_bank[model].pk, "confirmed": "1", "post": "yes"}
        answer = client.post(admin_address(model, "", of_bank[model]), chosen)
        assert answer.status_code in (200, 302, 403)
    assert everything() == before


# The lists of audits and checks have no order, which Django warns of.
@pytest.mark.filterwarnings("ignore::django.core.paginator.UnorderedObjectListWarning")
def test_no_list_that_is_filled_while_one_types_offers_another_project(of_bank: dict[str, Any]) -> None:
    client = member("admin", staff=True, limited=True)
    opened = {}
    for model in site._registry:
        for field in (*model._meta.fields, *model._meta.many_to_many):
            about = {"app_label": model._meta.app_label, "model_name": model._meta.model_name, "field_name": field.name}
            answer = client.get("/admin/autocomplete/", about | {"term": ""})
            assert answer.status_code in (200, 403), field
            assert not tells_of_bank(answer), field
            if answer.status_code == 200:
                opened[str(field)] = [row["text"] for row in answer.json()["results"]]
    assert opened["allocations.PortAllocation.project"] == ["shop"]


def test_a_limit_to_nothing_is_no_freedom(ports: PortManager, vault: PortAllocation) -> None:
    user = User.objects.create_user("anna")
    user.groups.set(Group.objects.filter(name="admin"))
    UserLimit.objects.create(user=user)
    client = Client()
    client.force_login(user)
    assert client.get("/api/ports").json()["items"] == []
    assert SECRET not in client.get("/").content.decode()
