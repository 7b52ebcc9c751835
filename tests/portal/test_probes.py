"""GET /healthz and /readyz."""

import pytest
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client
from pytest_django import Settings

from portal.probes import is_ready, newest_migrations


def test_healthz_needs_neither_login_nor_database(client: Client) -> None:
    response = client.get("/healthz")  # pytest-django would fail any use of the database here

    assert (response.status_code, response.content) == (200, b"ok\n")


@pytest.mark.both_servers
@pytest.mark.django_db
def test_readyz_is_200_when_migrated(client: Client) -> None:
    response = client.get("/readyz")

    assert (response.status_code, response.content) == (200, b"ready\n")


@pytest.mark.django_db
def test_portal_is_not_ready_when_a_migration_is_missing() -> None:
    assert is_ready()
    newest = dict(newest_migrations())["allocations"]
    MigrationRecorder.Migration.objects.get(app="allocations", name=newest).delete()
    assert not is_ready()


@pytest.mark.django_db
def test_portal_is_not_ready_when_the_database_is_read_only() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION READ ONLY")
    assert not is_ready()


@pytest.mark.django_db
def test_readyz_is_503_without_details_when_the_database_is_down(client: Client, settings: Settings) -> None:
    name = connection.settings_dict["NAME"]
    connection.settings_dict["NAME"] = "there-is-no-such-database"
    try:
        response = client.get("/readyz")
    finally:
        connection.settings_dict["NAME"] = name

    assert (response.status_code, response.content) == (503, b"not ready\n")
    assert response.headers["Retry-After"]


@pytest.mark.parametrize("probe", ["/healthz", "/readyz"])
def test_probes_are_read_only(client: Client, probe: str) -> None:
    assert client.post(probe).status_code == 405


@pytest.mark.parametrize(("path", "status"), [("/healthz", 200), ("/admin/", 301)])
def test_only_probes_are_exempt_from_the_https_redirect(
    client: Client, settings: Settings, path: str, status: int
) -> None:
    settings.SECURE_SSL_REDIRECT = True
    assert client.get(path).status_code == status
