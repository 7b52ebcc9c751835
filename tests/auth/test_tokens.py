"""Tokens: creating, storing, limiting and revoking them."""

from __future__ import annotations

import hashlib
import re
import time
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.db import Error as DatabaseFault
from django.db import connection, connections, transaction
from django.test import Client
from django.utils import timezone

from allocations import errors
from allocations.auth.lookup import caller_for_token, caller_for_user
from allocations.auth.roles import Role
from allocations.auth.tokens import Secret, parse
from allocations.models import Project, Token, UserLimit
from allocations.ports import PortManager, projects, tokens
from allocations.ports.db_errors import port_error_for
from allocations.ports.operations import Context
from tests.users import client_of, superuser, user_with_role
from tests.views.helpers import text

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("bank")]


def manager_of(user: User) -> PortManager:
    caller = caller_for_user(user)
    return PortManager(actor=caller.name, source="web", caller=caller)


def test_a_token_has_a_public_id_a_hash_an_expiry_and_a_checksum(ports: PortManager) -> None:
    token, secret = tokens.create(ports.context, "deploy")
    assert re.fullmatch(r"ptl_[0-9A-Za-z]{8}_[0-9A-Za-z]{46}", secret)
    assert secret[4:12] == token.public_id
    assert bytes(token.secret_hash) == hashlib.sha256(secret.encode()).digest()
    assert token.expires_at - token.created_at == pytest.approx(timedelta(days=90), abs=timedelta(seconds=5))
    assert parse(secret) == Secret(secret, token.public_id)
    assert parse(secret[:-1] + ("a" if secret[-1] != "a" else "b")) is None, "the checksum was not verified"


def test_the_secret_is_not_stored(ports: PortManager) -> None:
    _, secret = tokens.create(ports.context, "deploy")
    with connection.cursor() as cursor:
        cursor.execute("SELECT string_agg(t::text, '') FROM api_tokens t")
        assert secret[13:] not in cursor.fetchone()[0]


def test_a_token_has_its_name_role_and_projects(ports: PortManager) -> None:
    token, secret = tokens.create(ports.context, "deploy", role="operator", projects=["shop"])
    caller = caller_for_token(secret)
    assert caller is not None
    assert (caller.name, caller.role, caller.token) == ("deploy", Role.OPERATOR, token.pk)
    assert caller.projects == {token.projects.get().pk}


def test_deleting_a_project_does_not_lift_the_limit(ports: PortManager) -> None:
    _, secret = tokens.create(ports.context, "deploy", role="operator", projects=["bank"])
    projects.delete(ports.context, "bank")
    caller = caller_for_token(secret)
    assert caller is not None
    assert caller.projects == frozenset()


def test_a_token_can_do_no_more_than_its_user(ports: PortManager) -> None:
    user = user_with_role("operator")
    _, secret = tokens.create(manager_of(user).context, "deploy", role="operator")
    assert caller_for_token(secret).role is Role.OPERATOR  # type: ignore[union-attr]
    user.groups.set(Group.objects.filter(name="viewer"))
    assert caller_for_token(secret).role is Role.VIEWER  # type: ignore[union-attr]
    UserLimit.objects.create(user=user)
    assert caller_for_token(secret).projects == frozenset()  # type: ignore[union-attr]
    User.objects.filter(pk=user.pk).update(is_active=False)
    assert caller_for_token(secret) is None


@pytest.mark.parametrize(
    ("role", "requested"), [("viewer", "operator"), ("operator", "admin"), ("operator", "scraper")]
)
def test_a_token_cannot_outrank_its_creator(ports: PortManager, role: str, requested: str) -> None:
    with pytest.raises(errors.NotPermitted):
        tokens.create(manager_of(user_with_role(role)).context, "more", role=requested)


def test_operators_cannot_create_tokens_for_other_users_or_hidden_projects(ports: PortManager) -> None:
    user = user_with_role("operator", limited_to=[])
    with pytest.raises(errors.UnknownProject):
        tokens.create(manager_of(user).context, "more", projects=["bank"])
    with pytest.raises(errors.NotPermitted):
        tokens.create(manager_of(user).context, "more", user=user.pk + 1)


