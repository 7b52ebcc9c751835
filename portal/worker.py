"""The worker of gunicorn, with limits on the connections that clients may keep open.

gunicorn's own worker accepts connections until it has no descriptors left, and waits for a request forever. A client
that only opens connections would stop Portal without a login.
"""

import asyncio
import logging
import resource
import sys
import time
from collections import Counter
from typing import Any

from gunicorn.asgi.protocol import ASGIProtocol
from gunicorn.workers import gasgi

from portal import settings
from portal.middleware import is_trusted
from portal.postgresql.pool import pool

HEAD_SECONDS = 10  # for the head of the first request; later ones have gunicorn's keepalive
BODY_SECONDS, BODY_BYTES = 10, 1024  # a body stalls if fewer bytes than this arrive in this time
DRAIN_SECONDS = 3  # for the next request of each connection, when the worker is replaced
LOG_SECONDS = 10  # a message about connections is logged at most this often
MOST_CONNECTIONS = 2000  # of one worker
UNAVAILABLE = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: 50\r\nRetry-After: 1\r\n"
    b"Connection: close\r\n\r\nToo many connections are open. Try again in 1 s.\r\n"
)

logger = logging.getLogger(__name__)


def raise_descriptor_limit() -> int:
    """Raise the number of files that this process may open to the hard limit, and return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def most_connections(descriptors: int) -> int:
    """Return how many connections a worker may have with this many descriptors.

    A request needs a second descriptor, for the database, and the process itself needs about 40.
    """
    if descriptors == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(8, min(MOST_CONNECTIONS, (descriptors - 40) // 2))


def sessions_of_worker(sessions: int, workers: int) -> int:
    """Return how many sessions of PostgreSQL each of the workers may have. Each needs one."""
    return max(1, sessions // workers)


class RateLimitedLog:
    """Logs a message at most every LOG_SECONDS seconds, with the number of those that were left out."""

    def __init__(self) -> None:
        self.last: dict[str, float] = {}
        self.left_out = Counter[str]()

    def warning(self, message: str, *arguments: Any) -> None:
        """Log a warning, or count it if the same message was logged a moment ago."""
        now = time.monotonic()
        if now - self.last.get(message, -LOG_SECONDS) < LOG_SECONDS:
            self.left_out[message] += 1
            return
        self.last[message] = now
        left_out = self.left_out.pop(message, 0)
        more = f" ({left_out} more since the last message)" if left_out else ""
        logger.warning(message + more, *arguments)


class Connections:
    """The open connections of a worker.

    Args:
        most: how many may be open.
        most_per_address: how many one address may have open, unless it is that of a trusted proxy.
    """

    def __init__(self, most: int, most_per_address: int) -> None:
        self.most, self.most_per_address = most, most_per_address
        self.open: set[Connection] = set()
        self.of_address = Counter[str]()
        # Those without a request, because it has not arrived yet or has been answered, the oldest first. The values are
        # unused: a dict keeps the order.
        self.waiting: dict[Connection, None] = {}
        self.waiting_of_address: dict[str, dict[Connection, None]] = {}
        self.log = RateLimitedLog()

    def admit(self, connection: "Connection") -> bool:
        """Add a new connection, or return False if there is no room for it.

        Room is made by closing the connection that has waited longest for a request.
        """
        address = connection.address
        if self.of_address[address] >= self.most_per_address and not is_trusted(address):
            self.log.warning(
                "%s has %d connections open, the most that one address may have", address, self.most_per_address
            )
            if not self._close_oldest(self.waiting_of_address.get(address)):
                return False
        if len(self.open) >= self.most:
            self.log.warning("%d connections are open, the most that this worker may have", self.most)
            if not self._close_oldest(self.waiting):
                return False
        self.open.add(connection)
        self.of_address[address] += 1
        self.waits(connection)
        return True

    def waits(self, connection: "Connection") -> None:
        """Note that the connection waits for a request, so that it may be closed to make room."""
        if connection in self.open:
            self.waiting[connection] = None
            self.waiting_of_address.setdefault(connection.address, {})[connection] = None

    def sent_request(self, connection: "Connection") -> None:
        """Note that the connection has sent the head of a request, so that it is not closed to make room."""
        self.waiting.pop(connection, None)
        others = self.waiting_of_address.get(connection.address, {})
        others.pop(connection, None)
        if not others:
            self.waiting_of_address.pop(connection.address, None)

    def forget(self, connection: "Connection") -> None:
        """Remove a connection that is closed."""
        if connection not in self.open:
            return
        self.sent_request(connection)
        self.open.remove(connection)
        self.of_address[connection.address] -= 1
        if not self.of_address[connection.address]:
            del self.of_address[connection.address]

    def close_idle(self) -> None:
        """Close all connections that wait for a request."""
        for connection in list(self.waiting):
            connection.close_idle()

    def _close_oldest(self, waiting: "dict[Connection, None] | None") -> bool:
        oldest = next(iter(waiting or ()), None)
        if oldest is None:
            return False
        self.forget(oldest)
        oldest.transport.abort()
        return True


class Connection(ASGIProtocol):  # type: ignore[misc]  # gunicorn is untyped
    """A connection that is closed if its client keeps the worker waiting."""

    address = ""
    is_refused = False
    timer: asyncio.TimerHandle | None = None
    decided: Any = None  # the request about which is_last was decided
    is_last = False
    received = 0  # bytes of the body since the timer was set

    def connection_made(self, transport: Any) -> None:
        peer = transport.get_extra_info("peername")
        self.address = peer[0] if isinstance(peer, tuple) else ""
        self.transport = transport
        self.is_refused = not self.worker.connections.admit(self)
        if self.is_refused:
            transport.write(UNAVAILABLE)
            transport.close()
            return
        self._set_timer(HEAD_SECONDS, self._head_timeout)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if not self.is_refused:
            super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timer()
        self.worker.connections.forget(self)
        if not self.is_refused:
            super().connection_lost(exc)

    def _on_headers_complete(self) -> bool:
        self.worker.connections.sent_request(self)
        self._set_timer(BODY_SECONDS, self._body_timeout)
        return bool(super()._on_headers_complete())

    def _on_body(self, chunk: bytes) -> None:
        self.received += len(chunk)
        super()._on_body(chunk)

    def _on_message_complete(self) -> None:
        self._cancel_timer()
        super()._on_message_complete()

    def _arm_keepalive_timer(self) -> None:
        self.worker.connections.waits(self)
        super()._arm_keepalive_timer()
        if not self.worker.alive:  # this was the last response before the end
            self.close_idle()

    def _will_close(self, request: Any, response_requires_close: bool) -> bool:
        if self.decided is not request:  # what the response has announced stays so
            self.decided, self.is_last = request, self.worker.is_spent
        return self.is_last or bool(super()._will_close(request, response_requires_close))

    def close_idle(self) -> None:
        """Close the connection while it waits for a request, as at the end of the keepalive."""
        self._keepalive_timeout()

    def _head_timeout(self) -> None:
        self._close_slow("the head of a request")

    def _body_timeout(self) -> None:
        # If reading is paused, the application is slow, not the client.
        if self.received >= BODY_BYTES or self._reading_paused:
            self._set_timer(BODY_SECONDS, self._body_timeout)
        else:
            self._close_slow("the body of a request")

    def _close_slow(self, missing: str) -> None:
        self.worker.connections.log.warning("closed a connection that did not send %s in time", missing)
        self._send_error_response(408, f"The server did not receive {missing} in time.\n")
        self._close_transport()

    def _set_timer(self, seconds: float, action: Any) -> None:
        self._cancel_timer()
        self.received = 0
        self.timer = self.worker.loop.call_later(seconds, action)

    def _cancel_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Worker(gasgi.ASGIWorker):  # type: ignore[misc]  # gunicorn is untyped
    """gunicorn's ASGI worker, with limits on its connections, and without a lost request when it is replaced."""

    drain: asyncio.Task[None] | None = None
    max_requests: int
    last_request: int

    def init_process(self) -> None:
        most = most_connections(raise_descriptor_limit())
        self.connections = Connections(most, most_per_address=max(4, most // 2))
        # gunicorn would close connections to which it has just promised to keep them.
        self.last_request, self.max_requests = self.max_requests, sys.maxsize
        pool.open(sessions_of_worker(settings.PORTAL_DATABASE_SESSIONS, self.cfg.workers))
        super().init_process()

    @property
    def is_spent(self) -> bool:
        """Return whether this worker has served its last request but for those of the open connections."""
        return bool(self.nr + 1 >= self.last_request)

    def notify(self) -> None:
        super().notify()
        pool.close_idle()
        if self.is_spent and self.drain is None:
            self.drain = self.loop.create_task(self._drain())

    async def _drain(self) -> None:
        """Serve the open connections a little longer, and then end.

        A connection that is closed while its client sends a request loses that request. So the next response of each
        connection announces the end, and only one that is really idle is closed without.
        """
        # Another worker accepts new connections from now on. Closing the servers would break those that this one has
        # just accepted.
        for server in self.servers:
            for listener in server.sockets:
                self.loop.remove_reader(listener.fileno())
        await asyncio.sleep(0.05)
        end = self.loop.time() + DRAIN_SECONDS
        while self.connections.waiting and self.loop.time() < end:
            await asyncio.sleep(0.05)
        self.alive = False

    async def _shutdown(self) -> None:
        self.connections.close_idle()  # gunicorn would wait for them
        await super()._shutdown()

    def _setup_event_loop(self) -> None:
        super()._setup_event_loop()
        self.loop.set_exception_handler(self._log_loop_error)

    def _log_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log an error of the event loop. asyncio repeats the one about missing descriptors without a pause."""
        if "accept" in context.get("message", ""):
            self.connections.log.warning("cannot accept a connection: %s", context.get("exception"))
        else:
            loop.default_exception_handler(context)


gasgi.ASGIProtocol = Connection  # gunicorn has no setting for it
