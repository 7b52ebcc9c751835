"""manage.py migrate: Django's command, which first checks the database and writes a backup."""

from __future__ import annotations

import pkgutil
from collections.abc import Collection, Sequence
from importlib import import_module
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandParser
from django.core.management.commands import migrate
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.recorder import MigrationRecorder

from allocations.management.command import HelpfulCommand
from portal import backup, database

# The last commit of the Portal whose ten migrations 0001_initial replaces.
LAST_OF_THE_REPLACED = "1f39b2f"


class Command(HelpfulCommand, migrate.Command):
    help = (
        "Bring the database to this version of Portal. If it holds data, a backup is written first; `up` does the same."
    )
    example = "manage.py migrate"

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--no-backup", action="store_false", dest="backup", help="write no backup first")

    def handle(self, *args: Any, **options: Any) -> None:
        self.backup_is_due: bool = options["backup"]
        with database.as_owner():
            # Before Django loads the migrations: it fails with a traceback if only some of the replaced ones are
            # applied.
            refuse_foreign(connections[options["database"]])
            super().handle(*args, **options)
            if not (options["plan"] or options["check_unapplied"]):
                database.grant()
        if not (options["plan"] or options["check_unapplied"]):
            database.set_limits()

    def migration_progress_callback(self, action: str, migration: Any = None, fake: bool = False) -> None:
        if action in ("apply_start", "unapply_start") and not fake:
            self.back_up()
        super().migration_progress_callback(action, migration, fake)

    def back_up(self) -> None:
        """Write a backup before the first migration of this run, if there is anything to lose.

        Raises:
            ImproperlyConfigured: the backup cannot be written; nothing was changed.
        """
        if not self.backup_is_due:
            return
        self.backup_is_due = False
        if not backup.holds_data():
            return
        try:
            file = backup.keep()
        except ImproperlyConfigured as error:
            raise ImproperlyConfigured(
                f"The database was not migrated, because the backup before it failed: {str(error).rstrip('.')}; "
                "`./manage.py migrate --no-backup` goes on without one."
            ) from error
        self.stderr.write(f"Wrote a backup to {file} before migrating.", lambda line: line)


def refuse_foreign(connection: BaseDatabaseWrapper) -> None:
    """Refuse a database that this Portal cannot migrate.

    Raises:
        ImproperlyConfigured: another Portal wrote it; the sentence says what to do. Nothing was changed.
    """
    applied = {name for app, name in MigrationRecorder(connection).applied_migrations() if app == "allocations"}
    package = import_module("allocations.migrations")
    files = pkgutil.iter_modules(package.__path__)
    own = sorted(file.name for file in files if not file.ispkg and not file.name.startswith("_"))
    replaced = [name for _, name in import_module(f"{package.__name__}.{own[0]}").Migration.replaces]
    sentence = refusal(applied, replaced, own)
    if sentence:
        raise ImproperlyConfigured(sentence)


def refusal(applied: Collection[str], replaced: Sequence[str], own: Sequence[str]) -> str | None:
    """Return why a database with these migrations applied cannot be migrated, or None if it can.

    Args:
        applied: the names that the database has recorded, in any order.
        replaced: the migrations that the first of `own` replaces, in order.
        own: this Portal's migrations, in order.
    """
    names, first = set(applied), own[0]
    if not names:
        return None
    unknown = sorted(names - {*replaced, *own})
    if unknown:
        return (
            f"This database was migrated by another Portal, probably a newer one, because {unknown[-1]} is not a "
            "migration of this one: start that Portal, or restore the backup that it wrote first; nothing was changed."
        )
    if names >= set(replaced):
        names.add(first)  # Django records it at the end of a run, after those that follow it
        if names == {*replaced, *own[: len(names) - len(replaced)]}:
            return None
    elif sorted(names) == list(replaced[: len(names)]):
        return (
            f"This database was written by an older Portal and is at {max(names)}: first run `./manage.py migrate` of "
            f"Portal's commit {LAST_OF_THE_REPLACED}, which brings it to {replaced[-1]}, and then start this Portal "
            "again; nothing was changed."
        )
    missing = next(name for name in (*replaced, *own) if name not in names)
    return (
        f"This database cannot be migrated, because its table django_migrations names {max(names)} and not {missing}, "
        "which comes before it: somebody has changed that table, so restore a backup; nothing was changed."
    )
