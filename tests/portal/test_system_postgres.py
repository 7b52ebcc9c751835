"""Portal with a PostgreSQL server of the system in DATABASE_URL."""

import os
import subprocess
import sys

import pytest
from django.conf import settings


@pytest.mark.slow
def test_tests_marked_both_servers_pass(system_database_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "both_servers", "-p", "no:xdist"],
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
