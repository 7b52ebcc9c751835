"""The admin site refuses addresses, selections and values that PostgreSQL or Python cannot handle, without crashing."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from allocations.models import PortAllocation
from tests import make
from tests.users import client_of, superuser

pytestmark = pytest.mark.django_db(transaction=True)
ALLOCATIONS, EVENTS = "/admin/allocations/portallocation/", "/admin/allocations/event/"


@pytest.fixture
def root() -> Client:
    make.allocation()
    return client_of(superuser())


@pytest.mark.parametrize(
    ("address", "status"),
    [
        (f"{EVENTS}?at__year=9999", 302),
        (f"{EVENTS}?at__year=99999999", 302),
        (f"{ALLOCATIONS}?status=%00", 400),
        (f"{ALLOCATIONS}?q=%00", 200),
        ("/admin/auth/user/?q=%00", 200),
        (f"{ALLOCATIONS}?%00=1", 400),
        (f"{ALLOCATIONS}?service_name__regex=(", 400),
        (f"{ALLOCATIONS}?status__unaccent=x", 400),
        (f"{ALLOCATIONS}?project__name__iregex=(", 400),
        (f"{ALLOCATIONS}?allocated_at__year=99999999999999999999", 302),
        ("/admin/auth/user/?password__startswith=md5", 400),
        ("/admin/axes/accessattempt/?username__regex=(", 400),
    ],
)
def test_a_strange_filter_is_refused(root: Client, address: str, status: int) -> None:
    assert root.get(address).status_code == status


@pytest.mark.parametrize("selected", ["zzz", "\0", "9" * 5000, ""])
@pytest.mark.parametrize("model", ["portallocation", "token", "project"])
def test_a_strange_selection_is_refused(root: Client, model: str, selected: str) -> None:
    data = {"action": "revoke" if model == "token" else "release", "_selected_action": selected}
    response = root.post(f"/admin/allocations/{model}/", data, follow=True)
    assert response.status_code in (200, 400)
    assert PortAllocation.objects.held().count() == 1


def test_the_filters_of_the_list_work(root: Client) -> None:
    page = root.get(ALLOCATIONS, {"status__exact": "allocated", "protocol": "tcp", "project__id__exact": str(shop())})
    assert page.context["cl"].result_count == 1
    assert root.get("/admin/auth/user/", {"is_superuser__exact": "1"}).context["cl"].result_count == 1


def shop() -> Any:
    return PortAllocation.objects.get().project_id


STRANGE_JSON = {
    "half of a surrogate pair": '{"a": "\\ud800"}',
    "NUL": '{"a": "\\u0000"}',
    "digits": '{"a": ' + "1" * 5000 + "}",
    "nesting": '{"a":' * 3000,
    "infinity": '{"a": 1e999}',
}


@pytest.mark.parametrize("metadata", STRANGE_JSON.values(), ids=STRANGE_JSON)
def test_strange_metadata_is_a_form_error(root: Client, metadata: str) -> None:
    data = {
        **{"project": str(shop()), "service_name": "web", "port_number": "", "range_name": "", "hostname": "localhost"},
        **{"protocol": "tcp", "service_type": "", "description": "", "cloudflare_hostname": "", "metadata": metadata},
    }
    response = root.post(f"{ALLOCATIONS}add/", data)
    assert response.status_code == 200
    assert list(response.context["adminform"].form.errors) == ["metadata"]
    assert PortAllocation.objects.count() == 1


@pytest.mark.parametrize("address", ["/login", "/admin/login/"])
def test_a_long_user_name_is_a_form_error(client: Client, address: str) -> None:
    response = client.post(address, {"username": "x" * 5000, "password": "x"})
    assert response.status_code == 200
    assert "at most 150 characters" in response.content.decode()
