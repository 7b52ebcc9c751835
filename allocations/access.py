"""Who asks, and what they may do and see. The one place that decides it, for every door."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING
from uuid import UUID

from django.contrib.auth import get_user_model
from django.db import IntegrityError, transaction

from .errors import NotPermitted

if TYPE_CHECKING:
    from django.contrib.auth.models import AnonymousUser, User


class Role(IntEnum):
    """Each role may do what the ones below it may. They are Django groups of these names, in lower case."""

    NOBODY = 0
    VIEWER = 1  # looks
    OPERATOR = 2  # also allocates, releases, reserves and updates
    ADMIN = 3  # also edits ranges and projects

    @property
    def label(self) -> str:
        """The group's name."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Args:
        name: whom the history names.
        role: what the caller may do.
        projects: ids of the projects the caller is limited to; None is all of them.
    """

    name: str
    role: Role
    projects: frozenset[UUID] | None = None

    @classmethod
    def of_user(cls, user: User | AnonymousUser) -> Caller:
        """The caller behind a session: the highest of the user's groups; a superuser is an admin."""
        if not user.is_authenticated or not user.is_active:
            return cls(name="", role=Role.NOBODY)
        if user.is_superuser:
            return cls(name=user.get_username(), role=Role.ADMIN)
        groups = {name.upper() for name in user.groups.values_list("name", flat=True)}
        role = max((Role[name] for name in groups if name in Role.__members__), default=Role.NOBODY)
        return cls(name=user.get_username(), role=role)

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
