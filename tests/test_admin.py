"""The Django admin: the same operations, the same refusals, and nothing that goes round them."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from allocations.models import Event, PortAllocation, PortRange, Project, UserLimit
from tests import make

pytestmark = pytest.mark.django_db
FIRST = make.FIRST


def client_of(role: str, *, staff: bool = True) -> Client:
    user = User.objects.create_user(f"{role}-user", password="x", is_staff=staff)
    if role:
        user.groups.add(Group.objects.get(name=role))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def admin() -> Client:
    return client_of("admin")


@pytest.fixture
def shop() -> PortRange:
    return make.port_range("shop", FIRST, 20)


def address(model: str, page: str = "changelist", *args: Any) -> str:
    return reverse(f"admin:allocations_{model}_{page}", args=args)


def errors_of(response: Any) -> dict[str, list[str]]:
    """The form's errors; the page was shown again, and nothing was a server error."""
    assert response.status_code == 200
    return dict(response.context["adminform"].form.errors)


PROJECT = {"name": "new", "description": "", "size": "10", "start": ""}
RANGE = {
    "range_name": "more",
    "start_port": str(FIRST + 100),
    "end_port": str(FIRST + 109),
    "description": "",
    "is_active": "on",
}
ALLOCATION = {
    **{"service_name": "api", "port": "", "range_name": "", "hostname": "localhost", "protocol": "tcp"},
    **{"service_type": "", "description": "", "cloudflare_hostname": "", "metadata": "{}"},
}


class TestProjects:
    def test_add(self, admin: Client) -> None:
        assert admin.post(address("project", "add"), PROJECT).status_code == 302
        made = Project.objects.get()
        assert made.ranges.get().size == 10
        assert Event.objects.filter(actor="admin-user", source="admin").exists()

    @pytest.mark.parametrize(
        ("change", "field", "said"),
        [
            ({"name": "shop"}, "name", "exists"),
            ({"name": "No Name"}, "name", "is not a name"),
            ({"start": str(FIRST + 5)}, "start", "overlaps shop"),
            ({"start": "70000"}, "start", "ports are 1 to 65535"),
            ({"size": "0"}, "size", "ports are 1 to 65535"),
        ],
    )
    def test_refusals_are_form_errors(self, admin: Client, shop: PortRange, change: Any, field: str, said: str) -> None:
        errors = errors_of(admin.post(address("project", "add"), PROJECT | change))
        assert said in errors[field][0]
        assert Project.objects.count() == 1

    def test_edit(self, admin: Client, shop: PortRange) -> None:
        told = {"name": "store", "description": "x", "mode": "ask", "agent_quota": "3"}
        admin.post(address("project", "change", shop.project_id), told)
        project = Project.objects.get()
        assert (project.name, project.mode, project.agent_quota) == ("store", "ask", 3)
        refused = admin.post(address("project", "change", shop.project_id), told | {"agent_quota": "-1"})
        assert "not a number of ports" in refused.content.decode()

    def test_delete(self, admin: Client, shop: PortRange) -> None:
        page = address("project", "delete", shop.project_id)
        assert admin.get(page).status_code == 200
        admin.post(page, {"post": "yes"})
        assert not Project.objects.exists()

    def test_delete_is_refused_in_words(self, admin: Client, shop: PortRange) -> None:
        make.allocation()
        response = admin.post(address("project", "delete", shop.project_id), {"post": "yes"}, follow=True)
        assert response.status_code == 200
        assert "shop/api" in response.content.decode()
        assert Project.objects.exists()


