"""Who asks, and what they may do and see. The one place that decides it, for every door."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING
from uuid import UUID

from django.contrib.auth import get_user_model
from django.db import IntegrityError, transaction

from . import sql, tokens
from .errors import NotPermitted

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser, User


class Role(IntEnum):
    """Each role may do what the ones below it may. They are Django groups of these names, in lower case."""

    NOBODY = 0
    SCRAPER = 1  # reads the metrics and nothing else; only tokens have it
    VIEWER = 2  # looks
    OPERATOR = 3  # also allocates, releases, reserves and updates
    ADMIN = 4  # also edits ranges and projects

    @property
    def label(self) -> str:
        """The group's name."""
        return self.name.lower()

    @classmethod
    def of_groups(cls, names: Iterable[str]) -> Role:
        """The highest of the groups of that name; other groups are none of Portal's."""
        known = {role.label: role for role in (cls.VIEWER, cls.OPERATOR, cls.ADMIN)}
        return max((known[name] for name in names if name in known), default=cls.NOBODY)

    def within(self, maker: Role) -> Role:
        """What is left of this role in the hand of somebody who has only `maker`."""
        if self is Role.SCRAPER:  # metrics tell of everything: an admin's to give
            return self if maker is Role.ADMIN else Role.NOBODY
        return min(self, maker)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Args:
        name: whom the history names.
        role: what the caller may do.
        projects: ids of the projects the caller is limited to; None is all of them.
        user: id of the person, or of the token's owner.
        token: id of the token by which a program asks.
    """

    name: str
    role: Role
    projects: frozenset[UUID] | None = None
    user: int | None = None
    token: UUID | None = None

    @classmethod
    def of_user(cls, user: User | AnonymousUser) -> Caller:
        """The caller behind a session: the highest of the user's groups; a superuser is an admin, and not limited."""
        if user.pk is None or not user.is_active:
            return cls(name="", role=Role.NOBODY)
        name = user.get_username()
        if user.is_superuser:
            return cls(name=name, role=Role.ADMIN, user=user.pk)
        facts = sql.user_facts(user.pk)
        limit = frozenset(facts["projects"]) if facts["is_limited"] else None
        return cls(name=name, role=Role.of_groups(facts["groups"]), projects=limit, user=user.pk)

    @classmethod
    def of_token(cls, text: str) -> Caller | None:
        """The caller behind a token; None for every reason why it opens nothing.

        The token's rights end where its owner's end now, not where they ended when it was made.
        """
        secret = tokens.read(text)
        if secret is None:
            return None
        found = sql.token_facts(secret.public_id)
        if found is None or not secret.matches(bytes(found["secret_hash"])):
            return None
        if found["is_use_unnoted"]:
            sql.note_use(found["id"])
        maker = Role.ADMIN if found["is_unbound"] else Role.of_groups(found["groups"])
        limits = []
        if found["is_limited"]:
            limits.append(frozenset(found["projects"]))
        if found["is_user_limited"] and not found["is_unbound"]:
            limits.append(frozenset(found["user_projects"]))
        return cls(
            name=f"{found['username']}/{found['name']}" if found["username"] else found["name"],
            role=Role[found["role"].upper()].within(maker),
            projects=frozenset.intersection(*limits) if limits else None,
            user=found["user_id"],
            token=found["id"],
        )

    @classmethod
    def anonymous(cls) -> Caller:
        """Anybody, where PORTAL_ANONYMOUS_READ lets anybody look."""
        return cls(name="anonymous", role=Role.VIEWER)

    @property
    def identity(self) -> str:
        """Who it is, for limits and repeated requests: one key per token, per person, or for everybody else."""
        if self.token is not None:
            return f"token:{self.token}"
        return f"user:{self.user}" if self.user is not None else f"name:{self.name}"

    @property
    def may_scrape(self) -> bool:
        """Whether the caller may read the metrics."""
        return self.role in (Role.SCRAPER, Role.ADMIN) or (self.user is None and self.token is None and self.may_look)

    def as_viewer(self) -> Caller:
        """The same caller with the right to look, for who may read metrics and nothing else."""
        return replace(self, role=Role.VIEWER)

    def may(self, role: Role) -> bool:
        """Whether the caller has that role or a higher one."""
        return self.role >= role

    def require(self, role: Role, doing: str) -> None:
        """Refuse a caller of a lower role.

        Args:
            role: the least role that may.
            doing: what was asked, as it stands in the sentence: "release ports".

        Raises:
            NotPermitted: the caller's role is lower.
        """
        if not self.may(role):
            raise NotPermitted(
                f"{self.name or 'You'} may not {doing}: that takes the role {role.label}. Ask an admin of this Portal.",
                needs=role.label,
            )

    @property
    def may_look(self) -> bool:
        return self.may(Role.VIEWER)

    @property
    def may_change(self) -> bool:
        return self.may(Role.OPERATOR)

    @property
    def may_administer(self) -> bool:
        return self.may(Role.ADMIN)


def trusted(name: str) -> Caller:
    """A caller who has all rights because they have the shell: commands and Python code."""
    return Caller(name=name, role=Role.ADMIN)


def make_first_admin(password: str = "") -> str | None:
    """Make the superuser `admin` on an installation without users.

    Args:
        password: of the new user; empty for one of chance.

    Returns:
        The password, to be shown once; None where there are users already.
    """
    users = get_user_model()._default_manager
    if users.exists():
        return None
    password = password or secrets.token_urlsafe(12)
    try:
        with transaction.atomic():
            users.create_superuser("admin", password=password)
    except IntegrityError:  # another `up` was quicker
        return None
    return password
