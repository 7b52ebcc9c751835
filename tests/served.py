"""Settings of the servers that tests start: those of the tests, on the database of the test that starts them."""

import os

from tests.settings import *  # noqa: F403
from tests.settings import DATABASES

DATABASES["default"]["NAME"] = os.environ["SERVED_DATABASE"]
PORTAL_ANONYMOUS_READ = os.environ.get("SERVED_TO_ANYBODY") == "1"
