"""The same wish through every door gives the same row; the same mistake, the same refusal.

A door is a class with the operations that it has. Each answers with what it told of a refusal, or None.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import Group, User
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from mcp.client import Client as Agent

from allocations.errors import PortError
from allocations.mcp.server import asking
from allocations.mcp.tools import server
from allocations.models import Event, PortAllocation, Project
from allocations.ports import PortManager
from tests import make
from tests.loops import in_a_thread_beside

pytestmark = pytest.mark.django_db
FIRST = make.FIRST


class Refused(NamedTuple):
    """What a door told: the sentence, and the code where it has a place for one."""

    sentence: str
    code: str | None = None


def held(project: str, service: str, instance: int | None = None) -> PortAllocation:
    """What the doors that go by ids are shown; of a service that holds nothing, what it held."""
    rows = PortAllocation.objects.filter(project__name=project, service_name=service)
    found = rows.filter(instance=instance) if instance is not None else rows
    return found.select_related("project").order_by("-released_at", "instance")[0]


class Python:
    """By a service's name."""

    def __init__(self) -> None:
        self.ports = PortManager(actor="ann")

    def allocate(self, project: str, service: str, **wanted: Any) -> Refused | None:
        return self.refusal(self.ports.allocate, project, service, **wanted)

    def release(self, project: str, service: str, **which: Any) -> Refused | None:
        return self.refusal(self.ports.release, project, service, **which)

    def update(self, project: str, service: str, **changes: Any) -> Refused | None:
        return self.refusal(self.ports.update, project, service, **changes)

    def reserve(self, project: str, port: int, **wanted: Any) -> Refused | None:
        return self.refusal(self.ports.reserve, project, port, **wanted)

    @staticmethod
    def refusal(operation: Callable[..., Any], *args: Any, **wanted: Any) -> Refused | None:
        try:
            operation(*args, **wanted)
        except PortError as refusal:
            return Refused(refusal.sentence, refusal.code)
        return None


class PythonById(Python):
    """By an allocation's id."""

    def release(self, project: str, service: str, **which: Any) -> Refused | None:
        return self.refusal(self.ports.release_allocation, held(project, service, **which).pk)

    def update(self, project: str, service: str, **changes: Any) -> Refused | None:
        return self.refusal(self.ports.update_allocation, held(project, service).pk, **changes)


class Command:
    FLAGS = {
        **{"hostname": "--host", "service_type": "--type", "range_name": "--range", "expires_at": "--expires"},
        "cloudflare_hostname": "--cloudflare-hostname",
    }

    def allocate(self, project: str, service: str, **wanted: Any) -> Refused | None:
        return self.refusal("allocate", project, service, "--new", **wanted)

    def release(self, project: str, service: str, **which: Any) -> Refused | None:
        return self.refusal("release", project, service, **which)

    def reserve(self, project: str, port: int, **wanted: Any) -> Refused | None:
        return self.refusal("reserve", project, str(port), **wanted)

    def refusal(self, *words: str, **flags: Any) -> Refused | None:
        for name, value in flags.items():
            words = (*words, self.FLAGS.get(name, f"--{name}"), str(value))
        try:
            call_command(*words, stdout=io.StringIO(), stderr=io.StringIO())
        except CommandError as refusal:
            return Refused(str(refusal))
        return None


def logged_in() -> Client:
    user = User.objects.create_user("ann", password="x", is_staff=True)
    user.groups.add(Group.objects.get(name="admin"))
    client = Client()
    client.force_login(user)
    return client


PLACE = {"hostname": "localhost", "protocol": "tcp"}


class Page:
    def __init__(self) -> None:
        self.browser = logged_in()

    def allocate(self, project: str, service: str, **wanted: Any) -> Refused | None:
        data = {"service_name": service, **PLACE, **wanted}
        return self.refusal(reverse("allocate", args=[project]), data, "allocate_form")

    def release(self, project: str, service: str, **which: Any) -> Refused | None:
        return self.refusal(reverse("release", args=[held(project, service, **which).pk]), {})

    def update(self, project: str, service: str, **changes: Any) -> Refused | None:
        row = held(project, service)
        names = ("service_type", "description", "cloudflare_hostname")
        shown = {"new_name": row.service_name, **{name: getattr(row, name) or "" for name in names}}
        data = {f"a{row.pk}-{name}": value for name, value in (shown | changes).items()}
        return self.refusal(reverse("allocation-edit", args=[row.pk]), data, "form")

    def reserve(self, project: str, port: int, **wanted: Any) -> Refused | None:
        data = {"first": port, **PLACE, **wanted}
        return self.refusal(reverse("reserve", args=[project]), data, "reserve_form")

    def refusal(self, address: str, data: dict[str, Any], form: str = "") -> Refused | None:
        response = self.browser.post(address, data)
        if response.status_code == 303:
            return None
        shown = response.context.get(form)
        told = [message for messages in shown.errors.values() for message in messages] if shown else []
        return Refused(told[0] if told else response.context["refusal"].sentence)


