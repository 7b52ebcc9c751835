"""Logging in and out, and passwords."""

import pytest
from django.test import Client

from tests.users import PASSWORD, user_with_role

from .helpers import HTMX, text

pytestmark = pytest.mark.django_db


def test_login_and_logout(client: Client) -> None:
    user_with_role(name="ada")
    assert "Username" in text(client.get("/login"))
    response = client.post("/login", {"username": "ada", "password": PASSWORD, "next": "/events"})
    assert response["Location"] == "/events"
    assert client.get("/logout").status_code == 405
    assert client.post("/logout").status_code == 302
    assert client.get("/events").status_code == 302


def test_login_is_throttled(client: Client) -> None:
    user_with_role(name="ada")
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
    assert "Your password has been changed" in text(viewer.get("/password/done"))


def test_htmx_reloads_the_page_after_the_session_has_ended(client: Client) -> None:
    response = client.get("/", headers=HTMX, follow=True)
    assert response["HX-Refresh"] == "true"
    assert not response.content


@pytest.mark.parametrize("headers", [{}, HTMX])
def test_a_form_without_a_token_is_refused_in_words(operator: Client, headers: dict[str, str]) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = operator.cookies
    response = strict.post("/projects/shop/allocate", {"service_name": "x"}, headers=headers)
    assert response.status_code == 403
    assert "nothing was changed" in response.content.decode().lower()
    assert ('id="fresh-token"' in response.content.decode()) == bool(headers)