class TestRanges:
    def test_add(self, admin: Client, shop: PortRange) -> None:
        response = admin.post(address("portrange", "add"), RANGE | {"project": shop.project_id})
        assert response.status_code == 302
        assert PortRange.objects.count() == 2

    @pytest.mark.parametrize(
        ("change", "field", "said"),
        [
            ({"start_port": str(FIRST + 19)}, "start_port", "overlaps shop"),
            ({"end_port": str(FIRST)}, "start_port", "upside down"),
            ({"range_name": "shop"}, "range_name", "exists"),
            ({"range_name": "A B"}, "range_name", "is not a name"),
            ({"start_port": "０"}, "start_port", "not a whole number"),
        ],
    )
    def test_refusals_are_form_errors(self, admin: Client, shop: PortRange, change: Any, field: str, said: str) -> None:
        data = RANGE | {"project": shop.project_id} | change
        assert said in errors_of(admin.post(address("portrange", "add"), data))[field][0]
        assert PortRange.objects.count() == 1

    def test_shrink_under_a_held_port(self, admin: Client, shop: PortRange) -> None:
        make.manager().allocate("shop", "api", port=FIRST + 10)
        data = RANGE | {"project": shop.project_id, "range_name": "shop", "start_port": FIRST, "end_port": FIRST + 5}
        errors = errors_of(admin.post(address("portrange", "change", shop.pk), data))
        assert "shop/api" in errors["start_port"][0]

    def test_edit(self, admin: Client, shop: PortRange) -> None:
        data = RANGE | {"project": shop.project_id, "range_name": "shop", "start_port": FIRST, "end_port": FIRST + 5}
        assert admin.post(address("portrange", "change", shop.pk), data).status_code == 302
        assert PortRange.objects.get().end_port == FIRST + 5

    def test_delete_is_refused_in_words(self, admin: Client, shop: PortRange) -> None:
        make.allocation()
        response = admin.post(address("portrange", "delete", shop.pk), {"post": "yes"}, follow=True)
        assert "1 of its ports is held" in response.content.decode()
        assert PortRange.objects.exists()


class TestAllocations:
    def test_add(self, admin: Client, shop: PortRange) -> None:
        response = admin.post(address("portallocation", "add"), ALLOCATION | {"project": shop.project_id})
        assert response.status_code == 302
        assert PortAllocation.objects.get().port_number == FIRST

    @pytest.mark.parametrize(
        ("change", "field", "said"),
        [
            ({"port": str(FIRST)}, "port", "held by shop/first"),
            ({"port": "70000"}, "port", "ports are 1 to 65535"),
            ({"port": "99"}, "port", "outside the ranges"),
            ({"service_name": "A B"}, "service_name", "is not a name"),
            ({"hostname": "a b"}, "hostname", "is not a host"),
            ({"range_name": "nope"}, "range_name", "There is no range"),
            ({"cloudflare_hostname": "a.example.com"}, "cloudflare_hostname", "points at shop/first"),
            ({"metadata": "[1]"}, "metadata", "not an object"),
        ],
    )
    def test_refusals_are_form_errors(self, admin: Client, shop: PortRange, change: Any, field: str, said: str) -> None:
        make.manager().allocate("shop", "first", cloudflare_hostname="a.example.com")
        data = ALLOCATION | {"project": shop.project_id} | change
        assert said in errors_of(admin.post(address("portallocation", "add"), data))[field][0]
        assert PortAllocation.objects.count() == 1

    def test_edit_changes_what_may_change(self, admin: Client) -> None:
        held = make.allocation()
        data = ALLOCATION | {"service_name": "web", "description": "new", "hostname": "elsewhere", "port": "1"}
        assert admin.post(address("portallocation", "change", held.pk), data).status_code == 302
        held.refresh_from_db()
        assert (held.service_name, held.description, held.hostname) == ("web", "new", "localhost")

    def test_a_reservation(self, admin: Client, shop: PortRange) -> None:
        held = make.manager().reserve("shop", FIRST)
        data = {"description": "later", "expires_at_0": "", "expires_at_1": ""}
        assert admin.post(address("portallocation", "change", held.pk), data).status_code == 302
        assert PortAllocation.objects.get().description == "later"

    def test_release_asks_and_names_what_listens(self, admin: Client) -> None:
        with socket.create_server(("127.0.0.1", FIRST)):
            make.port_range("shop", FIRST, 20)
            held = make.manager().adopt("shop", "api", port=FIRST)
            data = {"action": "release_selected", "_selected_action": str(held.pk)}
            asked = admin.post(address("portallocation"), data).content.decode()
            assert "listens there" in asked
            assert "python" in asked
            assert PortAllocation.objects.held().exists()
        admin.post(address("portallocation"), data | {"confirmed": "yes"})
        assert not PortAllocation.objects.held().exists()

    def test_a_released_one_is_shown_not_edited(self, admin: Client) -> None:
        held = make.allocation()
        make.manager().release("shop", "api")
        page = address("portallocation", "change", held.pk)
        assert admin.get(page).status_code == 200
        assert admin.post(page, ALLOCATION).status_code == 403

    def test_nothing_is_deleted(self, admin: Client) -> None:
        held = make.allocation()
        assert admin.post(address("portallocation", "delete", held.pk), {"post": "yes"}).status_code == 403
        page = admin.get(address("portallocation")).content.decode()
        assert "delete_selected" not in page


