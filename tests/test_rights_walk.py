"""Who may open each page, API operation, MCP tool and page of the Django admin, and who may not.

A new route fails here until the tables below say who may open it.
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
from django.contrib.auth.models import Group
from django.contrib.contenttypes.models import ContentType
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from allocations.api.docs import description
from allocations.models import Audit, Event, Listener, PortAllocation, PortRange, Token
from allocations.ports import PortManager, hosts, projects, tokens
from tests.loops import in_a_thread_beside
from tests.make import FIRST
from tests.users import client_with_role, superuser, user_with_role

pytestmark = pytest.mark.django_db

# The lowest role that may open each page. `nobody` needs no login; `session` needs one with any role.
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
    """The lowest role that staff need for each action on a model in the Django admin. None: no role is enough."""

    view: str | None = "viewer"
    add: str | None = None
    change: str | None = None
    delete: str | None = None


SUPERUSERS_ONLY = Rights(view=None)
ADMIN_MODELS = {
    "allocations/project": Rights(add="admin", change="admin", delete="admin"),
    "allocations/portrange": Rights(add="admin", change="admin", delete="admin"),
    "allocations/portallocation": Rights(add="operator", change="operator"),
    "allocations/token": Rights(view="admin", add="admin"),
    "allocations/event": Rights(),
    "allocations/audit": Rights(),
    "allocations/porthealthcheck": Rights(),
    "allocations/listener": Rights(),
    "allocations/host": Rights(view="admin", add="admin", delete="admin"),
    "auth/group": SUPERUSERS_ONLY,
    "auth/user": SUPERUSERS_ONLY,
    "axes/accessattempt": SUPERUSERS_ONLY,
    "axes/accesslog": SUPERUSERS_ONLY,
    "axes/accessfailurelog": SUPERUSERS_ONLY,
}
# The rights that GET and POST of each page of a model require.
ADMIN_PAGES = {
    "": ("view", "view"),
    "add/": ("add", "add"),
    "<path:object_id>/change/": ("view", "change"),
    "<path:object_id>/history/": ("view", "view"),
    "<path:object_id>/delete/": ("delete", "delete"),  # last, because it may delete the row
}
# The pages of the admin site itself, with an address of each. Anybody may open the pages in ADMIN_LOGIN.
ADMIN_SITE = {
    "": "",
    "password_change/": "password_change/",
    "password_change/done/": "password_change/done/",
    "autocomplete/": "autocomplete/?app_label=allocations&model_name=portallocation&field_name=project&term=",
    "jsi18n/": "jsi18n/",
    "r/<path:content_type_id>/<path:object_id>/": "r/{type}/{object}/",
    "^(?P<app_label>allocations|auth|axes)/$": "allocations/",
    "(?P<url>.*)$": "nowhere",
}
ADMIN_LOGIN = {"login/", "logout/"}
STAFF = ["viewer", "operator", "admin"]


@pytest.fixture
def ports(ports: PortManager, bank: PortRange, web: PortAllocation) -> PortManager:
    """Return the shared manager, after adding an admin who is not limited, whom Portal requires, and a secret."""
    superuser()
    projects.update(ports.context, "bank", description=SECRET)
    return ports


@pytest.fixture
def vault(ports: PortManager) -> PortAllocation:
    return ports.allocate("bank", SECRET, cloudflare_hostname=f"{SECRET}.example.com")


def routes(resolver: URLResolver, before: str = "") -> dict[str, Any]:
    patterns: dict[str, Any] = {}
    for pattern in resolver.url_patterns:
        route = before + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            patterns |= routes(pattern, route)
        elif isinstance(pattern, URLPattern):
            patterns[route] = pattern
    return patterns


def is_operation(route: str) -> bool:
    return route.startswith("api/") and route not in PAGES


def test_every_route_is_listed() -> None:
    all_routes = set(routes(get_resolver()))
    pages = {r for r in all_routes if not r.startswith("admin/") and not is_operation(r)}
    assert pages == set(PAGES)
    admin_pages = {f"{model}/{page}" for model in ADMIN_MODELS for page in (*ADMIN_PAGES, "<path:object_id>/")}
    admin_pages |= {"auth/user/<id>/password/", *ADMIN_SITE, *ADMIN_LOGIN}
    assert {r.removeprefix("admin/") for r in all_routes if r.startswith("admin/")} == admin_pages
    described_operations = {(m, a) for a, methods in description()["paths"].items() for m in methods}
    assert described_operations == set(OPERATIONS)
    addresses = {re.sub(r"<(\w+:)?(\w+)>", r"{\2}", "/" + r) for r in all_routes if is_operation(r)} - {"/api/"}
    assert addresses == {address for _, address in OPERATIONS}


def client_of(text: str) -> Client:
    return Client(headers={"Authorization": f"Bearer {text}"})


def member(role: str, *, staff: bool = False, limited: bool = False) -> Client:
    """Return the client of a user with a role, optionally limited to shop."""
    name = f"a-{role}-{staff}-{limited}"
    return client_with_role(role, name=name, is_staff=staff, limited_to=["shop"] if limited else None)


def page_address(route: str, allocation: PortAllocation) -> str:
    pk = allocation.port_range_id if route.startswith("ranges/") else allocation.pk
    return "/" + route.replace("<str:name>", allocation.project.name).replace("<uuid:pk>", str(pk))


def valid_body(method: str, address: str, allocation: PortAllocation) -> dict[str, Any]:
    """Return a valid body for an operation."""
    project = allocation.project.name
    return {
        ("post", "/api/ports"): {"project": project, "service": "late"},
        ("post", "/api/ports/batch"): {"project": project, "services": [{"service": "late"}]},
        ("post", "/api/reservations"): {"project": project, "port": allocation.port_number + 9},
        ("patch", "/api/ports/{id}"): {"description": "late"},
        ("post", "/api/projects"): {"name": "late"},
        ("patch", "/api/projects/{name}"): {"description": "late"},
        ("post", "/api/ranges"): {"project": project, "name": "late", "start": 61000, "end": 61001},
        ("patch", "/api/ranges/{id}"): {"description": "late"},
    }.get((method, address), {})


def send(client: Client, method: str, address: str, allocation: PortAllocation) -> Any:
    id_ = allocation.port_range_id if "/ranges/" in address else allocation.pk
    query = {"/api/ports/explain": f"?port={allocation.port_number}", "/api/checks": f"?port={allocation.pk}"}.get(
        address, ""
    )
    where = address.replace("{id}", str(id_)).replace("{name}", allocation.project.name) + query
    body = json.dumps(valid_body(method, address, allocation)) if method in ("post", "patch") else ""
    return client.generic(method.upper(), where, body, content_type="application/json")


def invalid_tokens(ports: PortManager) -> dict[str, str]:
    """Return invalid tokens, by the reason why they are invalid."""
    expired, revoked = (
        tokens.create(ports.context, "expired", role="admin"),
        tokens.create(ports.context, "revoked", role="admin"),
    )
    Token.objects.filter(pk=expired[0].pk).update(expires_at=expired[0].created_at + timedelta(microseconds=1))
    tokens.revoke(ports.context, revoked[0].pk)
    return {
        "garbage": "garbage",
        "unknown": "ptl_" + "a" * 8 + "_" + "b" * 46,
        "revoked": revoked[1],
        "expired": expired[1],
        "wrong secret": expired[1][:13] + revoked[1][13:],
        "incomplete": expired[1][:-1],
    }


@pytest.mark.parametrize(("method", "address"), OPERATIONS, ids=lambda v: v)
def test_operations_require_a_role(method: str, address: str, ports: PortManager, vault: PortAllocation) -> None:
    before = Event.objects.count()
    answers = {reason: send(client_of(text), method, address, vault) for reason, text in invalid_tokens(ports).items()}
    answers["nobody"] = send(Client(), method, address, vault)
    for reason, answer in answers.items():
        assert answer.status_code == 401, reason
        assert answer["WWW-Authenticate"] == "Bearer"
        assert answer.content == answers["nobody"].content, "the answer reveals the reason"
    least = ROLES.index(OPERATIONS[method, address])
    for role in ROLES[:least]:
        answer = send(client_of(tokens.create(ports.context, role, role=role)[1]), method, address, vault)
        assert (answer.status_code, answer.json()["code"]) == (403, "not_permitted"), role
    assert Event.objects.count() == before
    text = tokens.create(ports.context, "able", role=OPERATIONS[method, address])[1]
    answer = send(client_of(text), method, address, vault)
    assert answer.status_code in (200, 201, 204) or answer.json()["code"] in ("project_in_use", "range_in_use")


def limited(by: str, role: str, ports: PortManager) -> Client:
    """Return a client with a role, limited to shop, that uses a token or a session."""
    if by == "session":
        return member(role, limited=True)
    return client_of(tokens.create(ports.context, "limited", role=role, projects=["shop"])[1])


@pytest.mark.parametrize(("method", "address"), OPERATIONS, ids=lambda v: v)
@pytest.mark.parametrize("by", ["token", "session"])
@pytest.mark.parametrize("role", ["operator", "admin"])
def test_operations_hide_other_projects(
    by: str, role: str, method: str, address: str, ports: PortManager, vault: PortAllocation
) -> None:
    """To a caller who is limited to shop, bank looks as if it did not exist."""
    PortManager(actor="audit").audit()
    client = limited(by, role, ports)
    before = Event.objects.count()
    answer = send(client, method, address, vault)
    assert SECRET not in answer.content.decode()
    assert Event.objects.count() == before
    names_one_object = "{" in address or method == "post" or address == "/api/checks"
    if ROLES.index(role) < ROLES.index(OPERATIONS[method, address]):
        assert (answer.status_code, answer.json()["code"]) == (403, "not_permitted")
    elif names_one_object and (method, address) != ("post", "/api/projects"):
        assert answer.status_code == 404
        if "{name}" not in address and method != "post":
            assert without_details(answer) == without_details(send(client, method, address, nonexistent(vault)))
    elif address == "/api/ports/explain":
        assert "another project" in answer.json()["explanation"]
        assert answer.json()["project"] is None


def nonexistent(vault: PortAllocation) -> PortAllocation:
    """Return an unsaved allocation: neither its id nor the id of its range exists."""
    allocation = PortAllocation(project=vault.project, port_range=vault.port_range, port_number=1, pk=uuid4())
    allocation.port_range_id = allocation.pk
    return allocation


def without_details(answer: Any) -> dict[str, Any]:
    """Return a refusal without its details, which contain the requested id."""
    return {name: value for name, value in answer.json().items() if name != "details"}


@pytest.mark.parametrize("route", [r for r, role in PAGES.items() if role not in ("nobody", "scraper", "token")])
def test_pages_require_a_role(route: str, ports: PortManager, vault: PortAllocation) -> None:
    address = page_address(route, vault)
    closed = {reason: client_of(text) for reason, text in invalid_tokens(ports).items()} | {"nobody": Client()}
    if not route.startswith("api/"):
        closed["token"] = client_of(tokens.create(ports.context, "able", role="admin")[1])  # pages require a session
    for reason, client in closed.items():
        for answer in (client.get(address), client.post(address)):
            assert answer.status_code in (302, 401, 405), reason
            assert answer.status_code != 302 or answer["Location"].startswith("/login?"), reason
            assert SECRET not in answer.content.decode()
    if PAGES[route] == "session":
        return
    least = ROLES.index(PAGES[route])
    for role in ["", *ROLES[1:least]]:
        client = client_with_role(role, name=f"a-{role}")
        if not (route == "api/openapi.json" or route == "api/docs"):
            assert {client.get(address).status_code, client.post(address).status_code} <= {403, 405}, role


@pytest.mark.parametrize("route", [r for r, role in PAGES.items() if role in ("viewer", "operator", "admin")])
@pytest.mark.parametrize("role", ["operator", "admin"])
def test_pages_hide_other_projects(role: str, route: str, ports: PortManager, vault: PortAllocation) -> None:
    client = limited("session", role, ports)
    before = Event.objects.count()
    for answer in (client.get(page_address(route, vault)), client.post(page_address(route, vault))):
        assert SECRET not in answer.content.decode()
        if ROLES.index(role) < ROLES.index(PAGES[route]):
            assert answer.status_code in (403, 405)
        elif "<" in route:
            assert answer.status_code in (404, 405), answer.content.decode()
    assert Event.objects.count() == before


# The metrics and the MCP server


def test_metrics_require_scraper_or_admin(ports: PortManager, vault: PortAllocation) -> None:
    ports.audit()
    closed = {reason: client_of(text) for reason, text in invalid_tokens(ports).items()} | {"nobody": Client()}
    for reason, client in closed.items():
        answer = client.get("/metrics")
        assert (answer.status_code, answer["WWW-Authenticate"]) == (401, "Bearer"), reason
        assert answer.content == b"Authentication required. Send a token with the role scraper or admin.\n"
    programs = {role: client_of(tokens.create(ports.context, role, role=role)[1]) for role in ROLES}
    assert {role: client.get("/metrics").status_code for role, client in programs.items()} == {
        **{"scraper": 200, "viewer": 403, "operator": 403, "admin": 200}
    }
    people = {role: member(role) for role in ("", "viewer", "operator", "admin")}
    assert {role: client.get("/metrics").status_code for role, client in people.items()} == {
        **{"": 403, "viewer": 403, "operator": 403, "admin": 200}
    }
    assert SECRET in programs["scraper"].get("/metrics").content.decode()


@pytest.mark.parametrize("by", ["token", "session"])
def test_metrics_hide_other_projects(by: str, ports: PortManager, vault: PortAllocation) -> None:
    ports.audit()
    metrics = limited(by, "admin", ports).get("/metrics").content.decode()
    assert 'project="shop"' in metrics
    assert "bank" not in metrics


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


def send_mcp(client: Client, method: str, **params: Any) -> Any:
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    accepts = {"Accept": "application/json, text/event-stream"}
    return in_a_thread_beside(lambda: client.post("/mcp", message, content_type="application/json", headers=accepts))


def is_refused(answer: Any) -> bool:
    """Return whether a tool or a resource refused the call."""
    assert answer.status_code == 200
    value = answer.json()
    return "error" in value or value["result"].get("isError", False)


def test_mcp_requires_a_token(ports: PortManager, vault: PortAllocation) -> None:
    people = {role: member(role) for role in ("viewer", "operator", "admin")}
    closed = {reason: client_of(text) for reason, text in invalid_tokens(ports).items()}
    for reason, client in ({"nobody": Client()} | people | closed).items():
        answer = send_mcp(client, "tools/call", name="list-ports", arguments={})
        assert (answer.status_code, answer["WWW-Authenticate"]) == (401, "Bearer"), reason
        assert SECRET not in answer.content.decode()
    able = client_of(tokens.create(ports.context, "able", role="viewer")[1])
    assert SECRET in send_mcp(able, "tools/call", name="list-ports", arguments={}).content.decode()


def test_every_tool_is_listed(ports: PortManager) -> None:
    listed_tools = send_mcp(client_of(tokens.create(ports.context, "able")[1]), "tools/list").json()["result"]["tools"]
    assert {tool["name"] for tool in listed_tools} == set(TOOLS)


@pytest.mark.parametrize("tool", TOOLS)
def test_tools_require_a_role(tool: str, ports: PortManager, vault: PortAllocation) -> None:
    least, arguments = TOOLS[tool]
    before = Event.objects.count()
    for role in ROLES[: ROLES.index(least)]:
        client = client_of(tokens.create(ports.context, role, role=role)[1])
        answer = send_mcp(client, "tools/call", name=tool, arguments=arguments)
        assert is_refused(answer), role
        assert f"requires the role {least}" in answer.content.decode()
    assert Event.objects.count() == before
    able = client_of(tokens.create(ports.context, "able", role=least)[1])
    assert not is_refused(send_mcp(able, "tools/call", name=tool, arguments=arguments))


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("role", ["operator", "admin"])
def test_tools_hide_other_projects(role: str, tool: str, ports: PortManager, vault: PortAllocation) -> None:
    client = limited("token", role, ports)
    before = Event.objects.count()
    answer = send_mcp(client, "tools/call", name=tool, arguments=TOOLS[tool][1])
    assert is_refused(answer)
    assert "There is no project bank" in answer.content.decode()
    assert SECRET not in answer.content.decode()
    assert Event.objects.count() == before


@pytest.mark.parametrize("tool", ["list-ports", "audit-ports", "explain-port"])
def test_tools_without_a_project_hide_other_projects(tool: str, ports: PortManager, vault: PortAllocation) -> None:
    """These tools take no project, or an optional one."""
    PortManager(actor="audit").audit()
    arguments = {"port": vault.port_number} if tool == "explain-port" else {}
    answer = send_mcp(limited("token", "operator", ports), "tools/call", name=tool, arguments=arguments)
    assert not is_refused(answer)
    assert "bank" not in answer.content.decode()


def test_resources_hide_other_projects(ports: PortManager, vault: PortAllocation) -> None:
    client = limited("token", "operator", ports)
    assert "bank" not in send_mcp(client, "resources/read", uri="portal://projects").content.decode()
    answer = send_mcp(client, "resources/read", uri="portal://projects/bank")
    assert is_refused(answer)
    assert SECRET not in answer.content.decode()


# The Django admin


@pytest.fixture
def bank_rows(ports: PortManager, vault: PortAllocation) -> dict[str, Any]:
    """Return a row of each admin model that a caller who is limited to shop must not see."""
    ports.audit("bank")
    elsewhere = {"hostname": f"{SECRET}.internal", "protocol": "tcp"}
    ports.allocate("bank", "other", port_number=FIRST + 106, **elsewhere)
    login = {"username": SECRET, "ip_address": "192.0.2.1", "path_info": "/login"}
    return {
        "allocations/project": vault.project,
        "allocations/portrange": vault.port_range,
        "allocations/portallocation": vault,
        "allocations/token": tokens.create(ports.context, SECRET, role="viewer", projects=["bank"])[0],
        "allocations/event": Event.objects.filter(subject_id=vault.pk)[0],
        "allocations/audit": Audit.objects.get(),
        "allocations/porthealthcheck": vault.checks.get(),
        "allocations/listener": Listener.objects.create(
            **elsewhere, port=FIRST + 105, address="192.0.2.1", process=SECRET
        ),
        "allocations/host": hosts.approve(ports.context, "far.internal"),
        "auth/group": Group.objects.get(name="admin"),
        "auth/user": user_with_role(name="carla"),
        "axes/accessattempt": AccessAttempt.objects.create(**login, failures_since_start=1),
        "axes/accesslog": AccessLog.objects.create(**login),
        "axes/accessfailurelog": AccessFailureLog.objects.create(**login),
    }


def clients_without_access(ports: PortManager) -> dict[str, Client]:
    """Return clients that may not open the Django admin. No token opens it, whatever its role."""
    members = {role: member(role) for role in ("viewer", "operator", "admin")}
    return {"nobody": Client(), "token": client_of(tokens.create(ports.context, "able", role="admin")[1]), **members}


def pages_of(model: str) -> dict[str, tuple[str, str]]:
    """Return the rights that GET and POST of each page of the model require."""
    password = {"<path:object_id>/password/": ("change", "change")}
    return ADMIN_PAGES | (password if model == "auth/user" else {})


def admin_address(model: str, page: str, row: Any) -> str:
    return f"/admin/{model}/{page.replace('<path:object_id>', str(row.pk))}"


def admin_rows() -> dict[str, list[Any]]:
    """Return all rows of all models in the Django admin."""
    return {m.__name__: list(m._base_manager.order_by("pk").values()) for m in site._registry}


def redirects_to_login(answer: Any) -> bool:
    return answer.status_code == 302 and answer["Location"].startswith(("/admin/login/?", "/login?"))


def denies(answer: Any) -> bool:
    """Return whether the response refuses the page or says that the row does not exist."""
    assert answer.status_code in (200, 302, 403)
    return answer.status_code == 403 or answer.get("Location") == "/admin/"


def mentions_bank(answer: Any) -> bool:
    return "bank" in answer.content.decode() + answer.get("Location", "")


@pytest.mark.parametrize("model", ADMIN_MODELS)
def test_the_admin_requires_staff(model: str, ports: PortManager, bank_rows: dict[str, Any]) -> None:
    clients, before = clients_without_access(ports), admin_rows()
    for page, (who, client) in itertools.product([*pages_of(model), "<path:object_id>/"], clients.items()):
        address = admin_address(model, page, bank_rows[model])
        for answer in (client.get(address), client.post(address, {"post": "yes"})):
            assert redirects_to_login(answer), (who, address)
            assert SECRET not in answer.content.decode()
    assert admin_rows() == before


@pytest.mark.parametrize("page", ADMIN_SITE)
def test_pages_of_the_admin_site_require_staff(page: str, ports: PortManager, vault: PortAllocation) -> None:
    kind = ContentType.objects.get_for_model(PortAllocation).pk
    address = "/admin/" + ADMIN_SITE[page].format(type=kind, object=vault.pk)
    for who, client in clients_without_access(ports).items():
        for answer in (client.get(address), client.post(address)):
            assert redirects_to_login(answer) or (page == "(?P<url>.*)$" and answer.status_code == 404), who
            assert SECRET not in answer.content.decode()
    client = member("admin", staff=True, limited=True)
    for answer in (client.get(address), client.post(address)):
        assert answer.status_code in (200, 302, 403, 404, 405)
        assert not redirects_to_login(answer)
        assert not mentions_bank(answer)


@pytest.mark.parametrize("model", ADMIN_MODELS)
@pytest.mark.parametrize("role", STAFF)
def test_the_admin_allows_staff_what_their_role_allows(role: str, model: str, bank_rows: dict[str, Any]) -> None:
    client = member(role, staff=True)
    before = admin_rows()
    for page, rights in pages_of(model).items():
        address = admin_address(model, page, bank_rows[model])
        for right, answer in zip(rights, (client.get(address), client.post(address, {"post": "yes"})), strict=True):
            least = getattr(ADMIN_MODELS[model], right)
            may = least is not None and ROLES.index(role) >= ROLES.index(least)
            assert denies(answer) != may, (right, address)
            assert may or SECRET not in answer.content.decode()
    after = admin_rows()
    if (role, model) == ("admin", "allocations/host"):  # nothing prevents this deletion
        assert len(after.pop("Host")) == len(before.pop("Host")) - 1
    assert after == before


@pytest.mark.parametrize("model", ADMIN_MODELS)
def test_the_admin_hides_other_projects_from_limited_staff(model: str, bank_rows: dict[str, Any]) -> None:
    client = member("admin", staff=True, limited=True)
    before = admin_rows()
    for page in pages_of(model):
        address = admin_address(model, page, bank_rows[model])
        for answer in (client.get(address), client.post(address, {"post": "yes"})):
            assert not mentions_bank(answer), address
            if page.startswith("<"):
                assert denies(answer), address
    assert admin_rows() == before


@pytest.mark.parametrize("model", ADMIN_MODELS)
@pytest.mark.parametrize("role", ["viewer", "limited admin"])
def test_admin_actions_require_their_right(role: str, model: str, bank_rows: dict[str, Any]) -> None:
    client = member(role.split()[-1], staff=True, limited="limited" in role)
    before = admin_rows()
    names = {"delete_selected", *(name for model_admin in site._registry.values() for name in model_admin.actions)}
    for name in names:
        data = {"action": name, "_selected_action": bank_rows[model].pk, "confirmed": "1", "post": "yes"}
        answer = client.post(admin_address(model, "", bank_rows[model]), data)
        assert answer.status_code in (200, 302, 403)
    assert admin_rows() == before


# Django warns that the choices of audits and checks have no order.
@pytest.mark.filterwarnings("ignore::django.core.paginator.UnorderedObjectListWarning")
def test_autocomplete_hides_other_projects(bank_rows: dict[str, Any]) -> None:
    client = member("admin", staff=True, limited=True)
    choices = {}
    for model in site._registry:
        for field in (*model._meta.fields, *model._meta.many_to_many):
            query = {"app_label": model._meta.app_label, "model_name": model._meta.model_name, "field_name": field.name}
            answer = client.get("/admin/autocomplete/", query | {"term": ""})
            assert answer.status_code in (200, 403), field
            assert not mentions_bank(answer), field
            if answer.status_code == 200:
                choices[str(field)] = [row["text"] for row in answer.json()["results"]]
    assert choices["allocations.PortAllocation.project"] == ["shop"]


def test_a_limit_to_no_projects_hides_every_project(ports: PortManager, vault: PortAllocation) -> None:
    client = client_with_role("admin", limited_to=[])
    assert client.get("/api/ports").json()["items"] == []
    assert SECRET not in client.get("/").content.decode()
