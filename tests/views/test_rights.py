"""The role that each page and each change requires."""

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from allocations.models import Event, PortAllocation, PortRange, Project, UserLimit
from allocations.ports import PortManager, projects, ranges
from tests.make import FIRST
from tests.users import client_with_role, superuser

from .helpers import HTMX, addresses, text

pytestmark = pytest.mark.django_db


def test_every_page_requires_a_login(client: Client, web: PortAllocation) -> None:
    for address in addresses(web):
        for response in (client.get(address), client.post(address), client.get(address, headers=HTMX)):
            assert response.status_code == 302, address
            assert response["Location"].startswith("/login"), address


def test_a_user_without_a_role_sees_nothing(web: PortAllocation) -> None:
    client = client_with_role()
    for address in addresses(web):
        if not address.startswith("/password"):
            answers = {client.get(address).status_code, client.post(address).status_code}
            assert answers <= {403, 405}, address
            assert 403 in answers, address


RANGE = {"project": "shop", "range_name": "late"}
CHANGES = [
    ("operator", "allocate", ["shop"], {"service_name": "late"}),
    ("operator", "reserve", ["shop"], {"start_port": str(FIRST + 10)}),
    ("operator", "adopt", [], {"project": "shop", "service_name": "late", "port_number": str(FIRST + 11)}),
    ("operator", "allocation-edit", ["web"], {"service_name": "late"}),
    ("operator", "release", ["web"], {}),
    ("admin", "project-add", [], {"name": "late", "size": "10"}),
    ("admin", "project-edit", ["shop"], {"name": "late"}),
    ("admin", "project-delete", ["shop"], {}),
    ("admin", "range-add", [], RANGE | {"start_port": str(FIRST + 100), "end_port": str(FIRST + 199)}),
    ("admin", "range-edit", ["range"], RANGE | {"start_port": str(FIRST), "end_port": str(FIRST + 19)}),
    ("admin", "range-delete", ["range"], {}),
]


@pytest.mark.parametrize(("least", "name", "arguments", "values"), CHANGES, ids=[change[1] for change in CHANGES])
def test_a_change_requires_its_role(
    least: str, name: str, arguments: list[str], values: dict[str, str], web: PortAllocation
) -> None:
    keys = {"shop": "shop", "web": web.pk, "range": web.port_range_id}
    address = reverse(name, args=[keys[word] for word in arguments])
    before = Event.objects.count()
    for role in ("viewer", "operator")[: 1 if least == "operator" else 2]:
        response = client_with_role(role).post(address, values)
        assert response.status_code == 403
        assert f"that requires the role {least}" in text(response)
    assert Event.objects.count() == before


def test_a_viewer_sees_no_controls_for_changes(viewer: Client, operator: Client, web: PortAllocation) -> None:
    viewer_page, operator_page = (c.get("/projects/shop").content.decode() for c in (viewer, operator))
    for control in ("/projects/shop/allocate", f"?port={FIRST + 5}", f"/allocations/{web.pk}/release"):
        assert control not in viewer_page
        assert control in operator_page
    assert "/projects/shop/edit" not in operator_page


def test_a_form_without_its_csrf_token_changes_nothing(web: PortAllocation) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(superuser())
    response = client.post(reverse("release", args=[web.pk]))
    assert response.status_code == 403
    assert "Please try again" in text(response)
    web.refresh_from_db()
    assert web.is_held


def test_a_limited_operator_does_not_see_who_holds_a_port(operator: Client, ports: PortManager) -> None:
    """Their project shares its range with one that they may not see."""
    ranges.update(ports.context, PortRange.objects.get().pk, is_shared=True)
    projects.add(ports.context, "vault", with_range=False)
    hidden = ports.allocate("vault", "secret", range_name="shop")
    UserLimit.objects.create(user=User.objects.get()).projects.set(Project.objects.filter(name="shop"))
    content = operator.get("/projects/shop").content.decode()
    assert f"{hidden.port_number}: taken by another project" in content
    assert f"{hidden.port_number}: free" not in content
    assert "secret" not in content
    assert "vault" not in content
