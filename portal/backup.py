"""`make backup FILE=…` and `make restore FILE=…`: the whole registry, by PostgreSQL's own pg_dump and pg_restore.

The embedded server's programs for the embedded server, those on the PATH for the server of DATABASE_URL.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import django
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.db.utils import OperationalError

USAGE = "Name the file: make backup FILE=portal.dump, or make restore FILE=portal.dump"


def program(name: str) -> str:
    """Return the path of one of PostgreSQL's programs."""
    from django.conf import settings

    from portal.embedded import server

    if settings.EMBEDDED_DATABASE:
        return str(server.bin_dir() / name)
    found = shutil.which(name)
    if found is None:
        raise ImproperlyConfigured(f"{name} is not installed: install the client programs of PostgreSQL.")
    return found


def environment() -> dict[str, str]:
    """Return how to reach the database, for libpq: never on a command line, where everybody could read the password."""
    given = connection.settings_dict
    named = {"PGHOST": "HOST", "PGPORT": "PORT", "PGUSER": "USER", "PGPASSWORD": "PASSWORD", "PGDATABASE": "NAME"}
    return os.environ | {name: str(given[key]) for name, key in named.items() if given[key]}


def backup(file: Path) -> None:
    """Write the whole database to `file`: beside it first, so that a broken backup never replaces a good one."""
    half = file.with_name(file.name + ".part")
    with half.open("wb") as output:
        os.chmod(half, 0o600)  # noqa: PTH101 it holds password hashes
        subprocess.run([program("pg_dump"), "--format=custom"], env=environment(), stdout=output, check=True)
    half.replace(file)


def restore(file: Path) -> None:
    """Read `file` into the configured database, all or nothing.

    Raises:
        ImproperlyConfigured: the database is not empty; nothing was changed.
    """
    if connection.introspection.table_names():
        raise ImproperlyConfigured(
            "The database is not empty, and a restore would mix two registries: name an empty one "
            "(another PORTAL_HOME, or another database in DATABASE_URL)."
        )
    connection.close()
    command = [program("pg_restore"), "--no-owner", "--single-transaction", "--exit-on-error"]
    with file.open("rb") as given:
        subprocess.run([*command, "--dbname", environment()["PGDATABASE"]], env=environment(), stdin=given, check=True)


def main(words: list[str]) -> int:
    """Do what the words say; one line on standard error where it cannot be done."""
    if len(words) != 2 or words[0] not in ("backup", "restore") or not words[1]:
        print(USAGE, file=sys.stderr)  # noqa: T201
        return 2
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
    try:
        django.setup()
        connection.ensure_connection()
        (backup if words[0] == "backup" else restore)(Path(words[1]))
    except (ImproperlyConfigured, OperationalError) as error:
        return _failed(" ".join(str(error).split()))
    except OSError as error:
        return _failed(f"{words[1]}: {error.strerror}. Nothing was changed.")
    except subprocess.CalledProcessError as error:  # which has said why
        return _failed(f"{Path(error.cmd[0]).name} could not {words[0]} {words[1]}. Nothing was changed.")
    return 0


def _failed(sentence: str) -> int:
    print(sentence, file=sys.stderr)  # noqa: T201
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
