"""Logging in, and the history."""

import pytest
from django.contrib.auth.models import User
from django.test import Client

from allocations.models import Event
from allocations.ports import PortManager

from .reading import HTMX, PASSWORD, text

pytestmark = pytest.mark.django_db


def test_events_newest_first_and_page_by_page(viewer: Client, ports: PortManager) -> None:
    ports.add_project("bank", size=70, start=20700)
    for n in range(60):
        ports.reserve("bank", 20700 + n)
    ports.update_project("bank", description="Money")
    first, second = viewer.get("/events", {"project": "bank"}), viewer.get("/events", {"project": "bank", "page": "2"})
    assert "description: from – → Money" in text(first)
    assert first.content.count(b'<span class="when">') == 50
    assert second.content.count(b'<span class="when">') == Event.objects.exclude(label__startswith="shop").count() - 50
    assert "shop" not in text(first)
    assert "created project shop" in text(viewer.get("/events", {"page": "2"}))


def test_login_and_logout(client: Client) -> None:
    User.objects.create_user("ada", password=PASSWORD)
    assert "Username" in text(client.get("/login"))
    response = client.post("/login", {"username": "ada", "password": PASSWORD, "next": "/events"})
    assert response["Location"] == "/events"
    assert client.get("/logout").status_code == 405
    assert client.post("/logout").status_code == 302
    assert client.get("/events").status_code == 302


def test_login_is_throttled(client: Client) -> None:
    User.objects.create_user("ada", password=PASSWORD)
    answers = [client.post("/login", {"username": "ada", "password": "wrong"}).status_code for _ in range(5)]
    response = client.post("/login", {"username": "ada", "password": PASSWORD})
    assert answers == [200, 200, 200, 200, 429]
    assert response.status_code == 429
    assert "Try again in 15 minutes" in text(response)
    assert not client.session.get("_auth_user_id")


def test_password_change(viewer: Client) -> None:
    fields = {"old_password": PASSWORD, "new_password1": "battery-staple-2", "new_password2": "battery-staple-2"}
    assert "didn’t match" in text(viewer.post("/password", fields | {"new_password2": "other"}))
    assert viewer.post("/password", fields)["Location"] == "/password/done"
    assert "The password is changed" in text(viewer.get("/password/done"))


def test_a_part_of_a_page_reloads_it_where_the_login_has_ended(client: Client) -> None:
    response = client.get("/", headers=HTMX, follow=True)
    assert response["HX-Refresh"] == "true"
    assert not response.content
