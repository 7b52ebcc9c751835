"""Portal with a PostgreSQL server of the system in DATABASE_URL."""

import os
import subprocess
import sys

import pytest
from django.conf import settings

# The files with that mark. Reading all the others takes seconds.
MARKED = [
    str(path.relative_to(settings.BASE_DIR))
    for path in (settings.BASE_DIR / "tests").rglob("test_*.py")
    if "mark.both_servers" in path.read_text()
]


@pytest.mark.slow
def test_tests_marked_both_servers_pass(system_database_url: str) -> None:
    done = subprocess.run(
        # Those with naive allocators show that the tests themselves find races.
        [sys.executable, "-m", "pytest", "-m", "both_servers", "-k", "not naive", "-p", "no:xdist", *MARKED],
        cwd=settings.BASE_DIR,
        env={**os.environ, "PORTAL_TEST_DATABASE_URL": system_database_url, "PORTAL_TEST_DB_SUFFIX": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_migrate_creates_the_tables(system_database_url: str) -> None:
    environment = {**os.environ, "DATABASE_URL": system_database_url, "DJANGO_SETTINGS_MODULE": "portal.settings"}

    def manage(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=settings.BASE_DIR,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "Applying allocations.0001" in manage("migrate", "--no-color")
    assert manage("migrate", "--check") == ""
