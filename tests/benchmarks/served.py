"""Settings of the server that is measured: Portal's, and beside it the plainest view that answers the same."""

from portal.settings import *  # noqa: F403

ROOT_URLCONF = "tests.benchmarks.served_urls"
LOGGING_CONFIG = None