@pytest.mark.parametrize("model", ["event", "audit", "porthealthcheck", "listener"])
class TestHistory:
    def test_it_is_shown(self, admin: Client, model: str) -> None:
        make.allocation()
        with socket.create_server(("127.0.0.1", FIRST + 3)):
            make.manager().audit()
        page = admin.get(address(model), {"q": "a"})
        assert page.status_code == 200
        row = page.context["cl"].queryset.first()
        if row is not None:
            assert admin.get(address(model, "change", row.pk)).status_code == 200

    def test_it_is_read_only(self, admin: Client, model: str) -> None:
        assert admin.get(address(model, "add")).status_code == 403


class TestRights:
    MODELS = ("project", "portrange", "portallocation", "event", "audit", "porthealthcheck", "listener")

    @pytest.mark.parametrize("model", MODELS)
    def test_a_viewer_looks(self, model: str) -> None:
        viewer = client_of("viewer")
        assert viewer.get(address(model)).status_code == 200
        assert viewer.get(address(model, "add")).status_code == 403

    def test_an_operator_changes_allocations_only(self, shop: PortRange) -> None:
        operator = client_of("operator")
        data = ALLOCATION | {"project": shop.project_id}
        assert operator.post(address("portallocation", "add"), data).status_code == 302
        assert operator.post(address("project", "add"), PROJECT).status_code == 403
        assert operator.post(address("portrange", "add"), RANGE).status_code == 403

    def test_who_is_limited_reads_no_names_of_others(self, shop: PortRange) -> None:
        make.port_range("secret", FIRST + 40, 5)
        ports = make.manager()
        ports.allocate("shop", "api")
        ports.allocate("secret", "vault")
        User.objects.create_superuser("root")
        limited = client_of("admin")
        UserLimit.objects.create(user=User.objects.get(username="admin-user")).projects.set([shop.project_id])
        User.objects.create_user("carla")
        assert "carla" not in limited.get(address("token", "add")).content.decode()
        choices = f"{reverse('admin:autocomplete')}?app_label=allocations&model_name=portallocation&field_name=project"
        for page in (address("portallocation"), address("token", "add"), f"{choices}&term="):
            shown = limited.get(page)
            assert shown.status_code == 200
            assert "shop" in shown.content.decode()
            assert "secret" not in shown.content.decode(), page

    @pytest.mark.parametrize("model", MODELS)
    def test_nobody_and_people_outside_staff_are_sent_to_the_login(self, model: str) -> None:
        assert Client().get(address(model)).status_code == 302
        assert client_of("admin", staff=False).get(address(model)).status_code == 302


@pytest.mark.parametrize("model", ["project", "portrange", "portallocation"])
def test_as_many_queries_for_50_rows_as_for_5(admin: Client, model: str) -> None:
    def count(rows: int, start: int) -> int:
        for n in range(rows):
            make.port_range(f"p{start}-{n}", start + n * 2, 2)
            make.manager().allocate(f"p{start}-{n}", "api")
        with CaptureQueriesContext(
            connection,
        ) as queries:
            assert admin.get(address(model)).status_code == 200
        return len(queries)

    admin.get(address(model))
    assert count(5, FIRST) == count(50, FIRST + 1000)


def test_search_and_filters(admin: Client) -> None:
    make.allocation()
    page = admin.get(address("portallocation"), {"q": str(FIRST), "status": "allocated"})
    assert page.context["cl"].result_count == 1
    assert admin.get(address("portallocation"), {"q": "nothing"}).context["cl"].result_count == 0
    assert admin.get(address("project"), {"q": "shop"}).context["cl"].result_count == 1


def test_a_key_that_is_none_is_an_error_of_the_form(admin: Client, shop: PortRange) -> None:
    for model, data in (("portallocation", ALLOCATION), ("portrange", RANGE)):
        found = errors_of(admin.post(address(model, "add"), data | {"project": "xyz"}))
        assert "project" in found


def test_a_search_for_a_nul_finds_what_is_around_it(admin: Client, shop: PortRange) -> None:
    choices = f"{reverse('admin:autocomplete')}?app_label=allocations&model_name=portrange&field_name=project"
    answer = admin.get(f"{choices}&term=sh%00op")
    assert (answer.status_code, answer.json()["results"][0]["text"]) == (200, "shop")


def test_a_token_that_is_there_is_shown(shop: PortRange) -> None:
    token, _ = make.manager().create_token("deploy", role="operator", projects=["shop"])
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    shown = client.get(address("token", "change", token.pk))
    assert shown.status_code == 200
    assert "deploy" in shown.content.decode()
    assert 'name="role"' not in shown.content.decode()
