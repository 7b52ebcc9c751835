"""What the application may do in the database, and the attacks by SQL that it therefore cannot make."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest
from django.conf import settings
from django.db import connection
from psycopg import sql as psycopg_sql

from allocations.ports import PortManager
from allocations.sql.grants import GRANTS, apply_grants
from portal.embedded.access import APPLICATION, OWNER
from tests.make import FIRST

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(not settings.EMBEDDED_DATABASE, reason="the roles are those of the embedded PostgreSQL"),
]
RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN")


def connect(role: str, database: str) -> psycopg.Connection:
    address = {"host": connection.settings_dict["HOST"], "port": connection.settings_dict["PORT"]}
    return psycopg.connect(user=role, dbname=database, autocommit=True, **address)


@pytest.fixture
def application(ports: PortManager) -> Iterator[psycopg.Connection]:
    """A session of the role that serves Portal, on a registry with a held and a released port."""
    ports.allocate("shop", "api")
    ports.allocate("shop", "old")
    ports.release("shop", "old")
    with connect(APPLICATION, connection.settings_dict["NAME"]) as session:
        yield session


def test_rights_are_exactly_those_that_are_listed(application: psycopg.Connection) -> None:
    found = application.execute(
        "SELECT c.relname, array_agg(p ORDER BY p) FILTER (WHERE has_table_privilege(c.oid, p)) "
        "FROM pg_class c CROSS JOIN unnest(%s::text[]) p "
        "WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' GROUP BY 1",
        (list(RIGHTS),),
    ).fetchall()
    assert dict(found) == {table: sorted(rights.split(", ")) for table, rights in GRANTS.items()}


ATTACKS = {
    # What the guards keep
    "change an event": "UPDATE events SET actor = 'someone else'",
    "delete events": "DELETE FROM events",
    "empty the history": "TRUNCATE events",
    "write an event": "INSERT INTO events (actor, source, verb, subject, subject_id, project_id, label) "
    "VALUES ('a', 'b', 'created', 'project', gen_random_uuid(), gen_random_uuid(), 'x')",
    "delete a port": "DELETE FROM port_allocations",
    "empty the registry": "TRUNCATE port_allocations CASCADE",
    "change a released port": "UPDATE port_allocations SET description = 'x' WHERE status = 'released'",
    "bring a released port back": "UPDATE port_allocations SET status = 'allocated', released_at = NULL "
    "WHERE status = 'released'",
    # Around the guards
    "switch triggers off": "ALTER TABLE events DISABLE TRIGGER ALL",
    "act as a replica": "SET session_replication_role = replica",
    "act as a replica, by a function": "SELECT set_config('session_replication_role', 'replica', false)",
    "drop a trigger": "DROP TRIGGER events_append_only ON events",
    "replace a guard": "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql "
    "AS 'BEGIN RETURN NEW; END'",
    "drop a constraint": "ALTER TABLE port_allocations DROP CONSTRAINT port_allocations_port",
    "drop the index against two holders": "DROP INDEX port_allocations_one_holder",
    "create a table": "CREATE TABLE mine (n int)",
    "create a temporary table": "CREATE TEMPORARY TABLE events (n int)",
    "create a schema": "CREATE SCHEMA mine",
    "create a function": "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "create a function in another schema": "CREATE FUNCTION pg_temp.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "create a trigger": "CREATE TRIGGER mine BEFORE INSERT ON projects EXECUTE FUNCTION refuse_change()",
    "create a rule": "CREATE RULE mine AS ON DELETE TO projects DO INSTEAD NOTHING",
    "create an extension": "CREATE EXTENSION vector",
    "create a language": "CREATE LANGUAGE mine HANDLER plpgsql_call_handler",
    "change a foreign key's check": "ALTER TABLE port_ranges DROP CONSTRAINT port_ranges_no_overlap",
    "lock everybody out": "BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE",
    # Become somebody else
    "become the owner": f"SET ROLE {OWNER}",
    "become the superuser": "SET SESSION AUTHORIZATION postgres",
    "be a superuser": "ALTER ROLE CURRENT_USER SUPERUSER",
    "create a role": "CREATE ROLE mine SUPERUSER",
    "join the owner": f"GRANT {OWNER} TO CURRENT_USER",
    "join those who run programs": "GRANT pg_execute_server_program TO CURRENT_USER",
    "own a table": "ALTER TABLE events OWNER TO CURRENT_USER",
    # Reach the machine
    "run a program": "COPY projects FROM PROGRAM 'id'",
    "run a program with the rows": "COPY (SELECT 1) TO PROGRAM 'cat > /tmp/x'",
    "write a file": "COPY (SELECT 1) TO '/tmp/portal-attack'",
    "read a file": "COPY projects (name) FROM '/etc/passwd'",
    "read a file, by a function": "SELECT pg_read_file('/etc/passwd')",
    "read a binary file": "SELECT pg_read_binary_file('/etc/passwd')",
    "list a directory": "SELECT pg_ls_dir('/')",
    "import a file": "SELECT lo_import('/etc/passwd')",
    "export a file": "SELECT lo_export(lo_from_bytea(0, 'x'), '/tmp/portal-attack')",
    "load a library": "LOAD '/tmp/evil.so'",
    "change the server": "ALTER SYSTEM SET archive_command = 'id'",
    "read how to connect": "SELECT * FROM pg_hba_file_rules",
    "read password hashes of roles": "SELECT * FROM pg_authid",
    "stop another session": "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres'",
    "reload": "SELECT pg_reload_conf()",
}


@pytest.mark.parametrize("statement", ATTACKS.values(), ids=ATTACKS)
def test_attack_fails(application: psycopg.Connection, statement: str) -> None:
    before = state()
    with pytest.raises(psycopg.Error) as refused:
        application.execute(statement)
    # Refused for want of rights, or by a guard; not for a mistake in the statement.
    assert refused.value.sqlstate in ("42501", "23514", "0LP01"), refused.value
    assert state() == before


def state() -> list[object]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT (SELECT count(*) FROM events), (SELECT array_agg(a::text ORDER BY id) FROM port_allocations a)"
        )
        return list(cursor.fetchone())


def test_application_works(application: psycopg.Connection) -> None:
    """The same session may do what serving takes, and its changes are in the history."""
    changed = application.execute("UPDATE port_allocations SET description = 'new' WHERE port_number = %s", (FIRST,))
    assert changed.rowcount == 1
    (actor,) = application.execute("SELECT actor FROM events ORDER BY id DESC LIMIT 1").fetchone() or ()
    assert actor == f"db:{APPLICATION}"


@pytest.mark.parametrize("database", ["postgres", "template1"])
def test_application_reaches_no_other_database(application: psycopg.Connection, database: str) -> None:
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        connect(APPLICATION, database)


def test_owner_is_no_superuser(application: psycopg.Connection) -> None:
    with connect(OWNER, connection.settings_dict["NAME"]) as session, pytest.raises(psycopg.Error) as refused:
        session.execute("COPY (SELECT 1) TO PROGRAM 'id'")
    assert refused.value.sqlstate == "42501"


def test_name_with_quotes_is_a_role_like_any_other() -> None:
    """The role of one's own server comes from DATABASE_URL."""
    role = f'we"ird {uuid4().hex[:6]}'
    with connection.cursor() as cursor:
        cursor.execute(psycopg_sql.SQL("CREATE ROLE {}").format(psycopg_sql.Identifier(role)))
        try:
            apply_grants(role)
            cursor.execute("SELECT has_table_privilege(%s, 'events', 'SELECT')", (role,))
            assert cursor.fetchone() == (True,)
        finally:
            cursor.execute(psycopg_sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(psycopg_sql.Identifier(role)))
