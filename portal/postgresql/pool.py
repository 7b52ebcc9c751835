"""Sessions of PostgreSQL that wait for the next request.

Opening a session takes as long as several requests, because the server has to read its catalog and compile its
functions anew. Django's CONN_MAX_AGE has no effect under ASGI, where each request has a thread of its own, and
psycopg's pool hands out sessions that the server has ended. This pool has no threads: a session is checked when it is
taken. Its socket is readable if the server has ended it, and an empty query is answered unless the server hangs.
"""

from __future__ import annotations

import os
import select
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass

import psycopg
from psycopg.pq import TransactionStatus

IDLE_SECONDS = 60  # after which an unused session is closed
MOST_SECONDS = 900  # after which a session is replaced, because its caches grow
ANSWER_SECONDS = 3  # as for a new session, see the settings
WAIT_SECONDS = 30  # for a session, if all are in use
# What DISCARD ALL does, without throwing away the plans of the functions, which is what makes a session worth keeping.
# The time zone is the one that Django would set again.
RESET = """
CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; DEALLOCATE ALL; UNLISTEN *; DISCARD TEMP; DISCARD SEQUENCES;
SELECT pg_advisory_unlock_all(), set_config('TimeZone', 'UTC', false)
"""


class Exhausted(psycopg.OperationalError):
    """All sessions that the process may have are in use."""


@dataclass
class _Origin:
    """Where a session of the pool comes from."""

    key: str
    opened_at: float
    finalizer: weakref.finalize[[], psycopg.Connection]


class Pool:
    """The sessions of this process, at most as many as it may have. The one that was used last is used next.

    It does nothing until it is opened, which only the workers of the web server do.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._origins: weakref.WeakKeyDictionary[psycopg.Connection, _Origin] = weakref.WeakKeyDictionary()
        self._idle: list[tuple[psycopg.Connection, float]] = []  # with the time of their last use, the oldest first
        self._count = self._most = 0

    @property
    def is_open(self) -> bool:
        """Return whether sessions are kept."""
        return self._most > 0

    def open(self, most: int) -> None:
        """Keep sessions from now on.

        Args:
            most: how many sessions this process may have, in use and idle.
        """
        self._most = most

    def close(self) -> None:
        """Close the idle sessions, and keep none from now on."""
        self._most = 0
        self.close_idle(0)

    def get(self, key: str, connect: Callable[[], psycopg.Connection]) -> psycopg.Connection:
        """Return an idle session, or a new one.

        Args:
            key: what it must have in common with the session that was put back.
            connect: opens a session.

        Raises:
            Exhausted: all sessions stayed in use for WAIT_SECONDS.
            psycopg.errors.ConnectionTimeout: the server hangs.
        """
        deadline = time.monotonic() + WAIT_SECONDS
        while (session := self._take(key, deadline)) is not None:
            try:
                if _is_alive(session):
                    return session
            except psycopg.errors.ConnectionTimeout:
                self._end(session)
                raise
            self._end(session)
        try:
            session = connect()
        except BaseException:
            self._uncount()
            raise
        # A thread that ends without closing its session must not keep its place.
        self._origins[session] = _Origin(key, time.monotonic(), weakref.finalize(session, self._uncount))
        return session

    def holds(self, session: psycopg.Connection) -> bool:
        """Return whether the session comes from this pool."""
        return session in self._origins

    def put(self, session: psycopg.Connection) -> None:
        """Take back a session. It is closed if it is too old, or cannot be made as good as new."""
        age = time.monotonic() - self._origins[session].opened_at
        if age > MOST_SECONDS or not self.is_open or not _is_reset(session):
            self._end(session)
            return
        with self._changed:
            self._idle.append((session, time.monotonic()))
            self._changed.notify()

    def forget(self, session: psycopg.Connection) -> None:
        """Give the place of a session that is closed to another."""
        origin = self._origins.pop(session, None)
        if origin is not None and origin.finalizer.detach():
            self._uncount()

    def close_idle(self, seconds: float | None = None) -> None:
        """Close the sessions that nobody has used for some time, by default IDLE_SECONDS."""
        seconds = IDLE_SECONDS if seconds is None else seconds
        with self._changed:
            while self._idle and time.monotonic() - self._idle[0][1] >= seconds:
                self._close_oldest()

    def _take(self, key: str, deadline: float) -> psycopg.Connection | None:
        """Return the idle session that was used last, or None if a new one may be opened, which is counted already."""
        with self._changed:
            while True:
                for position in range(len(self._idle) - 1, -1, -1):
                    if self._origins[self._idle[position][0]].key == key:
                        return self._idle.pop(position)[0]
                if self._count < self._most or self._close_oldest():
                    self._count += 1
                    return None
                if not self._changed.wait(deadline - time.monotonic()):
                    raise Exhausted(f"All {self._most} sessions of this process are in use.")

    def _close_oldest(self) -> bool:
        """Close the session that has been idle longest, and return whether there was one."""
        if not self._idle:
            return False
        self._end(self._idle.pop(0)[0])
        return True

    def _end(self, session: psycopg.Connection) -> None:
        session.close()
        self.forget(session)

    def _uncount(self) -> None:
        with self._changed:
            self._count -= 1
            self._changed.notify()

    def after_fork(self) -> None:
        """Leave the sessions to the parent process. Whatever this one sent to them would end them there."""
        self._of_parent = [*self._idle, *self._origins.items()]  # kept, so that nothing of them is run here
        for origin in self._origins.values():
            origin.finalizer.detach()
        self._changed = threading.Condition()
        self._origins, self._idle, self._count = weakref.WeakKeyDictionary(), [], 0


def _is_alive(session: psycopg.Connection) -> bool:
    """Return whether the server answers in this session, and False if it has ended it.

    Raises:
        psycopg.errors.ConnectionTimeout: it does not answer in time.
    """
    poll = select.poll()  # select() fails for descriptors from 1024 on
    poll.register(session.pgconn.socket, select.POLLIN)
    if poll.poll(0):  # without being asked, it only says that it ends the session
        return False
    try:
        session.pgconn.send_query(b"")
        if not poll.poll(ANSWER_SECONDS * 1000):
            raise psycopg.errors.ConnectionTimeout("The server does not answer in a session that it has accepted.")
        while session.pgconn.get_result():
            pass
    except psycopg.errors.ConnectionTimeout:
        raise
    except psycopg.Error:
        return False
    return session.info.transaction_status == TransactionStatus.IDLE


def _is_reset(session: psycopg.Connection) -> bool:
    """Return whether nothing of the last user is left: settings, locks, temporary tables, a transaction."""
    if not session.autocommit or session.info.transaction_status != TransactionStatus.IDLE:
        return False
    try:
        session.execute(RESET)
    except psycopg.Error:
        return False
    return True


pool = Pool()
os.register_at_fork(after_in_child=pool.after_fork)
