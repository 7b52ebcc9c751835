"""The Django admin performs the same operations with the same refusals as every other door."""

from __future__ import annotations

import re
import socket
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from allocations.allocation_spec import DETAILS
from allocations.models import Event, PortAllocation, PortRange, Project, Reservation
from allocations.ports import Context, allocations, projects, ranges, tokens
from tests import make
from tests.users import client_of, client_with_role, superuser, user_with_role

pytestmark = pytest.mark.django_db
FIRST = make.FIRST


@pytest.fixture
def admin() -> Client:
    """Return the client of an admin who may log in to the Django admin."""
    return client_with_role("admin", is_staff=True)


@pytest.fixture
def shop() -> PortRange:
    return make.port_range("shop", FIRST, 20)


def address(model: str, page: str = "changelist", *args: Any) -> str:
    return reverse(f"admin:allocations_{model}_{page}", args=args)


def errors_of(response: Any) -> dict[str, list[str]]:
    """Return the errors of the form on a page that is shown again."""
    assert response.status_code == 200
    return dict(response.context["adminform"].form.errors)


PROJECT = {"name": "new", "description": "", "size": "10", "start_port": ""}
RANGE = {
    "range_name": "more",
    "start_port": str(FIRST + 100),
    "end_port": str(FIRST + 109),
    "description": "",
    "is_active": "on",
}
ALLOCATION = {
    **{"service_name": "api", "port_number": "", "range_name": "", "hostname": "localhost", "protocol": "tcp"},
    **{"service_type": "", "description": "", "cloudflare_hostname": "", "metadata": "{}"},
}


