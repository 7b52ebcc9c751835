"""Test the limits of logins: per address, per user, and for a browser that has logged in before."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from allocations import logins
from allocations.ports.rate_limits import LOGINS_PER_ADDRESS, LOGINS_PER_USER
from tests.users import PASSWORD, superuser, user_with_role

pytestmark = pytest.mark.django_db(transaction=True)
WRONG = PASSWORD[:-1]
PAGES = ["/login", "/admin/login/"]


def log_in(client: Client, name: str, password: str = WRONG, address: str = "192.0.2.1", page: str = "/login") -> Any:
    return client.post(page, {"username": name, "password": password}, REMOTE_ADDR=address)


@pytest.fixture
def person() -> str:
    return superuser("anna").username


@pytest.mark.parametrize("page", PAGES)
def test_an_address_may_not_try_many_users(person: str, page: str) -> None:
    statuses = [log_in(Client(), f"user{i}", page=page).status_code for i in range(LOGINS_PER_ADDRESS + 1)]
    assert statuses == [200] * LOGINS_PER_ADDRESS + [429]
    refused = log_in(Client(), person, PASSWORD, page=page)
    assert refused.status_code == 429
    assert 1 <= int(refused["Retry-After"]) <= 60
    assert f"Try again in {refused['Retry-After']} s." in refused.content.decode()
    assert log_in(Client(), person, PASSWORD, address="192.0.2.2", page=page).status_code == 302


@pytest.mark.parametrize("page", PAGES)
def test_many_addresses_may_not_try_one_user(person: str, page: str) -> None:
    tries = [log_in(Client(), person, address=f"192.0.2.{i}", page=page).status_code for i in range(LOGINS_PER_USER)]
    assert tries == [200] * LOGINS_PER_USER
    assert log_in(Client(), person, PASSWORD, address="198.51.100.1", page=page).status_code == 429
    user_with_role("viewer", name="ben")
    assert log_in(Client(), "ben", PASSWORD, address="198.51.100.1").status_code == 302


@pytest.mark.parametrize("page", PAGES)
def test_strangers_cannot_lock_a_person_out(person: str, page: str) -> None:
    """Not even behind a proxy that Portal does not trust, where everybody has the same address."""
    browser = Client()
    assert log_in(browser, person, PASSWORD, page=page).status_code == 302
    browser.cookies.pop(f"portal_session_{logins.settings.PORTAL_PORT}")
    statuses = {log_in(Client(), person, page=page).status_code for _ in range(LOGINS_PER_ADDRESS + 5)}
    assert 429 in statuses
    assert log_in(Client(), person, PASSWORD, page=page).status_code == 429
    assert log_in(browser, person, PASSWORD, page=page).status_code == 302


def test_a_known_browser_may_not_guess_without_end(person: str) -> None:
    browser = Client()
    log_in(browser, person, PASSWORD)
    browser.cookies.pop(f"portal_session_{logins.settings.PORTAL_PORT}")
    statuses = [log_in(browser, person).status_code for _ in range(LOGINS_PER_USER + 1)]
    assert statuses == [200] * LOGINS_PER_USER + [429]


def test_the_cookie_is_good_for_one_user_and_cannot_be_made_up(person: str) -> None:
    browser = Client()
    log_in(browser, person, PASSWORD)
    cookie = browser.cookies[logins.COOKIE]
    assert cookie["httponly"]
    assert cookie["samesite"] == "Lax"
    for name, value in [("ben", cookie.value), (person, cookie.value[:-1]), (person, "anna"), (person, "")]:
        stranger = Client()
        for i in range(LOGINS_PER_USER):
            log_in(Client(), name, address=f"203.0.113.{i}")
        stranger.cookies[logins.COOKIE] = value
        assert log_in(stranger, name, PASSWORD, address="198.51.100.7").status_code == 429


@pytest.mark.parametrize("page", PAGES)
def test_a_locked_out_user_is_told_when_to_come_back(person: str, page: str) -> None:
    statuses = [log_in(Client(), person, page=page).status_code for _ in range(5)]
    assert statuses == [200, 200, 200, 200, 429]
    refused = log_in(Client(), person, PASSWORD, page=page)
    assert refused.status_code == 429
    assert refused["Retry-After"] == "900"
    assert "Try again in 15 minutes" in refused.content.decode()


def test_only_so_many_log_in_at_the_same_time(person: str) -> None:
    for _ in range(logins.MOST_AT_ONCE):
        logins._places.acquire()
    try:
        refused = log_in(Client(), person, PASSWORD)
        assert (refused.status_code, refused["Retry-After"]) == (429, "5")
    finally:
        logins._places.release(logins.MOST_AT_ONCE)
    assert log_in(Client(), person, PASSWORD).status_code == 302
