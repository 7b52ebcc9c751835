"""Tokens: made, shown once, kept as a hash, limited, revoked."""

from __future__ import annotations

import hashlib
import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.db import Error as DatabaseFault
from django.db import connection, transaction
from django.test import Client
from django.utils import timezone

from allocations import errors, tokens
from allocations.access import Caller, Role
from allocations.models import Project, Token, UserLimit
from allocations.ports import PortManager
from allocations.ports.refusals import refusal_of
from tests.make import FIRST
from tests.views.reading import login, text

pytestmark = pytest.mark.django_db


@pytest.fixture
def ports() -> PortManager:
    manager = PortManager(actor="test")
    manager.add_project("shop", size=20, start=FIRST)
    manager.add_project("bank", size=20, start=FIRST + 100)
    return manager


def person(role: str = "operator", *, limited_to: list[Any] | None = None) -> User:
    user = User.objects.create_user(f"a-{role}", password="correct-horse-1")
    user.groups.set(Group.objects.filter(name=role))
    if limited_to is not None:
        UserLimit.objects.create(user=user).projects.set(limited_to)
    return user


def manager_of(user: User) -> PortManager:
    caller = Caller.of_user(user)
    return PortManager(actor=caller.name, source="web", caller=caller)


def test_what_a_token_is_made_of(ports: PortManager) -> None:
    token, secret = ports.create_token("deploy")
    assert re.fullmatch(r"ptl_[0-9A-Za-z]{8}_[0-9A-Za-z]{46}", secret)
    assert secret[4:12] == token.public_id
    assert bytes(token.secret_hash) == hashlib.sha256(secret.encode()).digest()
    assert token.expires_at - token.created_at == pytest.approx(timedelta(days=90), abs=timedelta(seconds=5))
    assert tokens.read(secret) == tokens.Secret(secret, token.public_id)
    assert tokens.read(secret[:-1] + ("a" if secret[-1] != "a" else "b")) is None, "the checksum"


def test_the_text_is_kept_nowhere(ports: PortManager) -> None:
    _, secret = ports.create_token("deploy")
    with connection.cursor() as cursor:
        cursor.execute("SELECT string_agg(t::text, '') FROM api_tokens t")
        assert secret[13:] not in cursor.fetchone()[0]


def test_a_token_acts_by_its_role_name_and_projects(ports: PortManager) -> None:
    token, secret = ports.create_token("deploy", role="operator", projects=["shop"])
    caller = Caller.of_token(secret)
    assert caller is not None
    assert (caller.name, caller.role, caller.token) == ("deploy", Role.OPERATOR, token.pk)
    assert caller.projects == {token.projects.get().pk}


def test_a_deleted_project_takes_nothing_off_the_limit(ports: PortManager) -> None:
    _, secret = ports.create_token("deploy", role="operator", projects=["bank"])
    ports.delete_project("bank")
    caller = Caller.of_token(secret)
    assert caller is not None
    assert caller.projects == frozenset()


def test_a_token_can_do_no_more_than_its_owner_can_now(ports: PortManager) -> None:
    user = person("operator")
    _, secret = manager_of(user).create_token("deploy", role="operator")
    assert Caller.of_token(secret).role is Role.OPERATOR  # type: ignore[union-attr]
    user.groups.set(Group.objects.filter(name="viewer"))
    assert Caller.of_token(secret).role is Role.VIEWER  # type: ignore[union-attr]
    UserLimit.objects.create(user=user)
    assert Caller.of_token(secret).projects == frozenset()  # type: ignore[union-attr]
    User.objects.filter(pk=user.pk).update(is_active=False)
    assert Caller.of_token(secret) is None


@pytest.mark.parametrize(("role", "wanted"), [("viewer", "operator"), ("operator", "admin"), ("operator", "scraper")])
def test_no_token_outranks_its_maker(ports: PortManager, role: str, wanted: str) -> None:
    with pytest.raises(errors.NotPermitted):
        manager_of(person(role)).create_token("more", role=wanted)


def test_nobody_makes_tokens_for_others_or_for_projects_they_do_not_see(ports: PortManager) -> None:
    user = person("operator", limited_to=[])
    with pytest.raises(errors.UnknownProject):
        manager_of(user).create_token("more", projects=["bank"])
    with pytest.raises(errors.NotPermitted):
        manager_of(user).create_token("more", user=user.pk + 1)


