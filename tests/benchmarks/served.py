"""The settings of the server that is measured: those of Portal, with a simple view to compare with."""

from portal.settings import *  # noqa: F403

ROOT_URLCONF = "tests.benchmarks.served_urls"
LOGGING_CONFIG = None