class TestProjects:
    def test_add(self, admin: Client) -> None:
        assert admin.post(address("project", "add"), PROJECT).status_code == 302
        project = Project.objects.get()
        assert project.ranges.get().size == 10
        assert Event.objects.filter(actor="admin", source="admin").exists()

    @pytest.mark.parametrize(
        ("change", "field", "sentence"),
        [
            ({"name": "shop"}, "name", "exists"),
            ({"name": "No Name"}, "name", "is not valid"),
            ({"start_port": str(FIRST + 5)}, "start_port", "overlaps shop"),
            ({"start_port": "70000"}, "start_port", "ports are 1 to 65535"),
            ({"size": "0"}, "size", "not a number of ports from 1 to 65535"),
            ({"name": "spare"}, "name", "A range named spare already exists"),
        ],
    )
    def test_refusals_are_form_errors(
        self, admin: Client, shop: PortRange, change: Any, field: str, sentence: str
    ) -> None:
        ranges.add(make.manager().context, "shop", "spare", FIRST + 200, FIRST + 209)
        errors = errors_of(admin.post(address("project", "add"), PROJECT | change))
        assert sentence in errors[field][0]
        assert Project.objects.count() == 1

    def test_edit(self, admin: Client, shop: PortRange) -> None:
        values = {"name": "store", "description": "x", "mode": "ask", "agent_quota": "3"}
        admin.post(address("project", "change", shop.project_id), values)
        project = Project.objects.get()
        assert (project.name, project.mode, project.agent_quota) == ("store", "ask", 3)
        response = admin.post(address("project", "change", shop.project_id), values | {"agent_quota": "-1"})
        assert "not a number of ports" in response.content.decode()

    def test_delete(self, admin: Client, shop: PortRange) -> None:
        page = address("project", "delete", shop.project_id)
        assert admin.get(page).status_code == 200
        admin.post(page, {"post": "yes"})
        assert not Project.objects.exists()

    def test_a_refused_delete_says_why(self, admin: Client, shop: PortRange) -> None:
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
        ("change", "field", "sentence"),
        [
            ({"start_port": str(FIRST + 19)}, "start_port", "overlaps shop"),
            ({"end_port": str(FIRST)}, "start_port", "not a span"),
            ({"range_name": "shop"}, "range_name", "exists"),
            ({"range_name": "A B"}, "range_name", "is not valid"),
            ({"start_port": "０"}, "start_port", "not a whole number"),
        ],
    )
    def test_refusals_are_form_errors(
        self, admin: Client, shop: PortRange, change: Any, field: str, sentence: str
    ) -> None:
        data = RANGE | {"project": shop.project_id} | change
        assert sentence in errors_of(admin.post(address("portrange", "add"), data))[field][0]
        assert PortRange.objects.count() == 1

    def test_a_range_cannot_exclude_a_held_port(self, admin: Client, shop: PortRange) -> None:
        make.manager().allocate("shop", "api", port_number=FIRST + 10)
        data = RANGE | {"project": shop.project_id, "range_name": "shop", "start_port": FIRST, "end_port": FIRST + 5}
        errors = errors_of(admin.post(address("portrange", "change", shop.pk), data))
        assert "shop/api" in errors["start_port"][0]

    def test_edit(self, admin: Client, shop: PortRange) -> None:
        data = RANGE | {"project": shop.project_id, "range_name": "shop", "start_port": FIRST, "end_port": FIRST + 5}
        assert admin.post(address("portrange", "change", shop.pk), data).status_code == 302
        assert PortRange.objects.get().end_port == FIRST + 5

    def test_a_refused_delete_says_why(self, admin: Client, shop: PortRange) -> None:
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
        ("change", "field", "sentence"),
        [
            ({"port_number": str(FIRST)}, "port_number", "held by shop/first"),
            ({"port_number": "70000"}, "port_number", "ports are 1 to 65535"),
            ({"port_number": "99"}, "port_number", "outside the ranges"),
            ({"service_name": "A B"}, "service_name", "is not valid"),
            ({"hostname": "a b"}, "hostname", "is not valid"),
            ({"range_name": "nope"}, "range_name", "There is no range"),
            ({"cloudflare_hostname": "a.example.com"}, "cloudflare_hostname", "already points at shop/first"),
            ({"metadata": "[1]"}, "metadata", "is not a JSON object"),
        ],
    )
    def test_refusals_are_form_errors(
        self, admin: Client, shop: PortRange, change: Any, field: str, sentence: str
    ) -> None:
        make.manager().allocate("shop", "first", cloudflare_hostname="a.example.com")
        data = ALLOCATION | {"project": shop.project_id} | change
        assert sentence in errors_of(admin.post(address("portallocation", "add"), data))[field][0]
        assert PortAllocation.objects.count() == 1

    def test_edit_changes_the_details_only(self, admin: Client) -> None:
        held = make.allocation()
        data = ALLOCATION | {"service_name": "web", "description": "new", "hostname": "elsewhere", "port_number": "1"}
        assert admin.post(address("portallocation", "change", held.pk), data).status_code == 302
        held.refresh_from_db()
        assert (held.service_name, held.description, held.hostname) == ("web", "new", "localhost")

    def test_edit_a_reservation(self, admin: Client, shop: PortRange) -> None:
        held = make.manager().reserve("shop", FIRST)
        data = {"description": "later", "expires_at_0": "", "expires_at_1": ""}
        assert admin.post(address("portallocation", "change", held.pk), data).status_code == 302
        assert PortAllocation.objects.get().description == "later"

    def test_every_detail_can_be_edited(self, admin: Client) -> None:
        held = make.allocation()
        page = admin.get(address("portallocation", "change", held.pk))
        assert set(DETAILS) <= set(page.context["adminform"].form.fields)
        assert set(DETAILS) <= set(admin.get(address("portallocation", "add")).context["adminform"].form.fields)
        data = ALLOCATION | dict.fromkeys(DETAILS, "new")
        data |= {"cloudflare_hostname": "a.example.com", "metadata": '{"a": 1}'}
        assert admin.post(address("portallocation", "change", held.pk), data).status_code == 302
        held.refresh_from_db()
        expected = dict.fromkeys(DETAILS, "new") | {"cloudflare_hostname": "a.example.com", "metadata": {"a": 1}}
        assert {name: getattr(held, name) for name in DETAILS} == expected

    def test_an_expired_reservation_keeps_its_expiry(self, admin: Client, shop: PortRange) -> None:
        held = make.manager().reserve("shop", FIRST, expires_at=timezone.now() + timedelta(days=1))
        Reservation.objects.update(expires_at=timezone.now() - timedelta(days=1))
        page = admin.get(address("portallocation", "change", held.pk))
        expires_at = timezone.localtime(page.context["adminform"].form.initial["expires_at"])
        data = {"expires_at_0": f"{expires_at:%Y-%m-%d}", "expires_at_1": f"{expires_at:%H:%M:%S}"}
        response = admin.post(address("portallocation", "change", held.pk), data | {"description": "later"})
        assert response.status_code == 302
        assert PortAllocation.objects.get().description == "later"

    def test_release_asks_for_confirmation_and_names_the_listener(self, admin: Client) -> None:
        with socket.create_server(("127.0.0.1", FIRST)):
            make.port_range("shop", FIRST, 20)
            held = allocations.adopt(make.manager().context, "shop", "api", port_number=FIRST)
            data = {"action": "release_selected", "_selected_action": str(held.pk)}
            question = admin.post(address("portallocation"), data).content.decode()
            assert "is listening there" in question
            assert "python" in question
            assert PortAllocation.objects.held().exists()
        admin.post(address("portallocation"), data | {"confirmed": "yes"})
        assert not PortAllocation.objects.held().exists()

    def test_a_released_allocation_cannot_be_edited(self, admin: Client) -> None:
        held = make.allocation()
        make.manager().release("shop", "api")
        page = address("portallocation", "change", held.pk)
        assert admin.get(page).status_code == 200
        assert admin.post(page, ALLOCATION).status_code == 403

    def test_allocations_cannot_be_deleted(self, admin: Client) -> None:
        held = make.allocation()
        assert admin.post(address("portallocation", "delete", held.pk), {"post": "yes"}).status_code == 403
        page = admin.get(address("portallocation")).content.decode()
        assert "delete_selected" not in page


