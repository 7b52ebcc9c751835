"""allocations/sql/schema.sql shows what the migrations make."""

from __future__ import annotations

import pytest
from django.apps import apps
from django.conf import settings

from scripts import schema

pytestmark = pytest.mark.django_db

embedded = pytest.mark.skipif(
    not settings.EMBEDDED_DATABASE, reason="schema.sql is written by the pg_dump of the embedded PostgreSQL"
)


@embedded
def test_schema_sql_is_up_to_date() -> None:
    made = schema.schema(schema.dump(), schema.own_tables())
    assert schema.FILE.read_text() == made, "run `make schema`"


@embedded
def test_every_table_belongs_to_django_or_is_shown() -> None:
    """A table that a migration makes with SQL has no model: schema.py has to know it by name."""
    tables = {entry.table for entry in schema.entries(schema.dump()) if entry.kind == "TABLE"}
    of_models = {model._meta.db_table for model in apps.get_models(include_auto_created=True)}
    assert tables - of_models - {"django_migrations"} == schema.WITHOUT_MODEL


@embedded
def test_nothing_of_a_dump_gets_lost() -> None:
    dumped = schema.dump()
    made = schema.schema(dumped, schema.own_tables())
    for entry in schema.entries(dumped):
        if entry.table in {*schema.own_tables(), ""} or entry.kind == "TRIGGER":
            name = entry.name.partition("(")[0]
            assert (f"ALTER TABLE {entry.table} ALTER" if entry.kind == "SEQUENCE" else name) in made, entry


def test_what_has_no_place_is_an_error() -> None:
    dumped = "--\n-- Name: projects; Type: TABLE; Schema: public; Owner: -\n--\n\nCREATE TABLE public.projects ();\n\n"
    policy = "--\n-- Name: projects mine; Type: POLICY; Schema: public; Owner: -\n--\n\nCREATE POLICY mine;\n"
    assert "CREATE TABLE projects" in schema.schema(dumped, {"projects"})
    with pytest.raises(ValueError, match="policy"):
        schema.schema(dumped + policy, {"projects"})


def test_a_long_line_breaks_between_words_and_never_in_a_text() -> None:
    text = "'" + "one two " * 20 + "'"
    lines = schema.broken(f"    CONSTRAINT c CHECK ((name <> {text}) AND {' AND '.join(['(port > 0)'] * 20)})")
    assert any(text in line for line in lines)
    assert all(len(line) <= schema.WIDTH or text in line for line in lines)
    assert len(lines) > 3
    assert schema.broken("    id uuid NOT NULL,") == ["    id uuid NOT NULL,"]


def test_the_body_of_a_function_stays_as_it_is() -> None:
    body = "AS $$\nBEGIN\n    SELECT   'public.x'::text;  -- " + "long " * 40 + "\nEND $$;"
    statement = (
        f"CREATE FUNCTION public.f(a text DEFAULT ''::text) RETURNS public.projects\n    LANGUAGE plpgsql\n    {body}"
    )
    assert schema.readable(statement) == (
        f"CREATE FUNCTION f(a text DEFAULT '') RETURNS projects\n    LANGUAGE plpgsql\n{body}"
    )
