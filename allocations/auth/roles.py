"""Roles and callers, which tell every door and every operation what a caller may do and see."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from uuid import UUID

from allocations.errors import NotPermitted


class Role(IntEnum):
    """The roles, each with the rights of the ones below it. They are Django groups with these names in lower case."""

    NOBODY = 0
    SCRAPER = 1  # reads the metrics and nothing else; only tokens have it
    VIEWER = 2  # reads
    OPERATOR = 3  # also allocates, releases, reserves and updates
    ADMIN = 4  # also edits ranges and projects

    @property
    def label(self) -> str:
        """Return the name of the group."""
        return self.name.lower()

    @classmethod
    def from_groups(cls, names: Iterable[str]) -> Role:
        """Return the highest role among the groups; groups with other names grant nothing."""
        roles = {role.label: role for role in (cls.VIEWER, cls.OPERATOR, cls.ADMIN)}
        return max((roles[name] for name in names if name in roles), default=cls.NOBODY)

    def limited_to(self, user: Role) -> Role:
        """Return what a token with this role may do if its user has the role `user`."""
        if self is Role.SCRAPER:  # metrics cover every project, so only an admin can grant them
            return self if user is Role.ADMIN else Role.NOBODY
        return min(self, user)


@dataclass(frozen=True, slots=True)
class Caller:
    """A person or a program that sends a request.

    Args:
        name: the name that the history shows.
        role: what the caller may do.
        projects: ids of the projects the caller is limited to; None means all of them.
        user: id of the person, or of the user that the token belongs to.
        token: id of the token by which a program identifies itself.
    """

    name: str
    role: Role
    projects: frozenset[UUID] | None = None
    user: int | None = None
    token: UUID | None = None

    @classmethod
    def anonymous(cls) -> Caller:
        """Return the caller for everybody without a login, where PORTAL_ANONYMOUS_READ lets them read."""
        return cls(name="anonymous", role=Role.VIEWER)

    @classmethod
    def trusted(cls, name: str) -> Caller:
        """Return a caller with all rights: whoever runs commands or Python code has access to the shell anyway."""
        return cls(name=name, role=Role.ADMIN)

    @property
    def identity(self) -> str:
        """Return the key of the caller's rate limits and idempotent requests: one per token, else one per person."""
        if self.token is not None:
            return f"token:{self.token}"
        return f"user:{self.user}" if self.user is not None else f"name:{self.name}"

    def has_role(self, role: Role) -> bool:
        """Return whether the caller has that role or a higher one."""
        return self.role >= role

    def sees_project(self, project: UUID) -> bool:
        """Return whether the caller may see the project with that id."""
        return self.projects is None or project in self.projects

    def require(self, role: Role, action: str) -> None:
        """Refuse a caller with a lower role.

        Args:
            role: the lowest role that is allowed to do it.
            action: what was requested, as the refusal words it, such as "release ports".

        Raises:
            NotPermitted: the caller's role is lower.
        """
        if not self.has_role(role):
            raise NotPermitted(
                f"{self.name or 'You'} may not {action}: that requires the role {role.label}. Ask an admin of this "
                "Portal.",
                needs=role.label,
            )

    def as_viewer(self) -> Caller:
        """Return the same caller with the right to read, for someone who may read the metrics and nothing else."""
        return replace(self, role=Role.VIEWER)

    @property
    def sees_everything(self) -> bool:
        """Return whether the caller may see all projects."""
        return self.projects is None

    # For templates

    @property
    def may_view(self) -> bool:
        return self.has_role(Role.VIEWER)

    @property
    def may_change(self) -> bool:
        return self.has_role(Role.OPERATOR)

    @property
    def may_administer(self) -> bool:
        return self.has_role(Role.ADMIN)

    @property
    def may_scrape(self) -> bool:
        """Return whether the caller may read the metrics."""
        is_anonymous = self.user is None and self.token is None
        return self.role in (Role.SCRAPER, Role.ADMIN) or (is_anonymous and self.may_view)
