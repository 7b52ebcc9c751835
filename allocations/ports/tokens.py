"""Make and revoke tokens."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from django.db.models.functions import Now

from allocations import validators
from allocations.auth import tokens
from allocations.auth.roles import Role
from allocations.errors import InvalidValue, NotPermitted, UnknownToken
from allocations.models import Token
from allocations.text import join_or

from .operations import Context, operation
from .queries import get_project

TOKEN_ROLES = (Role.SCRAPER, Role.VIEWER, Role.OPERATOR, Role.ADMIN)


@operation(Role.VIEWER, "create tokens")
def create(
    context: Context,
    name: str,
    *,
    role: str = "viewer",
    projects: Sequence[str] | None = None,
    expires_at: datetime | None = None,
    user: int | None = None,
) -> tuple[Token, str]:
    """Create a token, and return it with its text, which cannot be read again.

    Args:
        name: what it is for; the history shows it.
        role: scraper, viewer, operator or admin; at most the caller's own.
        projects: names of the projects it is limited to; None means no limit.
        expires_at: within 366 days; None means 90 days from now.
        user: id of the user it belongs to; None means the caller. Only an admin makes tokens for others.

    Raises:
        InvalidName, InvalidValue, UnknownProject.
        NotPermitted: the role is higher than the caller's, or the token is for somebody else and the caller is not an
            unlimited admin.
    """
    caller = context.caller
    if caller.token is not None:
        raise NotPermitted("A token cannot create tokens: log in, and create it yourself.")
    token_role = next((r for r in TOKEN_ROLES if r.label == role), None)
    if token_role is None:
        labels = join_or([r.label for r in TOKEN_ROLES])
        raise InvalidValue(f"Role {role!r} is unknown: use {labels}.", field="role")
    if token_role.limited_to(caller.role) is not token_role:
        raise NotPermitted(f"A token cannot have the role {role}: yours is {caller.role.label}.", field="role")
    if user is not None and user != caller.user:
        caller.require(Role.ADMIN, "create tokens for others")
        if caller.projects is not None:
            raise NotPermitted(
                "You are limited to some projects, so you can create tokens only for yourself.", field="user"
            )
    limit = None if projects is None else [get_project(context, project) for project in projects]
    secret = tokens.generate()
    token = Token.objects.create(
        public_id=secret.public_id,
        secret_hash=secret.hash,
        name=validators.token_name(name),
        user_id=user if user is not None else caller.user,
        role=token_role.label,
        is_limited=limit is not None,
        created_by=context.actor,
        expires_at=validators.token_expires_at(expires_at),
    )
    token.projects.set(limit or [])
    return Token.objects.get(pk=token.pk), secret.text


@operation(Role.VIEWER, "revoke tokens")
def revoke(context: Context, pk: UUID) -> Token:
    """Revoke a token for good, at once in every process. Revoking it twice changes nothing.

    Raises:
        UnknownToken: there is none, or it belongs to somebody else and the caller is not an unlimited admin.
    """
    token = Token.objects.visible_to(context.caller).filter(pk=pk).first()
    if token is None:
        raise UnknownToken("There is no such token.", token=str(pk))
    Token.objects.filter(pk=pk, revoked_at=None).update(revoked_at=Now())
    return Token.objects.get(pk=pk)