def test_an_admin_of_some_projects_makes_tokens_for_themselves_alone(ports: PortManager) -> None:
    """Another's token may see what that other may, which is more."""
    other = User.objects.create_user("other")
    other.groups.set(Group.objects.filter(name="admin"))
    limited = manager_of(person("admin", limited_to=[Project.objects.get(name="shop")]))
    with pytest.raises(errors.NotPermitted, match="make tokens for yourself alone"):
        limited.create_token("more", role="viewer", user=other.pk)
    assert limited.create_token("mine", role="viewer")[0].user_id == limited.caller.user


def test_a_token_makes_no_tokens(ports: PortManager) -> None:
    caller = Caller.of_token(ports.create_token("deploy", role="admin")[1])
    with pytest.raises(errors.NotPermitted, match="makes no tokens"):
        PortManager(actor="x", caller=caller).create_token("child")


@pytest.mark.parametrize("days", [-1, 367, 4000])
def test_a_token_lives_for_a_year_at_most(ports: PortManager, days: int) -> None:
    with pytest.raises(errors.InvalidValue):
        ports.create_token("deploy", expires_at=timezone.now() + timedelta(days=days))


@pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 101, "a/b", "\0"])
def test_names(ports: PortManager, name: str) -> None:
    with pytest.raises(errors.InvalidValue):
        ports.create_token(name)


def test_revoked_and_expired_tokens_open_nothing(ports: PortManager) -> None:
    token, secret = ports.create_token("deploy")
    ports.revoke_token(token.pk)
    ports.revoke_token(token.pk)
    assert Caller.of_token(secret) is None
    short, secret = ports.create_token("short", expires_at=timezone.now() + timedelta(hours=1))
    assert Caller.of_token(secret) is not None
    Token.objects.filter(pk=short.pk).update(expires_at=short.created_at + timedelta(microseconds=1))
    assert Caller.of_token(secret) is None


def test_only_ones_own_are_revoked(ports: PortManager) -> None:
    token, _ = ports.create_token("deploy")
    with pytest.raises(errors.UnknownToken):
        manager_of(person("operator")).revoke_token(token.pk)
    manager_of(person("admin")).revoke_token(token.pk)


def test_the_last_use_is_written_once_a_minute(ports: PortManager, django_assert_num_queries: Any) -> None:
    token, secret = ports.create_token("deploy")
    assert token.last_used_at is None
    with django_assert_num_queries(2):
        Caller.of_token(secret)
    with django_assert_num_queries(1):
        Caller.of_token(secret)
    token.refresh_from_db()
    Token.objects.filter(pk=token.pk).update(last_used_at=token.last_used_at - timedelta(seconds=61))
    with django_assert_num_queries(2):
        Caller.of_token(secret)


def refused(statement: str, *values: object) -> str:
    """The code by which the database's refusal of raw SQL is told."""
    with pytest.raises(DatabaseFault) as fault, transaction.atomic(), connection.cursor() as cursor:  # noqa: PT012
        cursor.execute(statement, values or None)
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    refusal = refusal_of(fault.value)
    assert refusal is not None
    return refusal.details.get("constraint", "")  # type: ignore[no-any-return]


class TestTheDatabaseKeeps:
    @pytest.mark.parametrize(
        "change",
        [
            "role = 'admin'",
            "secret_hash = sha256('x')",
            "public_id = 'aaaaaaaa'",
            "user_id = NULL, created_by = 'x'",
            "is_limited = false",
            "expires_at = expires_at + interval '1 day'",
        ],
    )
    def test_what_a_token_is(self, ports: PortManager, change: str) -> None:
        ports.create_token("deploy", projects=["shop"])
        assert refused(f"UPDATE api_tokens SET {change}") == "api_tokens_identity"

    def test_that_revoked_is_revoked(self, ports: PortManager) -> None:
        token, _ = ports.create_token("deploy")
        ports.revoke_token(token.pk)
        assert refused("UPDATE api_tokens SET revoked_at = NULL") == "api_tokens_revoked_for_good"

    @pytest.mark.parametrize(
        ("column", "value", "constraint"),
        [
            ("role", "'root'", "api_tokens_role"),
            ("secret_hash", "'x'", "api_tokens_hash"),
            ("public_id", "'a'", "api_tokens_public"),
            ("expires_at", "now() + interval '400 days'", "api_tokens_expiry"),
            ("expires_at", "now() - interval '1 day'", "api_tokens_expiry"),
        ],
    )
    def test_how_a_token_begins(self, column: str, value: str, constraint: str) -> None:
        good = {
            "public_id": "'abcdefgh'",
            "secret_hash": "sha256('x')",
            "name": "'x'",
            "role": "'viewer'",
            "created_by": "'x'",
            "expires_at": "now() + interval '1 day'",
        } | {column: value}
        assert refused(f"INSERT INTO api_tokens ({', '.join(good)}) VALUES ({', '.join(good.values())})") == constraint


