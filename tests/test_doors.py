"""Every door writes the same row for the same input, and refuses the same mistake with the same sentence.

Each door is a class whose methods are the operations that the door offers. A method takes the arguments of the Python
API, and returns the refusal or None.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple

import pytest
from asgiref.sync import async_to_sync
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from mcp.client import Client as Agent

from allocations.errors import PortError
from allocations.mcp.server import current_context
from allocations.mcp.tools import server
from allocations.models import Event, PortAllocation, Project
from allocations.ports import Context, PortManager, allocations, ranges, tokens
from tests import make
from tests.loops import in_a_thread_beside
from tests.users import client_with_role

pytestmark = pytest.mark.django_db
FIRST = make.FIRST
SOCKET = {"hostname": "localhost", "protocol": "tcp"}


class Refusal(NamedTuple):
    """The sentence of a refusal, and the code if the door has a place for one."""

    sentence: str
    code: str | None = None


def get_allocation(project: str, service: str, instance: int | None = None) -> PortAllocation:
    """Return the allocation that a service holds or, if it holds none, held last. Some doors take its id."""
    rows = PortAllocation.objects.filter(project__name=project, service_name=service)
    if instance is not None:
        rows = rows.filter(instance=instance)
    return rows.select_related("project").order_by("-released_at", "instance")[0]


class Python:
    """The Python API, with the name of a service."""

    def __init__(self) -> None:
        self.ports = PortManager(actor="ann")

    def allocate(self, project: str, service: str, **spec: Any) -> Refusal | None:
        return self.call(self.ports.allocate, project, service, **spec)

    def release(self, project: str, service: str, **which: Any) -> Refusal | None:
        return self.call(self.ports.release, project, service, **which)

    def update(self, project: str, service: str, **changes: Any) -> Refusal | None:
        return self.call(self.ports.update, project, service, **changes)

    def reserve(self, project: str, port: int, description: str = "", **spec: Any) -> Refusal | None:
        return self.call(self.ports.reserve, project, port, note=description, **spec)

    @staticmethod
    def call(operation: Callable[..., Any], *args: Any, **kwargs: Any) -> Refusal | None:
        try:
            operation(*args, **kwargs)
        except PortError as error:
            return Refusal(error.sentence, error.code)
        return None


class PythonById(Python):
    """The Python API, with the id of an allocation."""

    def release(self, project: str, service: str, **which: Any) -> Refusal | None:
        pk = get_allocation(project, service, **which).pk
        return self.call(allocations.release_by_id, self.ports.context, pk)

    def update(self, project: str, service: str, **changes: Any) -> Refusal | None:
        pk = get_allocation(project, service).pk
        return self.call(allocations.update_by_id, self.ports.context, pk, **changes)


class Command:
    """The commands."""

    OPTIONS = {
        **{"hostname": "--host", "service_type": "--type", "range_name": "--range", "expires_at": "--expires"},
        **{"cloudflare_hostname": "--cloudflare-hostname", "port_number": "--port"},
    }

    def allocate(self, project: str, service: str, **spec: Any) -> Refusal | None:
        return self.call("allocate", project, service, "--new", **spec)

    def release(self, project: str, service: str, **which: Any) -> Refusal | None:
        return self.call("release", project, service, **which)

    def reserve(self, project: str, port: int, description: str = "", **spec: Any) -> Refusal | None:
        return self.call("reserve", project, str(port), note=description, **spec)

    def call(self, *arguments: str, **options: Any) -> Refusal | None:
        for name, value in options.items():
            arguments = (*arguments, self.OPTIONS.get(name, f"--{name}"), str(value))
        try:
            call_command(*arguments, stdout=io.StringIO(), stderr=io.StringIO())
        except CommandError as error:
            return Refusal(str(error))
        return None


def admin_client() -> Client:
    return client_with_role("admin", name="ann", is_staff=True)


class Page:
    """The dashboard."""

    def __init__(self) -> None:
        self.client = admin_client()

    def allocate(self, project: str, service: str, **spec: Any) -> Refusal | None:
        data = {"service_name": service, **SOCKET, **spec}
        return self.post(reverse("allocate", args=[project]), data, "allocate_form")

    def release(self, project: str, service: str, **which: Any) -> Refusal | None:
        return self.post(reverse("release", args=[get_allocation(project, service, **which).pk]), {})

    def update(self, project: str, service: str, **changes: Any) -> Refusal | None:
        row = get_allocation(project, service)
        names = ("service_name", "service_type", "description", "owner", "cloudflare_hostname")
        values = {name: getattr(row, name) or "" for name in names} | changes
        data = {f"a{row.pk}-{name}": value for name, value in values.items()}
        return self.post(reverse("allocation-edit", args=[row.pk]), data, "form")

    def reserve(self, project: str, port: int, **spec: Any) -> Refusal | None:
        return self.post(reverse("reserve", args=[project]), {"start_port": port, **SOCKET, **spec}, "reserve_form")

    def post(self, address: str, data: dict[str, Any], form_name: str = "") -> Refusal | None:
        response = self.client.post(address, data)
        if response.status_code == 303:
            return None
        form = response.context.get(form_name)
        messages = [message for messages in form.errors.values() for message in messages] if form else []
        return Refusal(messages[0] if messages else response.context["refusal"].sentence)


class Admin:
    """The Django admin."""

    def __init__(self) -> None:
        self.client = admin_client()

    def allocate(self, project: str, service: str, **spec: Any) -> Refusal | None:
        data = {"service_name": service, **SOCKET, "metadata": "{}", **spec}
        data["project"] = Project.objects.get(name=project).pk
        return self.post(reverse("admin:allocations_portallocation_add"), data)

    def release(self, project: str, service: str, **which: Any) -> Refusal | None:
        pk = get_allocation(project, service, **which).pk
        data = {"action": "release_selected", "_selected_action": pk, "confirmed": "1"}
        return self.post(reverse("admin:allocations_portallocation_changelist"), data)

    def update(self, project: str, service: str, **changes: Any) -> Refusal | None:
        row = get_allocation(project, service)
        names = ("service_name", "service_type", "description", "owner", "cloudflare_hostname")
        data = {name: getattr(row, name) or "" for name in names} | {"metadata": "{}"} | changes
        return self.post(reverse("admin:allocations_portallocation_change", args=[row.pk]), data)

    def post(self, address: str, data: dict[str, Any]) -> Refusal | None:
        response = self.client.post(address, data)
        if response.status_code == 302:
            return None
        return Refusal(next(iter(response.context["adminform"].form.errors.values()))[0])


class Api:
    """The REST API."""

    NAMES = {
        **{"service_type": "serviceType", "cloudflare_hostname": "cloudflareHostname", "range_name": "range"},
        **{"expires_at": "expiresAt", "service_name": "service", "port_number": "port"},
    }

    def __init__(self) -> None:
        secret = tokens.create(PortManager(actor="ann").context, "ann", role="operator")[1]
        self.client = Client(headers={"Authorization": f"Bearer {secret}"})

    def allocate(self, project: str, service: str, **spec: Any) -> Refusal | None:
        return self.send("post", "/api/ports", project=project, service=service, new=True, **spec)

    def release(self, project: str, service: str, **which: Any) -> Refusal | None:
        return self.send("delete", f"/api/ports/{get_allocation(project, service, **which).pk}")

    def update(self, project: str, service: str, **changes: Any) -> Refusal | None:
        return self.send("patch", f"/api/ports/{get_allocation(project, service).pk}", **changes)

    def reserve(self, project: str, port: int, description: str = "", **spec: Any) -> Refusal | None:
        return self.send("post", "/api/reservations", project=project, port=port, note=description, **spec)

    def send(self, method: str, address: str, **fields: Any) -> Refusal | None:
        body = {self.NAMES.get(name, name): value for name, value in fields.items()}
        response = getattr(self.client, method)(address, body, content_type="application/json")
        if response.status_code in (200, 201):
            return None
        return Refusal(response.json()["detail"], response.json()["code"])


class Mcp:
    """The tools of the MCP server."""

    NAMES = {
        **{"service_type": "serviceType", "cloudflare_hostname": "cloudflareHostname", "range_name": "rangeName"},
        **{"expires_at": "expiresAt", "project": "projectName", "service": "serviceName", "port_number": "port"},
    }

    def allocate(self, project: str, service: str, **spec: Any) -> Refusal | None:
        return self.call("allocate-port", project=project, service=service, **spec)

    def release(self, project: str, service: str, **which: Any) -> Refusal | None:
        return self.call("release-port", project=project, service=service, **which)

    def update(self, project: str, service: str, **changes: Any) -> Refusal | None:
        return self.call("update-port", project=project, service=service, **changes)

    def reserve(self, project: str, port: int, description: str = "", **spec: Any) -> Refusal | None:
        texts = {name: value.isoformat() if name == "expires_at" else value for name, value in spec.items()}
        return self.call("reserve-port", project=project, port=port, note=description, **texts)

    def call(self, tool: str, **values: Any) -> Refusal | None:
        arguments = {self.NAMES.get(name, name): value for name, value in values.items()}

        async def run() -> Any:
            current_context.set(lambda: Context.trusted("ann", "mcp"))
            async with Agent(server) as agent:
                return await agent.call_tool(tool, arguments)

        result = in_a_thread_beside(async_to_sync(run))
        return Refusal(result.content[0].text) if result.is_error else None


DOORS = [Python, PythonById, Command, Page, Admin, Api, Mcp]
BY_NAME, BY_ID = [Python, Command, Mcp], [PythonById, Page, Admin, Api]


def doors(operation: str, among: list[Any] = DOORS) -> pytest.MarkDecorator:
    """Run the test through every door that has the operation."""
    return pytest.mark.parametrize("door", [d for d in among if hasattr(d, operation)], ids=lambda d: d.__name__)


def assert_same(refusal: Refusal | None, expected: Refusal | None) -> None:
    """Assert that two refusals have the same sentence and, if the door has codes, the same code."""
    assert expected is not None
    assert refusal is not None
    assert refusal.sentence == expected.sentence
    assert refusal.code in (None, expected.code)


@contextmanager
def nothing_changes() -> Iterator[None]:
    before = list(PortAllocation.objects.order_by("pk").values()), Event.objects.count()
    yield
    assert (list(PortAllocation.objects.order_by("pk").values()), Event.objects.count()) == before


def count_events(verb: str) -> int:
    return Event.objects.filter(verb=verb).count()


@pytest.fixture(autouse=True)
def shop() -> None:
    """Create a project with two services, and the ranges that the mistakes need."""
    make.port_range("shop", FIRST, 20)
    make.port_range("other", FIRST + 20, 5)
    ranges.add(make.manager().context, "shop", "full", FIRST + 60, FIRST + 60)
    make.manager().allocate("shop", "first", cloudflare_hostname="a.example.com")
    make.manager().allocate("shop", "last", range_name="full")


class TestAllocate:
    SPEC = {
        "service_type": "web",
        "description": "The shop",
        "hostname": "Web-1",
        "protocol": "udp",
        "cloudflare_hostname": "Shop.Example.com",
        "port_number": FIRST + 7,
        "owner": "team-shop",
    }
    MISTAKES: dict[str, tuple[str, dict[str, Any]]] = {
        "invalid_name": ("A B", {}),
        "invalid_host": ("api", {"hostname": "a b"}),
        "port_taken": ("api", {"port_number": FIRST}),
        "port_out_of_range": ("api", {"port_number": FIRST + 50}),
        "not_a_port": ("api", {"port_number": 70000}),
        "hostname_taken": ("api", {"cloudflare_hostname": "a.example.com"}),
        "not_a_hostname": ("api", {"cloudflare_hostname": "a b"}),
        "unknown_range": ("api", {"range_name": "nope"}),
        "foreign_range": ("api", {"range_name": "other"}),
        "range_exhausted": ("api", {"range_name": "full"}),
    }

    @doors("allocate")
    def test_every_door_writes_the_same_row(self, door: Any) -> None:
        before = count_events("allocated")
        assert door().allocate("shop", "api", **self.SPEC) is None
        row = PortAllocation.objects.select_related("project").get(service_name="api")
        assert (row.project.name, row.service_name, row.instance, row.status) == ("shop", "api", 0, "allocated")
        assert (row.port_number, row.hostname, row.protocol) == (FIRST + 7, "web-1", "udp")
        assert (row.service_type, row.description, row.cloudflare_hostname) == ("web", "The shop", "shop.example.com")
        assert row.owner == "team-shop"
        assert count_events("allocated") == before + 1

    @doors("allocate")
    @pytest.mark.parametrize("mistake", sorted(MISTAKES))
    def test_every_door_refuses_the_same_mistake(self, door: Any, mistake: str) -> None:
        service, spec = self.MISTAKES[mistake]
        expected, subject = Python().allocate("shop", service, **spec), door()
        with nothing_changes():
            assert_same(subject.allocate("shop", service, **spec), expected)


class TestRelease:
    @doors("release")
    def test_every_door_writes_the_same_row(self, door: Any) -> None:
        assert door().release("shop", "first") is None
        row = get_allocation("shop", "first")
        assert (row.status, row.port_number, row.cloudflare_hostname) == ("released", FIRST, "a.example.com")
        assert row.released_at is not None
        assert count_events("released") == 1
        assert get_allocation("shop", "last").status == "allocated"

    @doors("release")
    def test_every_door_releases_the_same_instance(self, door: Any) -> None:
        make.manager().allocate("shop", "first")
        assert door().release("shop", "first", instance=1) is None
        assert [get_allocation("shop", "first", n).status for n in (0, 1)] == ["allocated", "released"]

    @doors("release", BY_NAME)
    @pytest.mark.parametrize(
        ("project", "service"),
        [("shop", "nobody"), ("shop", "firts"), ("shop", "A B"), ("shop", "twice"), ("shopp", "first"), ("A B", "x")],
    )
    def test_every_door_refuses_the_same_names(self, door: Any, project: str, service: str) -> None:
        allocations.allocate_copies(make.manager().context, "shop", "twice", 2)
        expected, subject = Python().release(project, service), door()
        with nothing_changes():
            assert_same(subject.release(project, service), expected)

    # The action of the Django admin skips released allocations.
    @doors("release", [d for d in BY_ID if d is not Admin])
    def test_every_door_refuses_a_released_allocation(self, door: Any) -> None:
        make.manager().release("shop", "first")
        expected, subject = PythonById().release("shop", "first"), door()
        with nothing_changes():
            assert_same(subject.release("shop", "first"), expected)


class TestUpdate:
    CHANGES = {
        "service_type": "web",
        "description": "The shop",
        "owner": "team-shop",
        "cloudflare_hostname": "Shop.Example.com",
    }
    MISTAKES = {
        "hostname_taken": {"cloudflare_hostname": "a.example.com"},
        "not_a_hostname": {"cloudflare_hostname": "a b"},
        "long_description": {"description": "x" * 2001},
        "control_character": {"description": "bell \x07"},
    }

    @doors("update")
    def test_every_door_writes_the_same_row(self, door: Any) -> None:
        assert door().update("shop", "last", **self.CHANGES) is None
        row = get_allocation("shop", "last")
        assert (row.service_type, row.description, row.cloudflare_hostname) == ("web", "The shop", "shop.example.com")
        assert row.owner == "team-shop"
        assert (row.service_name, row.instance, row.port_number, row.status) == ("last", 0, FIRST + 60, "allocated")
        assert count_events("updated") == 1

    @doors("update")
    @pytest.mark.parametrize("mistake", sorted(MISTAKES))
    def test_every_door_refuses_the_same_mistake(self, door: Any, mistake: str) -> None:
        changes = self.MISTAKES[mistake]
        expected, subject = Python().update("shop", "last", **changes), door()
        with nothing_changes():
            assert_same(subject.update("shop", "last", **changes), expected)

    @doors("update", BY_NAME)
    @pytest.mark.parametrize("service", ["nobody", "lats", "A B", "twice"])
    def test_every_door_refuses_the_same_names(self, door: Any, service: str) -> None:
        allocations.allocate_copies(make.manager().context, "shop", "twice", 2)
        expected, subject = Python().update("shop", service, description="x"), door()
        with nothing_changes():
            assert_same(subject.update("shop", service, description="x"), expected)

    @doors("update", BY_ID)
    def test_every_door_renames_the_service(self, door: Any) -> None:
        assert door().update("shop", "last", service_name="front") is None
        assert get_allocation("shop", "front").port_number == FIRST + 60

    @doors("update", BY_ID)
    @pytest.mark.parametrize("name", ["A B", "first"])
    def test_every_door_refuses_the_same_new_names(self, door: Any, name: str) -> None:
        expected, subject = PythonById().update("shop", "last", service_name=name), door()
        with nothing_changes():
            assert_same(subject.update("shop", "last", service_name=name), expected)

    # The Django admin shows released allocations without a form.
    @doors("update", [d for d in BY_ID if d is not Admin])
    def test_every_door_refuses_a_released_allocation(self, door: Any) -> None:
        make.manager().release("shop", "last")
        expected, subject = PythonById().update("shop", "last", description="x"), door()
        with nothing_changes():
            assert_same(subject.update("shop", "last", description="x"), expected)


class TestReserve:
    EXPIRES_AT = timezone.now().replace(second=0, microsecond=0) + timedelta(days=30)
    MISTAKES: dict[str, tuple[str, int, dict[str, Any]]] = {
        "port_taken": ("shop", FIRST, {}),
        "port_out_of_range": ("shop", FIRST + 50, {}),
        "foreign_range": ("shop", FIRST + 20, {}),
        "expiry_in_the_past": ("shop", FIRST + 9, {"expires_at": EXPIRES_AT - timedelta(days=400)}),
        "expiry_too_far_ahead": ("shop", FIRST + 9, {"expires_at": EXPIRES_AT + timedelta(days=4000)}),
        "control_character": ("shop", FIRST + 9, {"description": "bell \x07"}),
        "unknown_project": ("shopp", FIRST + 9, {}),
    }

    @doors("reserve")
    def test_every_door_writes_the_same_row(self, door: Any) -> None:
        assert door().reserve("shop", FIRST + 9, description="phase 2", expires_at=self.EXPIRES_AT) is None
        row = PortAllocation.objects.select_related("project").get(status="reserved")
        assert (row.project.name, row.service_name, row.port_number) == ("shop", None, FIRST + 9)
        assert (row.hostname, row.protocol) == ("localhost", "tcp")
        assert (row.description, row.expires_at) == ("phase 2", self.EXPIRES_AT)
        assert count_events("reserved") == 1

    @doors("reserve")
    @pytest.mark.parametrize("mistake", sorted(MISTAKES))
    def test_every_door_refuses_the_same_mistake(self, door: Any, mistake: str) -> None:
        project, port, spec = self.MISTAKES[mistake]
        expected, subject = Python().reserve(project, port, **spec), door()
        with nothing_changes():
            assert_same(subject.reserve(project, port, **spec), expected)