@pytest.mark.parametrize("model", ["event", "audit", "porthealthcheck", "listener"])
class TestHistory:
    def test_rows_are_shown(self, admin: Client, model: str) -> None:
        make.allocation()
        with socket.create_server(("127.0.0.1", FIRST + 3)):
            make.manager().audit()
        page = admin.get(address(model), {"q": "a"})
        assert page.status_code == 200
        row = page.context["cl"].queryset.first()
        if row is not None:
            assert admin.get(address(model, "change", row.pk)).status_code == 200

    def test_rows_cannot_be_added(self, admin: Client, model: str) -> None:
        assert admin.get(address(model, "add")).status_code == 403


class TestRights:
    MODELS = ("project", "portrange", "portallocation", "event", "audit", "porthealthcheck", "listener")

    @pytest.mark.parametrize("model", MODELS)
    def test_a_viewer_can_view(self, model: str) -> None:
        viewer = client_with_role("viewer", is_staff=True)
        assert viewer.get(address(model)).status_code == 200
        assert viewer.get(address(model, "add")).status_code == 403

    def test_an_operator_changes_allocations_only(self, shop: PortRange) -> None:
        operator = client_with_role("operator", is_staff=True)
        data = ALLOCATION | {"project": shop.project_id}
        assert operator.post(address("portallocation", "add"), data).status_code == 302
        assert operator.post(address("project", "add"), PROJECT).status_code == 403
        assert operator.post(address("portrange", "add"), RANGE).status_code == 403

    def test_a_limited_admin_does_not_see_names_of_other_projects(self, shop: PortRange) -> None:
        make.port_range("secret", FIRST + 40, 5)
        ports = make.manager()
        ports.allocate("shop", "api")
        ports.allocate("secret", "vault")
        superuser()
        limited = client_with_role("admin", is_staff=True, limited_to=["shop"])
        user_with_role(name="carla")
        assert "carla" not in limited.get(address("token", "add")).content.decode()
        choices = f"{reverse('admin:autocomplete')}?app_label=allocations&model_name=portallocation&field_name=project"
        for page in (address("portallocation"), address("token", "add"), f"{choices}&term="):
            response = limited.get(page)
            assert response.status_code == 200
            assert "shop" in response.content.decode()
            assert "secret" not in response.content.decode(), page

    @pytest.mark.parametrize("model", MODELS)
    def test_only_staff_can_log_in(self, model: str) -> None:
        assert Client().get(address(model)).status_code == 302
        assert client_with_role("admin").get(address(model)).status_code == 302