class TestTheLastAdmin:
    @pytest.mark.parametrize(
        "removal",
        [
            "UPDATE auth_user SET is_active = false",
            "DELETE FROM auth_user_groups",
            "UPDATE auth_group SET name = 'boss' WHERE name = 'admin'",
            "DELETE FROM auth_user_groups; DELETE FROM auth_user",
            "INSERT INTO user_limits SELECT id FROM auth_user",
            "TRUNCATE auth_user CASCADE",
            "TRUNCATE auth_user_groups",
        ],
    )
    def test_cannot_be_removed(self, removal: str) -> None:
        person("admin")
        with connection.cursor() as cursor:  # TRUNCATE refuses a table with triggers that wait for the commit
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED")
        assert refused(removal) == "auth_user_last_admin"

    def test_a_limited_one_does_not_count(self) -> None:
        limited = person("admin")
        User.objects.create_superuser("root")
        UserLimit.objects.create(user=limited)
        assert refused("UPDATE auth_user SET is_superuser = false WHERE username = 'root'") == "auth_user_last_admin"

    def test_nor_the_last_superuser(self) -> None:
        User.objects.create_superuser("root")
        assert refused("UPDATE auth_user SET is_superuser = false") == "auth_user_last_admin"

    def test_one_of_two_can(self) -> None:
        person("admin")
        User.objects.create_superuser("root")
        with connection.cursor() as cursor:
            cursor.execute("UPDATE auth_user SET is_superuser = false WHERE username = 'root'")
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")

    @pytest.mark.django_db(transaction=True)
    def test_the_admin_says_so(self) -> None:
        root = User.objects.create_superuser("root", password="correct-horse-1")
        client = Client()
        client.force_login(root)
        answer = client.post(f"/admin/auth/user/{root.pk}/delete/", {"post": "yes"}, follow=True)
        assert "The last admin who is not limited cannot be removed" in text(answer)
        assert User.objects.filter(pk=root.pk).exists()


class TestThePage:
    def test_a_token_is_made_shown_once_and_revoked(self, ports: PortManager) -> None:
        client = login("operator")
        assert "No tokens yet" in text(client.get("/tokens"))
        asked = {"name": "deploy", "role": "operator", "projects": ["shop"], "expires_at": "30d"}
        made = client.post("/tokens", asked)
        (secret,) = set(re.findall(r"ptl_\w{8}_\w{46}", made.content.decode()))
        assert made["Cache-Control"] == "private, no-store"
        assert Client(headers={"Authorization": f"Bearer {secret}"}).get("/api/ports?project=shop").status_code == 200
        listed = client.get("/tokens").content.decode()
        assert secret not in listed
        assert secret[:12] in listed
        token = Token.objects.get()
        assert "Revoke deploy?" in text(client.get(f"/tokens/{token.pk}/revoke"))
        assert client.post(f"/tokens/{token.pk}/revoke").status_code == 303
        assert "revoked" in text(client.get("/tokens"))
        assert Client(headers={"Authorization": f"Bearer {secret}"}).get("/api/ports").status_code == 401

    def test_what_is_refused_stands_on_its_field(self, ports: PortManager) -> None:
        client = login("operator")
        answer = client.post("/tokens", {"name": "a/b", "role": "operator", "expires_at": "2d"})
        assert (answer.status_code, "without /" in text(answer)) == (422, True)
        assert client.post("/tokens", {"name": "x", "role": "admin", "expires_at": "2d"}).status_code == 422
        assert client.post("/tokens", {"name": "x", "role": "viewer", "expires_at": "2000d"}).status_code == 422
        assert not Token.objects.exists()

    def test_tokens_of_others_do_not_exist(self, ports: PortManager) -> None:
        token, _ = ports.create_token("deploy")
        client = login("operator")
        assert "deploy" not in text(client.get("/tokens"))
        assert client.post(f"/tokens/{token.pk}/revoke").status_code == 404


def test_the_admin_shows_a_new_token_once(ports: PortManager) -> None:
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    asked = {"name": "deploy", "role": "viewer", "projects": [], "expires_at": "30d"}
    made = client.post("/admin/allocations/token/add/", asked)
    (secret,) = set(re.findall(r"ptl_\w{8}_\w{46}", made.content.decode()))
    assert Caller.of_token(secret).name == "root/deploy"  # type: ignore[union-attr]
    assert "ptl_" not in str(made.cookies)
    chosen = {"action": "revoke", "_selected_action": [str(Token.objects.get().pk)]}
    client.post("/admin/allocations/token/", chosen)
    assert Caller.of_token(secret) is None
