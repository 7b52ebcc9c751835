"""Django's PostgreSQL backend, extended to start the embedded server if it isn't running."""

from collections.abc import Iterable
from typing import Any

import psycopg
from django.conf import settings
from django.db.backends.postgresql import client

from portal.database import as_owner
from portal.postgresql import base

from .server import Server, bin_dir


class DatabaseClient(client.DatabaseClient):
    """Run `manage.py dbshell` with the psql program of the embedded PostgreSQL."""

    executable_name = str(bin_dir() / "psql")

    def runshell(self, parameters: Iterable[str]) -> None:
        Server(settings.PORTAL_HOME).start()
        with as_owner():
            super().runshell(parameters)


class DatabaseWrapper(base.DatabaseWrapper):
    """A connection to the embedded PostgreSQL server."""

    client_class = DatabaseClient

    def open_session(self, conn_params: dict[str, Any]) -> Any:
        try:
            return super().open_session(conn_params)
        except psycopg.errors.ConnectionTimeout:  # it is running, but hangs, so waiting for its start would not help
            raise
        except psycopg.OperationalError:  # start it only now, so that nothing is slower while it is running
            Server(settings.PORTAL_HOME).start()
            return super().open_session(conn_params)
