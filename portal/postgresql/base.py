"""The connection of one thread, which takes its session from the pool and puts it back at the end of the request."""

from typing import Any

from django.db import connection
from django.db.backends.postgresql import base

from .pool import pool


class DatabaseWrapper(base.DatabaseWrapper):
    """A connection to PostgreSQL. In the web server its session is used again by a later request."""

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        if self.pool or not pool.is_open:  # Django's pool, if DATABASE_URL asks for it
            return self.open_session(conn_params)
        return pool.get(self._key(conn_params), lambda: self.open_session(conn_params))

    def open_session(self, conn_params: dict[str, Any]) -> Any:
        """Return a new session of the server."""
        return super().get_new_connection(conn_params)

    def close_if_unusable_or_obsolete(self) -> None:
        """Put the session back into the pool. Django calls this before and after each request."""
        session = self.connection
        if session is None or self.in_atomic_block or not pool.holds(session):
            super().close_if_unusable_or_obsolete()
            return
        self.validate_thread_sharing()
        self.connection, self.run_on_commit = None, []
        pool.put(session)

    def _close(self) -> None:
        session = self.connection
        try:
            super()._close()  # type: ignore[misc]  # the stubs leave it out
        finally:
            if session is not None:
                pool.forget(session)

    @staticmethod
    def _key(conn_params: dict[str, Any]) -> str:
        """Return what tells apart the sessions of different databases and roles."""
        return repr(sorted((name, str(value)) for name, value in conn_params.items()))


def release_session() -> None:
    """Let others use the session of this thread, which gets one again with its next query."""
    if not connection.in_atomic_block:  # leave the transaction of a test alone
        connection.close_if_unusable_or_obsolete()
