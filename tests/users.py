"""Create users with a role, and clients that are logged in as them."""

from collections.abc import Iterable

from django.contrib.auth.models import Group, User
from django.test import Client

from allocations.models import Project, UserLimit

PASSWORD = "correct-horse-battery"


def user_with_role(
    role: str = "", *, name: str = "", is_staff: bool = False, limited_to: Iterable[str] | None = None
) -> User:
    """Return the user with this name, creating them with this role if they do not exist.

    Args:
        role: the group of the user; without it they are in no group.
        name: by default that of the role, or nobody.
        is_staff: whether the user may log in to the Django admin.
        limited_to: the names of the projects that they may see; by default they may see all.
    """
    name = name or role or "nobody"
    user = User.objects.filter(username=name).first()
    if user is None:
        user = User.objects.create_user(name, password=PASSWORD, is_staff=is_staff)
        user.groups.set(Group.objects.filter(name=role))
        if limited_to is not None:
            UserLimit.objects.create(user=user).projects.set(Project.objects.filter(name__in=limited_to))
    return user


def superuser(name: str = "root") -> User:
    """Create a superuser, who may do everything and is not limited."""
    return User.objects.create_superuser(name, password=PASSWORD)


def client_of(user: User) -> Client:
    """Return a client that is logged in as this user."""
    client = Client()
    client.force_login(user)
    return client


def client_with_role(
    role: str = "", *, name: str = "", is_staff: bool = False, limited_to: Iterable[str] | None = None
) -> Client:
    """Return a client that is logged in as the user that user_with_role() returns."""
    return client_of(user_with_role(role, name=name, is_staff=is_staff, limited_to=limited_to))
