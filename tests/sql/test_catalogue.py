"""Test the catalogue of the database, so that no migration drops a constraint, trigger or function unnoticed."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection

from allocations.ports.db_errors import BY_CONSTRAINT

pytestmark = [pytest.mark.django_db, pytest.mark.both_servers]

TABLES = (
    *("projects", "port_ranges", "port_allocations", "reservations", "port_health_checks", "listeners", "audits"),
    *("events", "hosts"),
    *(
        "api_tokens",
        "api_token_projects",
        "user_limits",
        "idempotent_answers",
        "auth_user",
        "auth_user_groups",
        "auth_group",
    ),
)

CONSTRAINTS = {
    # Table: {kind: names}, where the kind is check (c), unique (u), exclusion (x) or foreign key (f).
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
            *("port_allocations_own_or_shared", "port_allocations_canonical_host", "port_allocations_reservation"),
        },
        "f": {
            *("port_allocations_project_fk", "port_allocations_range_fk", "port_allocations_range_copy_fk"),
            "port_allocations_reservation_fk",
        },
    },
    "reservations": {
        "c": {"reservations_bounds", "reservations_protocol", "reservations_canonical_host"},
        "f": {"reservations_project_fk"},
    },
    "port_health_checks": {"c": {"port_health_checks_status", "port_health_checks_time"}},
    "hosts": {"c": {"hosts_canonical"}},
    "listeners": {"c": {"listeners_port"}, "u": {"listeners_one_socket"}},
    "api_tokens": {"c": {"api_tokens_public", "api_tokens_hash", "api_tokens_role", "api_tokens_expiry"}},
    "idempotent_answers": {"u": {"idempotent_answers_key"}},
}
# PostgreSQL does not list partial unique indexes as constraints.
PARTIAL_UNIQUE_INDEXES = {
    "port_allocations_one_holder": "(hostname, protocol, port_number) INCLUDE (expires_at)",
    "port_allocations_one_instance": "(project_id, service_name, hostname, protocol, instance)",
    "port_allocations_one_cloudflare": "(cloudflare_hostname)",
}
TRIGGERS = {
    ("port_allocations", "port_allocations_guard", "A"),
    ("port_allocations", "port_allocations_no_truncate", "A"),
    ("port_allocations", "port_allocations_event_insert", "A"),
    ("port_allocations", "port_allocations_event_update", "A"),
    ("port_allocations", "port_allocations_blocks", "A"),
    ("reservations", "reservations_guard", "A"),
    ("reservations", "reservations_told", "A"),
    ("reservations", "reservations_complete", "A"),
    ("reservations", "reservations_event", "A"),
    ("reservations", "reservations_no_truncate", "A"),
    ("port_ranges", "port_ranges_event", "A"),
    ("port_ranges", "port_ranges_no_truncate", "A"),
    ("projects", "projects_event", "A"),
    ("projects", "projects_no_truncate", "A"),
    ("events", "events_append_only", "A"),
    ("events", "events_no_truncate", "A"),
    ("api_token_projects", "api_token_projects_guard", "A"),
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
    "hold_port": (
        "project_id uuid, range_ids uuid[], service_name text, service_type text DEFAULT ''::text, "
        "hostname text DEFAULT 'localhost'::text, protocol text DEFAULT 'tcp'::text, "
        "port_number integer DEFAULT NULL::integer, status text DEFAULT 'allocated'::text, "
        "description text DEFAULT ''::text, owner text DEFAULT ''::text, cloudflare_hostname text DEFAULT NULL::text, "
        "metadata jsonb DEFAULT '{}'::jsonb, "
        "expires_at timestamp with time zone DEFAULT NULL::timestamp with time zone, reuse boolean DEFAULT false",
        "port_allocations",
    ),
    "next_free_port": (
        "start_port integer, end_port integer, hostname text, protocol text, lock_key integer DEFAULT NULL::integer, "
        "OUT free_port integer, OUT busy_port integer",
        "record",
    ),
    "next_instance": ("project_id uuid, service_name text, hostname text, protocol text", "integer"),
    "usable_range": ("range_id uuid", "port_ranges"),
    "is_full_admin": ("user_id integer", "boolean"),
    "reserve_ports": (
        "project_id uuid, start_port integer, end_port integer, hostname text DEFAULT 'localhost'::text, "
        "protocol text DEFAULT 'tcp'::text, description text DEFAULT ''::text, "
        "expires_at timestamp with time zone DEFAULT NULL::timestamp with time zone, "
        "OUT reservation_id uuid, OUT refused_port integer",
        "record",
    ),
    "guard_reservation": ("", "trigger"),
    "tell_reserved_ports": ("", "trigger"),
    "follow_reserved_ports": ("", "trigger"),
    "check_reservation": ("", "trigger"),
    "guard_allocation": ("", "trigger"),
    "guard_token": ("", "trigger"),
    "guard_token_projects": ("", "trigger"),
    "guard_last_admin": ("", "trigger"),
    "record_event": ("", "trigger"),
    "refuse_change": ("", "trigger"),
    "refuse_truncate": ("", "trigger"),
}
# The function that each trigger calls.
TRIGGER_FUNCTIONS = {
    "port_allocations_guard": "guard_allocation",
    "port_allocations_event_insert": "record_event",
    "port_allocations_event_update": "record_event",
    "port_allocations_blocks": "follow_reserved_ports",
    "reservations_guard": "guard_reservation",
    "reservations_told": "tell_reserved_ports",
    "reservations_complete": "check_reservation",
    "reservations_event": "record_event",
    "reservations_no_truncate": "refuse_change",
    "port_ranges_event": "record_event",
    "projects_event": "record_event",
    "port_allocations_no_truncate": "refuse_change",
    "port_ranges_no_truncate": "refuse_change",
    "projects_no_truncate": "refuse_change",
    "events_no_truncate": "refuse_change",
    "events_append_only": "refuse_change",
    "api_token_projects_guard": "guard_token_projects",
    "api_tokens_guard": "guard_token",
    "auth_user_last_admin": "guard_last_admin",
    "auth_user_groups_last_admin": "guard_last_admin",
    "auth_group_last_admin": "guard_last_admin",
    "user_limits_last_admin": "guard_last_admin",
    "auth_user_no_truncate": "refuse_truncate",
    "auth_user_groups_no_truncate": "refuse_truncate",
    "auth_group_no_truncate": "refuse_truncate",
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


def rows(query: str, *values: Any) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(query, values)
        return cursor.fetchall()


def constraints(table: str) -> dict[str, set[str]]:
    names_by_kind: dict[str, set[str]] = {}
    for name, kind in rows(
        "SELECT conname, contype::text FROM pg_constraint "
        "WHERE conrelid = %s::regclass AND contype IN ('c', 'u', 'x', 'f') AND convalidated",
        table,
    ):
        names_by_kind.setdefault(kind, set()).add(name)
    return names_by_kind


@pytest.mark.parametrize("table", sorted(CONSTRAINTS))
def test_constraints_exist(table: str) -> None:
    names_by_kind = constraints(table)
    # Ignore the generated names of Django's own foreign keys and unique columns.
    named = {
        kind: {n for n in names if n.count("_") < 8 and not n.endswith("_id")} for kind, names in names_by_kind.items()
    }
    for kind, expected in CONSTRAINTS[table].items():
        assert expected <= named.get(kind, set()), f"{table}: {kind}"


def test_every_constraint_has_an_error_message() -> None:
    explained = set(BY_CONSTRAINT)
    expected = {name for kinds in CONSTRAINTS.values() for names in kinds.values() for name in names} | set(
        PARTIAL_UNIQUE_INDEXES
    )
    assert expected - explained == {"port_ranges_copied"}  # the target of a foreign key; its id alone is unique


@pytest.mark.parametrize(("name", "columns"), sorted(PARTIAL_UNIQUE_INDEXES.items()))
def test_partial_unique_index_exists(name: str, columns: str) -> None:
    ((definition,),) = rows("SELECT indexdef FROM pg_indexes WHERE indexname = %s", name)
    assert definition.startswith("CREATE UNIQUE INDEX")
    assert columns in definition
    assert "'released'" in definition


def test_triggers_always_fire() -> None:
    triggers = rows(
        "SELECT tgrelid::regclass::text, tgname, tgenabled::text FROM pg_trigger "
        "WHERE NOT tgisinternal AND tgrelid = ANY(%s::regclass[])",
        list(TABLES),
    )
    assert {tuple(row) for row in triggers} == TRIGGERS


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_function_has_its_signature(name: str) -> None:
    signatures = rows(
        "SELECT pg_get_function_arguments(oid), pg_get_function_result(oid) FROM pg_proc "
        "WHERE proname = %s AND pronamespace = current_schema()::regnamespace",
        name,
    )
    assert [tuple(row) for row in signatures] == [FUNCTIONS[name]]


def test_there_are_no_other_functions() -> None:
    """A function keeps its name: there is no `_v2` and no overload with other parameters."""
    names = rows("SELECT proname FROM pg_proc WHERE pronamespace = current_schema()::regnamespace")
    assert sorted(name for (name,) in names) == sorted(FUNCTIONS)


def test_triggers_call_their_functions() -> None:
    functions = rows(
        "SELECT tgname, tgfoid::regproc::text FROM pg_trigger WHERE NOT tgisinternal AND tgrelid = ANY(%s::regclass[])",
        list(TABLES),
    )
    assert dict(functions) == TRIGGER_FUNCTIONS


@pytest.mark.parametrize("table", sorted(COLUMNS))
def test_columns_have_their_types(table: str) -> None:
    types = dict(
        rows(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
            "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
            table,
        )
    )
    for column in COLUMNS[table].split(", "):
        name, expected = column.split(" ", 1)
        assert types[name] == expected, name


def test_range_name_is_unique() -> None:
    indexes = rows(
        "SELECT indexdef FROM pg_indexes WHERE tablename = 'port_ranges' AND indexdef LIKE '%%UNIQUE%%(range_name)%%'"
    )
    assert indexes


def test_commits_are_written_to_disk() -> None:
    """A committed change survives a crash only with these settings. test_embedded kills the server to prove it."""
    assert rows("SHOW synchronous_commit") == [("on",)]
    assert rows("SHOW fsync") == [("on",)] or connection.settings_dict["HOST"].startswith("/tmp")