def test_limited_admins_create_tokens_only_for_themselves(ports: PortManager) -> None:
    """A token of another user may see more projects than the limited admin."""
    other = user_with_role("admin", name="other")
    limited = manager_of(user_with_role("admin", limited_to=["shop"]))
    with pytest.raises(errors.NotPermitted, match="create tokens only for yourself"):
        tokens.create(limited.context, "more", role="viewer", user=other.pk)
    assert tokens.create(limited.context, "mine", role="viewer")[0].user_id == limited.context.caller.user


def test_a_token_cannot_create_tokens(ports: PortManager) -> None:
    caller = caller_for_token(tokens.create(ports.context, "deploy", role="admin")[1])
    with pytest.raises(errors.NotPermitted, match="cannot create tokens"):
        tokens.create(Context.of(caller, "api"), "child")


@pytest.mark.parametrize("days", [-1, 367, 4000])
def test_a_token_expires_within_a_year(ports: PortManager, days: int) -> None:
    with pytest.raises(errors.InvalidValue):
        tokens.create(ports.context, "deploy", expires_at=timezone.now() + timedelta(days=days))


@pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 101, "a/b", "\0"])
def test_invalid_names_are_refused(ports: PortManager, name: str) -> None:
    with pytest.raises(errors.InvalidValue):
        tokens.create(ports.context, name)


def test_revoked_and_expired_tokens_are_invalid(ports: PortManager) -> None:
    token, secret = tokens.create(ports.context, "deploy")
    tokens.revoke(ports.context, token.pk)
    tokens.revoke(ports.context, token.pk)
    assert caller_for_token(secret) is None
    short, secret = tokens.create(ports.context, "short", expires_at=timezone.now() + timedelta(hours=1))
    assert caller_for_token(secret) is not None
    Token.objects.filter(pk=short.pk).update(expires_at=short.created_at + timedelta(microseconds=1))
    assert caller_for_token(secret) is None


def test_only_admins_revoke_tokens_of_other_users(ports: PortManager) -> None:
    token, _ = tokens.create(ports.context, "deploy")
    with pytest.raises(errors.UnknownToken):
        tokens.revoke(manager_of(user_with_role("operator")).context, token.pk)
    tokens.revoke(manager_of(user_with_role("admin")).context, token.pk)


def test_the_last_use_is_recorded_once_a_minute(ports: PortManager, django_assert_num_queries: Any) -> None:
    token, secret = tokens.create(ports.context, "deploy")
    assert token.last_used_at is None
    with django_assert_num_queries(2):
        caller_for_token(secret)
    with django_assert_num_queries(1):
        caller_for_token(secret)
    token.refresh_from_db()
    Token.objects.filter(pk=token.pk).update(last_used_at=token.last_used_at - timedelta(seconds=61))
    with django_assert_num_queries(2):
        caller_for_token(secret)


def violated_constraint(statement: str, *values: object) -> str:
    """Return the constraint by which the database refuses a statement."""
    with pytest.raises(DatabaseFault) as fault, transaction.atomic(), connection.cursor() as cursor:  # noqa: PT012
        cursor.execute(statement, values or None)
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    refusal = port_error_for(fault.value)
    assert refusal is not None
    return refusal.details.get("constraint", "")  # type: ignore[no-any-return]


class TestConstraints:
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
    def test_the_identity_of_a_token_never_changes(self, ports: PortManager, change: str) -> None:
        tokens.create(ports.context, "deploy", projects=["shop"])
        assert violated_constraint(f"UPDATE api_tokens SET {change}") == "api_tokens_identity"

    @pytest.mark.django_db(transaction=True)
    def test_a_token_gets_no_further_projects(self, ports: PortManager) -> None:
        token, _ = tokens.create(ports.context, "deploy", projects=["shop"])
        with pytest.raises(DatabaseFault, match="keeps its projects") as refused:
            token.projects.add(Project.objects.get(name="bank"))
        assert "its rights never grow" in port_error_for(refused.value).sentence
        with pytest.raises(DatabaseFault, match="keeps its projects"), connection.cursor() as cursor:
            cursor.execute("UPDATE api_token_projects SET project_id = (SELECT id FROM projects WHERE name = 'bank')")
        assert [project.name for project in token.projects.all()] == ["shop"]
        token.projects.clear()
        assert not token.projects.exists()

    def test_a_revoked_token_stays_revoked(self, ports: PortManager) -> None:
        token, _ = tokens.create(ports.context, "deploy")
        tokens.revoke(ports.context, token.pk)
        assert violated_constraint("UPDATE api_tokens SET revoked_at = NULL") == "api_tokens_revoked_for_good"

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
    def test_invalid_columns_are_refused(self, column: str, value: str, constraint: str) -> None:
        good = {
            "public_id": "'abcdefgh'",
            "secret_hash": "sha256('x')",
            "name": "'x'",
            "role": "'viewer'",
            "created_by": "'x'",
            "expires_at": "now() + interval '1 day'",
        } | {column: value}
        assert (
            violated_constraint(f"INSERT INTO api_tokens ({', '.join(good)}) VALUES ({', '.join(good.values())})")
            == constraint
        )