class Admin:
    def __init__(self) -> None:
        self.browser = logged_in()

    def allocate(self, project: str, service: str, **wanted: Any) -> Refused | None:
        data = {"service_name": service, **PLACE, "metadata": "{}", **wanted}
        data["project"] = Project.objects.get(name=project).pk
        return self.refusal(reverse("admin:allocations_portallocation_add"), data)

    def release(self, project: str, service: str, **which: Any) -> Refused | None:
        data = {"action": "release_selected", "_selected_action": held(project, service, **which).pk, "confirmed": "1"}
        return self.refusal(reverse("admin:allocations_portallocation_changelist"), data)

    def update(self, project: str, service: str, **changes: Any) -> Refused | None:
        row = held(project, service)
        names = ("service_name", "service_type", "description", "cloudflare_hostname")
        data = {name: getattr(row, name) or "" for name in names} | {"metadata": "{}"} | changes
        data["service_name"] = data.pop("new_name", row.service_name)
        return self.refusal(reverse("admin:allocations_portallocation_change", args=[row.pk]), data)

    def refusal(self, address: str, data: dict[str, Any]) -> Refused | None:
        response = self.browser.post(address, data)
        if response.status_code == 302:
            return None
        return Refused(next(iter(response.context["adminform"].form.errors.values()))[0])


class Api:
    NAMES = {
        **{"service_type": "serviceType", "cloudflare_hostname": "cloudflareHostname", "range_name": "range"},
        **{"expires_at": "expiresAt", "new_name": "service"},
    }

    def __init__(self) -> None:
        secret = PortManager(actor="ann").create_token("ann", role="operator")[1]
        self.client = Client(headers={"Authorization": f"Bearer {secret}"})

    def allocate(self, project: str, service: str, **wanted: Any) -> Refused | None:
        return self.refusal("post", "/api/ports", project=project, service=service, new=True, **wanted)

    def release(self, project: str, service: str, **which: Any) -> Refused | None:
        return self.refusal("delete", f"/api/ports/{held(project, service, **which).pk}")

    def update(self, project: str, service: str, **changes: Any) -> Refused | None:
        return self.refusal("patch", f"/api/ports/{held(project, service).pk}", **changes)

    def reserve(self, project: str, port: int, **wanted: Any) -> Refused | None:
        return self.refusal("post", "/api/reservations", project=project, port=port, **wanted)

    def refusal(self, method: str, address: str, **body: Any) -> Refused | None:
        sent = {self.NAMES.get(name, name): value for name, value in body.items()}
        answer = getattr(self.client, method)(address, sent, content_type="application/json")
        told = answer.json()
        return None if answer.status_code in (200, 201) else Refused(told["detail"], told["code"])


class Mcp:
    NAMES = {
        **{"service_type": "serviceType", "cloudflare_hostname": "cloudflareHostname", "range_name": "rangeName"},
        **{"expires_at": "expiresAt", "project": "projectName", "service": "serviceName"},
    }

    def allocate(self, project: str, service: str, **wanted: Any) -> Refused | None:
        return self.refusal("allocate-port", project=project, service=service, **wanted)

    def release(self, project: str, service: str, **which: Any) -> Refused | None:
        return self.refusal("release-port", project=project, service=service, **which)

    def update(self, project: str, service: str, **changes: Any) -> Refused | None:
        return self.refusal("update-port", project=project, service=service, **changes)

    def reserve(self, project: str, port: int, **wanted: Any) -> Refused | None:
        given = {name: value.isoformat() if name == "expires_at" else value for name, value in wanted.items()}
        return self.refusal("reserve-port", project=project, port=port, **given)

    def refusal(self, tool: str, **arguments: Any) -> Refused | None:
        sent = {self.NAMES.get(name, name): value for name, value in arguments.items()}

        async def call() -> Any:
            asking.set(lambda: PortManager(actor="ann", source="mcp"))
            async with Agent(server) as agent:
                return await agent.call_tool(tool, sent)

        result = in_a_thread_beside(async_to_sync(call))
        return Refused(result.content[0].text) if result.is_error else None


