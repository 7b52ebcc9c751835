"""`make stop`: stop the embedded PostgreSQL of PORTAL_HOME. The next connection starts it again."""

from portal import settings
from portal.embedded.server import Server

server = Server(settings.PORTAL_HOME)
ran = server.data.exists() and server.is_running()
server.stop()
print(f"{'Stopped the' if ran else 'There runs no'} PostgreSQL of {settings.PORTAL_HOME}.")  # noqa: T201
