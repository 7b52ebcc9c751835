"""Who may do what, on every page."""

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from allocations.models import Event, PortAllocation, PortRange, Project, UserLimit
from allocations.ports import PortManager

from .reading import HTMX, PASSWORD, addresses, login, text

pytestmark = pytest.mark.django_db


def test_every_page_asks_for_a_login(client: Client, web: PortAllocation) -> None:
    for address in addresses(web):
        for response in (client.get(address), client.post(address), client.get(address, headers=HTMX)):
            assert response.status_code == 302, address
            assert response["Location"].startswith("/login"), address


def test_a_user_without_a_role_sees_nothing(web: PortAllocation) -> None:
    client = login("")
    for address in addresses(web):
        if not address.startswith("/password"):
            answers = {client.get(address).status_code, client.post(address).status_code}
            assert answers <= {403, 405}, address
            assert 403 in answers, address


CHANGES = [
    ("operator", "allocate", ["shop"], {"service_name": "late"}),
    ("operator", "reserve", ["shop"], {"first": "20510"}),
    ("operator", "adopt", [], {"project": "shop", "service_name": "late", "port": "20511"}),
    ("operator", "allocation-edit", ["web"], {"new_name": "late"}),
    ("operator", "release", ["web"], {}),
    ("admin", "project-add", [], {"name": "late", "size": "10"}),
    ("admin", "project-edit", ["shop"], {"new_name": "late"}),
    ("admin", "project-delete", ["shop"], {}),
    ("admin", "range-add", [], {"project": "shop", "range_name": "late", "start": "20600", "end": "20699"}),
    ("admin", "range-edit", ["range"], {"project": "shop", "range_name": "late", "start": "20500", "end": "20519"}),
    ("admin", "range-delete", ["range"], {}),
]


@pytest.mark.parametrize(("least", "name", "of", "values"), CHANGES, ids=[change[1] for change in CHANGES])
def test_only_who_may_changes_anything(
    least: str, name: str, of: list[str], values: dict[str, str], web: PortAllocation
) -> None:
    known = {"shop": "shop", "web": web.pk, "range": web.port_range_id}
    address = reverse(name, args=[known[word] for word in of])
    before = Event.objects.count()
    for role in ("viewer", "operator")[: 1 if least == "operator" else 2]:
        response = login(role).post(address, values)
        assert response.status_code == 403
        assert f"that takes the role {least}" in text(response)
    assert Event.objects.count() == before


def test_a_viewer_is_offered_nothing_that_would_be_refused(
    viewer: Client, operator: Client, web: PortAllocation
) -> None:
    shown, offered = viewer.get("/projects/shop").content, operator.get("/projects/shop").content
    for what in (b"/projects/shop/allocate", b"?port=20505", f"/allocations/{web.pk}/release".encode()):
        assert what not in shown
        assert what in offered
    assert b"/projects/shop/edit" not in offered


def test_a_form_without_its_token_changes_nothing(web: PortAllocation) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.create_superuser("root", password=PASSWORD))
    response = client.post(reverse("release", args=[web.pk]))
    assert response.status_code == 403
    assert "Please send that again" in text(response)
    web.refresh_from_db()
    assert web.is_held


def test_a_limited_operator_sees_what_is_taken_and_not_by_whom(operator: Client, ports: PortManager) -> None:
    """Their project shares its range with one that they may not see."""
    ports.update_range(PortRange.objects.get().pk, shared=True)
    ports.add_project("vault", with_range=False)
    hidden = ports.allocate("vault", "secret", range_name="shop")
    UserLimit.objects.create(user=User.objects.get()).projects.set(Project.objects.filter(name="shop"))
    shown = operator.get("/projects/shop").content.decode()
    assert f"{hidden.port_number}: taken by another project" in shown
    assert f"{hidden.port_number}: free" not in shown
    assert "secret" not in shown
    assert "vault" not in shown
