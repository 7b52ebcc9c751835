"""The settings of servers that tests start. They use the test database."""

import os

from portal.embedded.server import APPLICATION
from portal.postgresql import pool
from tests.settings import *  # noqa: F403
from tests.settings import DATABASES, EMBEDDED_DATABASE

DATABASES["default"]["NAME"] = os.environ["SERVED_DATABASE"]
if EMBEDDED_DATABASE:
    DATABASES["default"]["USER"] = APPLICATION
if os.environ.get("SERVED_POOL", "0") != "0":
    size = int(os.environ["SERVED_POOL"])
    DATABASES["default"]["OPTIONS"]["pool"] = {"min_size": 0, "max_size": size, "timeout": 30, "max_idle": 2}
pool.IDLE_SECONDS = 2  # so that a test can wait for it
PORTAL_RATE_LIMIT = int(os.environ.get("SERVED_RATE_LIMIT", "600"))
PORTAL_ANONYMOUS_READ = os.environ.get("SERVED_ANONYMOUS_READ") == "1"
