"""`make stop`: stop the embedded PostgreSQL of PORTAL_HOME. The next connection starts it again."""

from portal import settings
from portal.embedded.server import Server

Server(settings.PORTAL_HOME).stop()