DOORS = [Python, PythonById, Command, Page, Admin, Api, Mcp]
BY_NAME, BY_ID = [Python, Command, Mcp], [PythonById, Page, Admin, Api]


def doors(operation: str, among: list[Any] = DOORS) -> pytest.MarkDecorator:
    """The test runs through every door that has the operation."""
    return pytest.mark.parametrize("door", [d for d in among if hasattr(d, operation)], ids=lambda d: d.__name__)


def agrees(told: Refused | None, expected: Refused | None) -> None:
    """The sentence is the same, and so is the code of a door that has one."""
    assert expected is not None
    assert told is not None
    assert told.sentence == expected.sentence
    assert told.code in (None, expected.code)


@contextmanager
def nothing_changes() -> Iterator[None]:
    before = list(PortAllocation.objects.order_by("pk").values()), Event.objects.count()
    yield
    assert (list(PortAllocation.objects.order_by("pk").values()), Event.objects.count()) == before


def events(verb: str) -> int:
    return Event.objects.filter(verb=verb).count()


@pytest.fixture(autouse=True)
def shop() -> None:
    """A project with a service that holds two ports, beside what the mistakes need."""
    make.port_range("shop", FIRST, 20)
    make.port_range("other", FIRST + 20, 5)
    make.manager().add_range("shop", "full", FIRST + 60, FIRST + 60)
    make.manager().allocate("shop", "first", cloudflare_hostname="a.example.com")
    make.manager().allocate("shop", "last", range_name="full")


class TestAllocate:
    WISH = {
        "service_type": "web",
        "description": "The shop",
        "hostname": "Web-1",
        "protocol": "udp",
        "cloudflare_hostname": "Shop.Example.com",
        "port": FIRST + 7,
    }
    MISTAKES: dict[str, tuple[str, dict[str, Any]]] = {
        "invalid_name": ("A B", {}),
        "host": ("api", {"hostname": "a b"}),
        "port_taken": ("api", {"port": FIRST}),
        "port_out_of_range": ("api", {"port": FIRST + 50}),
        "no_port": ("api", {"port": 70000}),
        "hostname_taken": ("api", {"cloudflare_hostname": "a.example.com"}),
        "no_hostname": ("api", {"cloudflare_hostname": "a b"}),
        "unknown_range": ("api", {"range_name": "nope"}),
        "foreign_range": ("api", {"range_name": "other"}),
        "range_exhausted": ("api", {"range_name": "full"}),
    }

    @doors("allocate")
    def test_the_same_row(self, door: Any) -> None:
        before = events("allocated")
        assert door().allocate("shop", "api", **self.WISH) is None
        row = PortAllocation.objects.select_related("project").get(service_name="api")
        assert (row.project.name, row.service_name, row.instance, row.status) == ("shop", "api", 0, "allocated")
        assert (row.port_number, row.hostname, row.protocol) == (FIRST + 7, "web-1", "udp")
        assert (row.service_type, row.description, row.cloudflare_hostname) == ("web", "The shop", "shop.example.com")
        assert events("allocated") == before + 1

    @doors("allocate")
    @pytest.mark.parametrize("mistake", sorted(MISTAKES))
    def test_the_same_refusal(self, door: Any, mistake: str) -> None:
        service, wanted = self.MISTAKES[mistake]
        expected, through = Python().allocate("shop", service, **wanted), door()
        with nothing_changes():
            agrees(through.allocate("shop", service, **wanted), expected)


class TestRelease:
    @doors("release")
    def test_the_same_row(self, door: Any) -> None:
        assert door().release("shop", "first") is None
        row = held("shop", "first")
        assert (row.status, row.port_number, row.cloudflare_hostname) == ("released", FIRST, "a.example.com")
        assert row.released_at is not None
        assert events("released") == 1
        assert held("shop", "last").status == "allocated"

    @doors("release")
    def test_the_same_instance_of_several(self, door: Any) -> None:
        make.manager().allocate("shop", "first")
        assert door().release("shop", "first", instance=1) is None
        assert [held("shop", "first", n).status for n in (0, 1)] == ["allocated", "released"]

    @doors("release", BY_NAME)
    @pytest.mark.parametrize(
        ("project", "service"),
        [("shop", "nobody"), ("shop", "firts"), ("shop", "A B"), ("shop", "twice"), ("shopp", "first"), ("A B", "x")],
    )
    def test_the_same_refusal_of_a_name(self, door: Any, project: str, service: str) -> None:
        make.manager().allocate_copies("shop", "twice", 2)
        expected, through = Python().release(project, service), door()
        with nothing_changes():
            agrees(through.release(project, service), expected)

    # The admin has no such mistake: its action passes over what is released already.
    @doors("release", [d for d in BY_ID if d is not Admin])
    def test_the_same_refusal_of_what_is_released_already(self, door: Any) -> None:
        make.manager().release("shop", "first")
        expected, through = PythonById().release("shop", "first"), door()
        with nothing_changes():
            agrees(through.release("shop", "first"), expected)


