"""Create users with a role, and clients that are logged in as them."""

from django.contrib.auth.models import Group, User
from django.test import Client

PASSWORD = "correct-horse-battery"


def user_with_role(role: str = "", *, is_staff: bool = False) -> User:
    """Return the user who has this role and is named after it, creating them if they do not exist.

    Without a role, return the user nobody, who is in no group.
    """
    name = role or "nobody"
    user = User.objects.filter(username=name).first()
    if user is None:
        user = User.objects.create_user(name, password=PASSWORD, is_staff=is_staff)
        user.groups.set(Group.objects.filter(name=role))
    return user


def client_with_role(role: str = "", *, is_staff: bool = False) -> Client:
    """Return a client that is logged in as the user with this role."""
    client = Client()
    client.force_login(user_with_role(role, is_staff=is_staff))
    return client
