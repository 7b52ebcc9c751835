"""Write allocations/sql/schema.sql: the schema that the migrations make, for people to read.

The migrations run on a temporary embedded PostgreSQL. Tables of Django's own apps are left out, but not our triggers on
them.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import django
from django.apps import apps
from django.core.management import call_command
from django.db import connection

from portal import backup
from portal.database import as_owner
from portal.embedded.server import Server
from portal.environment import VARIABLES

FILE = ROOT / "allocations" / "sql" / "schema.sql"
HEADER = """\
-- The whole schema of Portal's tables, with the text of every function and trigger.
--
-- `make schema` generates this file from the migrations, and a test fails if it differs from what they make. It is for
-- reading: to change the schema, write a migration (see allocations/migrations/sql/__init__.py).
"""
WIDTH = 120
# Tables of the app that no model describes.
WITHOUT_MODEL = {"rate_limits", "quiet_audits"}
_DEFAULT_IDENTITY = (
    r" \(\n    SEQUENCE NAME \w+\n    START WITH 1\n    INCREMENT BY 1\n"
    r"    NO MINVALUE\n    NO MAXVALUE\n    CACHE 1\n\)"
)
# Text that every statement contains, defaults, and casts to text of what is text already.
NOISE = [
    (re.compile(pattern), shorter)
    for pattern, shorter in (
        (r"\bpublic\.", ""),
        (r"\bpg_catalog\.", ""),
        (r"\bALTER TABLE ONLY (\w+)\n    ", r"ALTER TABLE \1 "),
        (r"\bUSING btree ", ""),
        (_DEFAULT_IDENTITY, ""),
        (r"\(([\w.]+)\)::text\b", r"\1"),
        (r"\((ARRAY\[[^]]*\])\)::text\[\]", r"\1"),
        (r"'::(text|character varying)\b(?!\[)", "'"),
    )
]
TABLE_PARTS = ("TABLE", "SEQUENCE", "CONSTRAINT", "INDEX", "FK CONSTRAINT")

_ENTRY = re.compile(r"^--\n-- Name: (.+); Type: (.+); Schema: .+; Owner: -\n--\n\n", re.MULTILINE)
_TABLE_OF = re.compile(r"(?:ALTER TABLE(?: ONLY)?|CREATE (?:UNIQUE )?INDEX \w+ ON(?: ONLY)?) public\.(\w+)")
_BODY = re.compile(r"AS (\$\w*\$).*?\1", re.DOTALL)
# A quoted text or name counts as one word, whatever is in it.
_WORD = re.compile(r"""(?:'(?:[^']|'')*'|"[^"]*"|[^\s'"])+""")


@dataclass(frozen=True, order=True)
class Entry:
    """One object of a dump."""

    kind: str
    table: str  # empty for a function
    name: str
    text: str


def dump() -> str:
    """Return what pg_dump writes about the schema of the configured database."""
    command = [backup.program("pg_dump"), "--schema-only", "--no-owner", "--no-privileges"]
    done = subprocess.run(command, env=backup.environment(), stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def entries(dumped: str) -> Iterator[Entry]:
    """Yield the objects of a dump, in its order."""
    dumped = re.sub(r"(?m)^\\(un)?restrict .*\n", "", dumped)
    _, *parts = _ENTRY.split(dumped.split("\n--\n-- PostgreSQL database dump complete", 1)[0])
    for label, kind, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        table, _, name = label.rpartition(" ")
        if kind == "TABLE":
            table = name
        elif kind == "FUNCTION":
            table, name = "", label
        elif not table:  # pg_dump names the table of an index or a sequence only in the statement
            match = _TABLE_OF.match(text)
            if match is None:
                raise ValueError(f"Which table does the {kind.lower()} {label} belong to?")
            table = match[1]
        yield Entry(kind, table, name, text.strip())


def schema(dumped: str, tables: Collection[str]) -> str:
    """Return a dump in an order for readers: `tables` with everything that belongs to each, functions, triggers."""
    found = sorted(entries(dumped))
    known = {*TABLE_PARTS, "FUNCTION", "TRIGGER"}
    all_tables = sorted({entry.table for entry in found})
    unknown = {entry.kind for entry in found if entry.table in {*tables, ""}} - known
    if unknown:
        raise ValueError(f"Where in schema.sql does a {', '.join(sorted(unknown)).lower()} belong?")
    sections = {
        "Tables": [parts_of(table, found) for table in sorted(tables)],
        "Functions": [[entry.text] for entry in found if entry.kind == "FUNCTION"],
        "Triggers": [
            [entry.text for entry in found if (entry.kind, entry.table) == ("TRIGGER", table)] for table in all_tables
        ],
    }
    text = HEADER
    for heading, groups in sections.items():
        rule = "-" * WIDTH
        text += f"\n\n{rule}\n-- {heading}\n{rule}\n\n"
        text += "\n\n".join("\n".join(f"{readable(text)}\n" for text in group) for group in groups if group)
    return text


def parts_of(table: str, found: Iterable[Entry]) -> list[str]:
    """Return a table's statements: the table itself, then its constraints and indexes."""
    own = [entry for entry in found if entry.table == table and entry.kind in TABLE_PARTS]
    return [entry.text for entry in sorted(own, key=lambda entry: TABLE_PARTS.index(entry.kind))]


def readable(statement: str) -> str:
    """Return a statement without noise and with its long lines broken, but the body of a function as it is."""
    body = _BODY.search(statement)
    start, end = body.span() if body else (len(statement), len(statement))
    before = statement[:start]
    for pattern, shorter in NOISE:
        before = pattern.sub(shorter, before)
    lines = [part for line in before.rstrip().split("\n") for part in broken(line)]
    return "\n".join(lines) + ("\n" if body else "") + statement[start:end] + statement[end:]


def broken(line: str) -> list[str]:
    """Return a line split into lines that are not too long, between words or between the parameters of a function."""
    indent = line[: len(line) - len(line.lstrip())]
    lines = [indent]
    words = re.split("(?<=,) ", line) if line.startswith("CREATE FUNCTION") else _WORD.findall(line)
    for word in words:
        if len(lines[-1]) + 1 + len(word) > WIDTH and lines[-1].strip():
            lines.append(f"{indent}    ")
        lines[-1] += word if not lines[-1].strip() else f" {word}"
    return lines


def own_tables() -> set[str]:
    """Return the names of the tables of Portal's app."""
    models = apps.get_app_config("allocations").get_models(include_auto_created=True)
    return {model._meta.db_table for model in models} | WITHOUT_MODEL


def main() -> None:
    """Migrate a new database and write the file."""
    home = Path(
        tempfile.mkdtemp(prefix="portal-schema-", dir="/tmp")
    )  # short, and the account of PostgreSQL may enter it
    os.environ.update(dict.fromkeys(VARIABLES, ""))
    os.environ.update(PORTAL_HOME=str(home), DJANGO_SETTINGS_MODULE="portal.settings")
    try:
        django.setup()
        call_command("migrate", verbosity=0)
        with as_owner():
            FILE.write_text(schema(dump(), own_tables()))
    finally:
        connection.close()
        Server(home).stop()
        shutil.rmtree(home)
    print(f"Wrote {FILE.relative_to(ROOT)}.")


if __name__ == "__main__":
    main()