@pytest.mark.parametrize("model", ["project", "portrange", "portallocation"])
def test_the_number_of_queries_does_not_grow(admin: Client, model: str) -> None:
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


def test_lists_can_be_searched_and_filtered(admin: Client) -> None:
    make.allocation()
    page = admin.get(address("portallocation"), {"q": str(FIRST), "status": "allocated"})
    assert page.context["cl"].result_count == 1
    assert admin.get(address("portallocation"), {"q": "nothing"}).context["cl"].result_count == 0
    assert admin.get(address("project"), {"q": "shop"}).context["cl"].result_count == 1


def test_an_invalid_project_key_is_a_form_error(admin: Client, shop: PortRange) -> None:
    for model, data in (("portallocation", ALLOCATION), ("portrange", RANGE)):
        errors = errors_of(admin.post(address(model, "add"), data | {"project": "xyz"}))
        assert "project" in errors


def test_a_search_ignores_nul_characters(admin: Client, shop: PortRange) -> None:
    choices = f"{reverse('admin:autocomplete')}?app_label=allocations&model_name=portrange&field_name=project"
    answer = admin.get(f"{choices}&term=sh%00op")
    assert (answer.status_code, answer.json()["results"][0]["text"]) == (200, "shop")


def test_an_existing_token_can_be_viewed(shop: PortRange) -> None:
    token, _ = tokens.create(make.manager().context, "deploy", role="operator", projects=["shop"])
    client = client_of(superuser())
    response = client.get(address("token", "change", token.pk))
    assert response.status_code == 200
    assert "deploy" in response.content.decode()
    assert 'name="role"' not in response.content.decode()


@pytest.mark.parametrize("model", ["project", "portrange", "portallocation"])
def test_nothing_is_overwritten_that_others_changed(admin: Client, shop: PortRange, model: str) -> None:
    context = Context.trusted("test")
    web = allocations.allocate(context, "shop", "web")
    pk = {"project": shop.project_id, "portrange": shop.pk, "portallocation": web.pk}[model]
    page = admin.get(address(model, "change", pk))
    form = page.context["adminform"].form
    data = {name: form[name].value() for name in form.fields if form[name].value() not in (None, False)}
    assert f'name="version" value="{data["version"]}"' in page.content.decode()
    if model == "project":
        projects.update(context, "shop", description="Theirs")
    elif model == "portrange":
        ranges.update(context, pk, description="Theirs")
    else:
        allocations.update_by_id(context, pk, description="Theirs")
    refused = admin.post(address(model, "change", pk), data | {"description": "Mine"})
    assert errors_of(refused)["description"] == ["It is now: Theirs."]
    again = re.search(r'name="version" value="([^"]+)"', refused.content.decode())
    assert again
    saved = admin.post(address(model, "change", pk), data | {"description": "Mine", "version": again[1]})
    assert saved.status_code == 302
    assert {"project": Project, "portrange": PortRange, "portallocation": PortAllocation}[model].objects.get(
        pk=pk
    ).description == "Mine"
