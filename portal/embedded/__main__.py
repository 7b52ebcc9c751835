"""Stop the embedded PostgreSQL server of PORTAL_HOME (`make stop`). The next connection starts it again."""

from portal import settings
from portal.embedded.server import Server

server = Server(settings.PORTAL_HOME)
was_running = server.data.exists() and server.is_running()
server.stop()
if was_running:
    print(f"Stopped the PostgreSQL server of {settings.PORTAL_HOME}.")  # noqa: T201
else:
    print(f"The PostgreSQL server of {settings.PORTAL_HOME} is not running.")  # noqa: T201
