"""Connect as the owner of the database, for what the application may not do: migrate, back up and restore."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

import dj_database_url
from django.conf import settings
from django.db import connection
from django.utils.module_loading import import_string
from psycopg.sql import SQL, Identifier, Literal

from portal.environment import invalid

POSTGRESQL = "django.db.backends.postgresql"  # as dj-database-url names it
DEFAULT_PORT = "5432"
FIRST_HOST = "host"  # takes the place of several hosts, which a URL cannot have
DIFFERS = ("USER", "PASSWORD", "HOST", "PORT")  # the owner may connect past a pooler


def parse_url(url: str) -> dict[str, Any]:
    """Return the settings of the database that a URL names, or an empty dictionary if it is no such URL.

    Like libpq's URLs, it may name several hosts: `postgresql://portal@db1:5432,db2:5432/portal`.
    """
    try:
        parts = urlsplit(url)
        user, at, places = parts.netloc.rpartition("@")
        if "," not in places:
            return dict(dj_database_url.parse(url))
        hosts, ports = zip(*(_host_and_port(place) for place in places.split(",")), strict=True)
        one = parts._replace(netloc=f"{user}{at}{FIRST_HOST}")
        return {**dj_database_url.parse(one.geturl()), "HOST": ",".join(hosts), "PORT": ",".join(ports)}
    except ValueError:
        return {}


def _host_and_port(place: str) -> tuple[str, str]:
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^\[\]:]*))(?::([0-9]{1,5}))?", place)
    if match is None:
        raise ValueError(place)
    return unquote(match[1] or match[2] or ""), match[3] or DEFAULT_PORT


def owner_of(database: Mapping[str, Any], url: str) -> dict[str, Any]:
    """Return the settings of the owner's connection that differ from those of the application's.

    Args:
        database: the settings of DATABASE_URL.
        url: DATABASE_OWNER_URL; if it is empty, one role does everything.

    Raises:
        ImproperlyConfigured: it is not the URL of the same database.
    """
    if not url:
        return {}
    owner = parse_url(url)
    if owner.get("ENGINE") != POSTGRESQL or owner["NAME"] != database["NAME"]:
        raise invalid("DATABASE_OWNER_URL", "it must be that of the same database as DATABASE_URL, with another user")
    return {name: owner[name] for name in DIFFERS}


@contextmanager
def as_owner() -> Iterator[None]:
    """Connect as the owner until the end of the block. Within another such block, nothing changes."""
    before = {name: connection.settings_dict[name] for name in settings.DATABASE_OWNER}
    if before == settings.DATABASE_OWNER:
        yield
        return
    connection.close()
    connection.settings_dict.update(settings.DATABASE_OWNER)
    try:
        yield
    finally:
        connection.close()
        connection.settings_dict.update(before)


def set_limits() -> None:
    """Let the server end what takes too long, in all later sessions of the role that serves.

    A role can set its own limits only. So as the owner, who may need longer, this does nothing.
    """
    role = application_role()
    if role and connection.settings_dict["USER"] != role:
        return
    limits = {name: str(value) for name, value in settings.DATABASE_LIMITS.items()}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT unnest(s.setconfig) FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase "
            "WHERE s.setrole = current_user::regrole AND d.datname = current_database()"
        )
        if {f"{name}={value}" for name, value in limits.items()} <= {setting for (setting,) in cursor.fetchall()}:
            return
        database = Identifier(connection.settings_dict["NAME"])
        for name, value in limits.items():
            change = SQL("ALTER ROLE CURRENT_USER IN DATABASE {} SET {} = {}")
            cursor.execute(change.format(database, Identifier(name), Literal(value)))
    if not connection.in_atomic_block:
        connection.close()  # so that the next statement has them


def grant() -> None:
    """Give the role that serves the rights that it needs, if it isn't the owner. Call this as the owner."""
    if role := application_role():
        import_string(settings.DATABASE_GRANTS)(role)


def application_role() -> str:
    """Return the role that serves, or an empty string if it is the owner."""
    role: str = settings.DATABASE_APPLICATION.get("USER", "")
    return role if role != settings.DATABASE_OWNER.get("USER", "") else ""
