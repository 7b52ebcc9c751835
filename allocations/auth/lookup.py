"""Look up the rights of people and tokens in the database."""

from __future__ import annotations

import secrets

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from allocations import sql
from allocations.errors import InvalidValue

from . import tokens
from .roles import Caller, Role


def caller_for_user(user: User | AnonymousUser) -> Caller:
    """Return the caller for a user, with the highest role of the user's groups. A superuser is an unlimited admin."""
    if user.pk is None or not user.is_active:
        return Caller(name="", role=Role.NOBODY)
    name = user.get_username()
    if user.is_superuser:
        return Caller(name=name, role=Role.ADMIN, user=user.pk)
    rights = sql.user_rights(user.pk)
    projects = frozenset(rights["projects"]) if rights["is_limited"] else None
    return Caller(name=name, role=Role.from_groups(rights["groups"]), projects=projects, user=user.pk)


def caller_for_token(text: str) -> Caller | None:
    """Return the caller for a token, or None if it is malformed, unknown, expired or revoked.

    The token never has more rights than its user has now, whatever they were when it was made.
    """
    secret = tokens.parse(text)
    if secret is None:
        return None
    token = sql.token_rights(secret.public_id)
    if token is None or not secret.matches(bytes(token["secret_hash"])):
        return None
    if token["is_use_due"]:
        sql.record_token_use(token["id"])
    user_role = Role.ADMIN if token["is_unbound"] else Role.from_groups(token["groups"])
    limits = []
    if token["is_limited"]:
        limits.append(frozenset(token["projects"]))
    if token["is_user_limited"] and not token["is_unbound"]:
        limits.append(frozenset(token["user_projects"]))
    return Caller(
        name=f"{token['username']}/{token['name']}" if token["username"] else token["name"],
        role=Role[token["role"].upper()].limited_to(user_role),
        projects=frozenset.intersection(*limits) if limits else None,
        user=token["user_id"],
        token=token["id"],
    )


def create_first_admin(password: str = "") -> str | None:
    """Create the superuser `admin` on an installation without users.

    Args:
        password: the password of the new user; a random one is generated if it is empty.

    Returns:
        The password, to be shown once; None if there are users already.

    Raises:
        InvalidValue: the password is too weak; nothing was changed.
    """
    users = get_user_model()._default_manager
    if users.exists():
        return None
    if password:
        _check_password(password)
    password = password or secrets.token_urlsafe(12)
    try:
        with transaction.atomic():
            users.create_superuser("admin", password=password)
    except IntegrityError:  # another `up` was quicker
        return None
    return password


def _check_password(password: str) -> None:
    try:
        validate_password(password, get_user_model()(username="admin"))
    except ValidationError as error:
        raise InvalidValue(
            f"PORTAL_ADMIN_PASSWORD is too weak: {' '.join(error.messages)} Set a better one, or leave it empty to get "
            "a random one.",
            field="PORTAL_ADMIN_PASSWORD",
        ) from None