class TestUpdate:
    CHANGES = {"service_type": "web", "description": "The shop", "cloudflare_hostname": "Shop.Example.com"}
    MISTAKES = {
        "hostname_taken": {"cloudflare_hostname": "a.example.com"},
        "no_hostname": {"cloudflare_hostname": "a b"},
        "long": {"description": "x" * 2001},
        "unspeakable": {"description": "bell \x07"},
    }

    @doors("update")
    def test_the_same_row(self, door: Any) -> None:
        assert door().update("shop", "last", **self.CHANGES) is None
        row = held("shop", "last")
        assert (row.service_type, row.description, row.cloudflare_hostname) == ("web", "The shop", "shop.example.com")
        assert (row.service_name, row.instance, row.port_number, row.status) == ("last", 0, FIRST + 60, "allocated")
        assert events("updated") == 1

    @doors("update")
    @pytest.mark.parametrize("mistake", sorted(MISTAKES))
    def test_the_same_refusal(self, door: Any, mistake: str) -> None:
        wanted = self.MISTAKES[mistake]
        expected, through = Python().update("shop", "last", **wanted), door()
        with nothing_changes():
            agrees(through.update("shop", "last", **wanted), expected)

    @doors("update", BY_NAME)
    @pytest.mark.parametrize("service", ["nobody", "lats", "A B", "twice"])
    def test_the_same_refusal_of_a_name(self, door: Any, service: str) -> None:
        make.manager().allocate_copies("shop", "twice", 2)
        expected, through = Python().update("shop", service, description="x"), door()
        with nothing_changes():
            agrees(through.update("shop", service, description="x"), expected)

    @doors("update", BY_ID)
    def test_the_same_new_name(self, door: Any) -> None:
        assert door().update("shop", "last", new_name="front") is None
        assert held("shop", "front").port_number == FIRST + 60

    @doors("update", BY_ID)
    @pytest.mark.parametrize("name", ["A B", "first"])
    def test_the_same_refusal_of_a_new_name(self, door: Any, name: str) -> None:
        expected, through = PythonById().update("shop", "last", new_name=name), door()
        with nothing_changes():
            agrees(through.update("shop", "last", new_name=name), expected)

    # The admin shows what is released, and has no form for it.
    @doors("update", [d for d in BY_ID if d is not Admin])
    def test_the_same_refusal_of_what_is_released_already(self, door: Any) -> None:
        make.manager().release("shop", "last")
        expected, through = PythonById().update("shop", "last", description="x"), door()
        with nothing_changes():
            agrees(through.update("shop", "last", description="x"), expected)


class TestReserve:
    UNTIL = timezone.now().replace(second=0, microsecond=0) + timedelta(days=30)
    MISTAKES: dict[str, tuple[str, int, dict[str, Any]]] = {
        "port_taken": ("shop", FIRST, {}),
        "port_out_of_range": ("shop", FIRST + 50, {}),
        "foreign_range": ("shop", FIRST + 20, {}),
        "past": ("shop", FIRST + 9, {"expires_at": UNTIL - timedelta(days=400)}),
        "far": ("shop", FIRST + 9, {"expires_at": UNTIL + timedelta(days=4000)}),
        "unspeakable": ("shop", FIRST + 9, {"note": "bell \x07"}),
        "unknown_project": ("shopp", FIRST + 9, {}),
    }

    @doors("reserve")
    def test_the_same_row(self, door: Any) -> None:
        assert door().reserve("shop", FIRST + 9, note="phase 2", expires_at=self.UNTIL) is None
        row = PortAllocation.objects.select_related("project").get(status="reserved")
        assert (row.project.name, row.service_name, row.port_number) == ("shop", None, FIRST + 9)
        assert (row.hostname, row.protocol) == ("localhost", "tcp")
        assert (row.description, row.expires_at) == ("phase 2", self.UNTIL)
        assert events("reserved") == 1

    @doors("reserve")
    @pytest.mark.parametrize("mistake", sorted(MISTAKES))
    def test_the_same_refusal(self, door: Any, mistake: str) -> None:
        project, port, wanted = self.MISTAKES[mistake]
        expected, through = Python().reserve(project, port, **wanted), door()
        with nothing_changes():
            agrees(through.reserve(project, port, **wanted), expected)