class TestLastAdmin:
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
    def test_the_last_admin_cannot_be_removed(self, removal: str) -> None:
        user_with_role("admin")
        with connection.cursor() as cursor:  # TRUNCATE refuses a table with pending deferred triggers
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED")
        assert violated_constraint(removal) == "auth_user_last_admin"

    def test_a_limited_admin_does_not_count(self) -> None:
        limited = user_with_role("admin")
        superuser()
        UserLimit.objects.create(user=limited)
        assert (
            violated_constraint("UPDATE auth_user SET is_superuser = false WHERE username = 'root'")
            == "auth_user_last_admin"
        )

    def test_the_last_superuser_cannot_be_removed(self) -> None:
        superuser()
        assert violated_constraint("UPDATE auth_user SET is_superuser = false") == "auth_user_last_admin"

    def test_one_of_two_admins_can_be_removed(self) -> None:
        user_with_role("admin")
        superuser()
        with connection.cursor() as cursor:
            cursor.execute("UPDATE auth_user SET is_superuser = false WHERE username = 'root'")
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")

    @pytest.mark.django_db(transaction=True)
    def test_two_admins_cannot_remove_each_other_at_once(self) -> None:
        superuser("ann"), superuser("bob")

        def remove(name: str) -> None:
            try:
                User.objects.filter(username=name).update(is_superuser=False)
            finally:
                connections.close_all()

        with ThreadPoolExecutor() as pool:
            with transaction.atomic():
                User.objects.filter(username="ann").update(is_superuser=False)
                with connection.cursor() as cursor:
                    cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
                other = pool.submit(remove, "bob")
                wait_until_blocked_or_done(other)
            error = other.exception(timeout=10)
        assert isinstance(error, DatabaseFault)
        assert "last admin" in str(error)
        assert [user.username for user in User.objects.filter(is_superuser=True)] == ["bob"]

    @pytest.mark.django_db(transaction=True)
    def test_the_django_admin_shows_the_refusal(self) -> None:
        root = superuser()
        client = Client()
        client.force_login(root)
        answer = client.post(f"/admin/auth/user/{root.pk}/delete/", {"post": "yes"}, follow=True)
        assert "The last admin who is not limited cannot be removed" in text(answer)
        assert User.objects.filter(pk=root.pk).exists()


def wait_until_blocked_or_done(statement: Future[None]) -> None:
    """Wait until a statement of another connection waits for a lock, or has ended without waiting."""
    query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    for _ in range(500):
        with connection.cursor() as cursor:
            cursor.execute(query)
            if cursor.fetchone()[0] or statement.done():
                return
        time.sleep(0.01)
    raise AssertionError("the statement neither waits nor ends")


def test_the_django_admin_shows_a_new_token_once(ports: PortManager) -> None:
    client = client_of(superuser())
    fields = {"name": "deploy", "role": "viewer", "projects": [], "expires_at": "30d"}
    response = client.post("/admin/allocations/token/add/", fields)
    (secret,) = set(re.findall(r"ptl_\w{8}_\w{46}", response.content.decode()))
    assert caller_for_token(secret).name == "root/deploy"  # type: ignore[union-attr]
    assert "ptl_" not in str(response.cookies)
    selection = {"action": "revoke", "_selected_action": [str(Token.objects.get().pk)]}
    client.post("/admin/allocations/token/", selection)
    assert caller_for_token(secret) is None
