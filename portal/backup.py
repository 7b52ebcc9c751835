"""Back up and restore the whole database with pg_dump and pg_restore.

This is behind `make backup FILE=…` and `make restore FILE=…`. For the embedded server, its own programs are used; for a
server named by DATABASE_URL, those on the PATH.
"""

import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import django
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.db.utils import OperationalError
from psycopg.pq import Conninfo

from portal import database, home

WRITTEN_BY_MIGRATIONS = {
    *("django_migrations", "django_content_type"),
    *("auth_permission", "auth_group", "auth_group_permissions"),
    "hosts",  # this machine; whoever approves another one has users, too
}
USAGE = "Name the file: make backup FILE=portal.dump or make restore FILE=portal.dump"


def program(name: str) -> str:
    """Return the path of a program of PostgreSQL, such as pg_dump.

    Raises:
        ImproperlyConfigured: the program isn't installed.
    """
    from django.conf import settings

    from portal.embedded import server

    if settings.EMBEDDED_DATABASE:
        return str(server.bin_dir() / name)
    path = shutil.which(name)
    if path is None:
        raise ImproperlyConfigured(f"{name} is not installed. Install the client programs of PostgreSQL.")
    return path


def environment() -> dict[str, str]:
    """Return the environment with the connection parameters for libpq.

    They aren't passed as arguments, because every user of the machine can read the arguments of a process.
    """
    parameters = connection.settings_dict
    keys = {"PGHOST": "HOST", "PGPORT": "PORT", "PGUSER": "USER", "PGPASSWORD": "PASSWORD", "PGDATABASE": "NAME"}
    given = {name: str(parameters[key]) for name, key in keys.items() if parameters[key]}
    # The options of DATABASE_URL, such as sslmode. Some have no variable: those that limit how long to wait.
    names = {option.keyword.decode(): option.envvar for option in Conninfo.get_defaults()}
    for keyword, value in parameters["OPTIONS"].items():
        variable = names.get(keyword)
        if variable:
            given[variable.decode()] = str(value)
    return os.environ | given


def backup(file: Path, stderr: int | None = None) -> None:
    """Write the whole database to a file.

    A temporary file is written first, so that a failed backup never replaces a good one.

    Args:
        stderr: where pg_dump writes its messages, as subprocess.run takes it; None means our own standard error.
    """
    partial = file.with_name(file.name + ".part")
    command = [program("pg_dump"), "--format=custom"]
    try:
        with partial.open("wb") as output:
            os.chmod(partial, 0o600)  # noqa: PTH101 the backup contains password hashes
            subprocess.run(command, env=environment(), stdout=output, stderr=stderr, check=True)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def keep() -> Path:
    """Write a backup to PORTAL_HOME/backups, named by the time, and return its path.

    Raises:
        ImproperlyConfigured: the backup cannot be written; the sentence says why.
    """
    from django.conf import settings

    home.prepare(settings.PORTAL_HOME)
    file = settings.PORTAL_HOME / "backups" / f"portal-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}Z.dump"
    try:
        home.make_own(file.parent)
        backup(file, stderr=subprocess.PIPE)
    except OSError as error:
        raise ImproperlyConfigured(f"{file}: {error.strerror}.") from error
    except subprocess.CalledProcessError as error:
        raise ImproperlyConfigured(" ".join(error.stderr.decode(errors="replace").split())) from error
    return file


def holds_data() -> bool:
    """Return whether the database contains rows other than those that the migrations write themselves."""
    tables = sorted(set(connection.introspection.table_names()) - WRITTEN_BY_MIGRATIONS)
    if not tables:
        return False
    with connection.cursor() as cursor:
        rows = (f"EXISTS (SELECT FROM {connection.ops.quote_name(table)})" for table in tables)
        cursor.execute(f"SELECT {' OR '.join(rows)}")
        return bool(cursor.fetchone()[0])


def restore(file: Path) -> None:
    """Restore a backup into the configured database, which must be empty, in a single transaction.

    Raises:
        ImproperlyConfigured: the database isn't empty; nothing was changed.
    """
    if connection.introspection.table_names():
        raise ImproperlyConfigured(
            "The database is not empty, and a restore would mix two registries. Use an empty database: "
            "set another PORTAL_HOME, or another database in DATABASE_URL."
        )
    connection.close()
    command = [program("pg_restore"), "--no-owner", "--no-privileges", "--single-transaction", "--exit-on-error"]
    with file.open("rb") as dump:
        subprocess.run([*command, "--dbname", environment()["PGDATABASE"]], env=environment(), stdin=dump, check=True)
    database.grant()


def main(arguments: list[str]) -> int:
    """Run `backup FILE` or `restore FILE` and return the exit status; an error is one line on standard error."""
    if len(arguments) != 2 or arguments[0] not in ("backup", "restore") or not arguments[1]:
        print(USAGE, file=sys.stderr)  # noqa: T201
        return 2
    action, file = arguments
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
    try:
        django.setup()
        with database.as_owner():
            connection.ensure_connection()
            (backup if action == "backup" else restore)(Path(file))
    except (ImproperlyConfigured, OperationalError) as error:
        return _fail(" ".join(str(error).split()))
    except OSError as error:
        return _fail(f"{file}: {error.strerror}. Nothing was changed.")
    except subprocess.CalledProcessError as error:  # the program has printed the reason
        outcome = "written" if action == "backup" else "restored"
        return _fail(f"{Path(error.cmd[0]).name} failed: {file} was not {outcome}. Nothing was changed.")
    return 0


def _fail(sentence: str) -> int:
    print(sentence, file=sys.stderr)  # noqa: T201
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
