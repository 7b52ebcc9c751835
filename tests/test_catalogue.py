"""What stands in the database's catalogue: no later migration drops a guard unseen."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection

from allocations.ports.refusals import BY_CONSTRAINT

pytestmark = [pytest.mark.django_db, pytest.mark.both_servers]

TABLES = (
    *("projects", "port_ranges", "port_allocations", "port_health_checks", "listeners", "audits", "events"),
    *("api_tokens", "user_limits", "idempotent_answers", "auth_user", "auth_user_groups", "auth_group"),
)

CONSTRAINTS = {
    # check (c), unique (u), exclusion (x), foreign key (f), by table
    "projects": {"c": {"projects_name", "projects_mode", "projects_quota"}, "u": {"projects_name_key"}},
    "port_ranges": {
        "c": {"port_ranges_name", "port_ranges_bounds"},
        "u": {"port_ranges_range_name_key", "port_ranges_copied"},
        "x": {"port_ranges_no_overlap"},
        "f": {"port_ranges_project_fk"},
    },
    "port_allocations": {
        "c": {
            *("port_allocations_port", "port_allocations_status", "port_allocations_protocol"),
            "port_allocations_pending_expires",
            *("port_allocations_instance", "port_allocations_service", "port_allocations_hostname"),
            *("port_allocations_cloudflare", "port_allocations_health", "port_allocations_expiry"),
            *("port_allocations_released_at", "port_allocations_copies", "port_allocations_inside_range"),
            *("port_allocations_own_or_shared", "port_allocations_canonical_host"),
        },
        "f": {"port_allocations_project_fk", "port_allocations_range_fk", "port_allocations_range_copy_fk"},
    },
    "port_health_checks": {"c": {"port_health_checks_status", "port_health_checks_time"}},
    "listeners": {"c": {"listeners_port"}, "u": {"listeners_one_socket"}},
    "api_tokens": {"c": {"api_tokens_public", "api_tokens_hash", "api_tokens_role", "api_tokens_expiry"}},
    "idempotent_answers": {"u": {"idempotent_answers_key"}},
}
# Unique indexes over a part of a table are no constraints to PostgreSQL.
PARTIAL_UNIQUE = {
    "port_allocations_one_holder": "(hostname, protocol, port_number) INCLUDE (expires_at)",
    "port_allocations_one_instance": "(project_id, service_name, hostname, protocol, instance)",
    "port_allocations_one_cloudflare": "(cloudflare_hostname)",
}
TRIGGERS = {
    ("port_allocations", "port_allocations_guard", "A"),
    ("port_allocations", "port_allocations_no_truncate", "A"),
    ("port_allocations", "port_allocations_event_insert", "A"),
    ("port_allocations", "port_allocations_event_update", "A"),
    ("port_ranges", "port_ranges_event", "A"),
    ("port_ranges", "port_ranges_no_truncate", "A"),
    ("projects", "projects_event", "A"),
    ("projects", "projects_no_truncate", "A"),
    ("events", "events_append_only", "A"),
    ("events", "events_no_truncate", "A"),
    ("api_tokens", "api_tokens_guard", "A"),
    ("auth_user", "auth_user_last_admin", "A"),
    ("auth_user_groups", "auth_user_groups_last_admin", "A"),
    ("auth_group", "auth_group_last_admin", "A"),
    ("user_limits", "user_limits_last_admin", "A"),
    ("auth_user", "auth_user_no_truncate", "A"),
    ("auth_user_groups", "auth_user_groups_no_truncate", "A"),
    ("auth_group", "auth_group_no_truncate", "A"),
}
FUNCTIONS = {
    "find_available_port": (
        "range_id uuid, hostname text DEFAULT 'localhost'::text, protocol text DEFAULT 'tcp'::text",
        "integer",
    ),
    "allocate_port": (
        "project_id uuid, range_id uuid, service_name text, service_type text, "
        "hostname text DEFAULT 'localhost'::text, protocol text DEFAULT 'tcp'::text",
        "port_allocations",
    ),
    "release_port": (
        "port integer, hostname text DEFAULT 'localhost'::text, protocol text DEFAULT 'tcp'::text",
        "boolean",
    ),
    "canonical_host": ("host text", "text"),
    "count_request": ("keys text[], per_minute integer[]", "double precision"),
}
COLUMNS = {
    "port_ranges": (
        "id uuid, project_id uuid, range_name character varying(255), start_port integer, end_port integer, "
        "description text, is_active boolean, is_shared boolean"
    ),
    "port_allocations": (
        "id uuid, project_id uuid, port_range_id uuid, port_number integer, service_name character varying(255), "
        "instance integer, service_type character varying(100), description text, status character varying(50), "
        "hostname character varying(255), protocol character varying(10), cloudflare_hostname character varying(253), "
        "metadata jsonb, allocated_at timestamp with time zone, last_used_at timestamp with time zone, "
        "expires_at timestamp with time zone, released_at timestamp with time zone"
    ),
    "port_health_checks": (
        "id uuid, port_allocation_id uuid, check_type character varying(50), status character varying(50), "
        "response_time_ms integer, checked_at timestamp with time zone"
    ),
}


def rows(question: str, *values: Any) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(question, values)
        return cursor.fetchall()


def constraints(table: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name, kind in rows(
        "SELECT conname, contype::text FROM pg_constraint "
        "WHERE conrelid = %s::regclass AND contype IN ('c', 'u', 'x', 'f') AND convalidated",
        table,
    ):
        found.setdefault(kind, set()).add(name)
    return found


@pytest.mark.parametrize("table", sorted(CONSTRAINTS))
def test_constraints(table: str) -> None:
    found = constraints(table)
    # Django's own foreign keys and unique columns have generated names, which nobody needs to know.
    named = {kind: {n for n in names if n.count("_") < 8 and not n.endswith("_id")} for kind, names in found.items()}
    for kind, expected in CONSTRAINTS[table].items():
        assert expected <= named.get(kind, set()), f"{table}: {kind}"


def test_every_constraint_of_the_registry_has_a_sentence() -> None:
    told = set(BY_CONSTRAINT)
    expected = {name for kinds in CONSTRAINTS.values() for names in kinds.values() for name in names} | set(
        PARTIAL_UNIQUE
    )
    assert expected - told == {"port_ranges_copied"}  # the target of a foreign key: its id is unique alone


@pytest.mark.parametrize(("name", "columns"), sorted(PARTIAL_UNIQUE.items()))
def test_partial_unique_indexes(name: str, columns: str) -> None:
    ((definition,),) = rows("SELECT indexdef FROM pg_indexes WHERE indexname = %s", name)
    assert definition.startswith("CREATE UNIQUE INDEX")
    assert columns in definition
    assert "'released'" in definition


def test_triggers_fire_always() -> None:
    found = rows(
        "SELECT tgrelid::regclass::text, tgname, tgenabled::text FROM pg_trigger "
        "WHERE NOT tgisinternal AND tgrelid = ANY(%s::regclass[])",
        list(TABLES),
    )
    assert {tuple(row) for row in found} == TRIGGERS


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_functions(name: str) -> None:
    found = rows(
        "SELECT pg_get_function_arguments(oid), pg_get_function_result(oid) FROM pg_proc "
        "WHERE proname = %s AND pronamespace = current_schema()::regnamespace",
        name,
    )
    assert [tuple(row) for row in found] == [FUNCTIONS[name]]


@pytest.mark.parametrize("table", sorted(COLUMNS))
def test_columns(table: str) -> None:
    found = dict(
        rows(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
            "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
            table,
        )
    )
    for column in COLUMNS[table].split(", "):
        name, kind = column.split(" ", 1)
        assert found[name] == kind, name


def test_unique_range_name() -> None:
    found = rows(
        "SELECT indexdef FROM pg_indexes WHERE tablename = 'port_ranges' AND indexdef LIKE '%%UNIQUE%%(range_name)%%'"
    )
    assert found


def test_what_is_acknowledged_is_on_disk() -> None:
    """Invariant 9 stands on this setting; test_embedded kills the server."""
    assert rows("SHOW synchronous_commit") == [("on",)]
    assert rows("SHOW fsync") == [("on",)] or connection.settings_dict["HOST"].startswith("/tmp")
