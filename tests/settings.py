"""The settings of the tests, which have their own PORTAL_HOME and ignore `.env` and the caller's environment.

All test runs of this checkout share the embedded server in that directory. PORTAL_TEST_DATABASE_URL selects another
server. PORTAL_TEST_DB_SUFFIX changes the name of the test database, so that several people can run tests at once.
"""

import hashlib
import os
from pathlib import Path

from portal.environment import VARIABLES

_checkout = Path(__file__).resolve().parent.parent
for _name in VARIABLES:
    os.environ[_name] = ""
# Root runs the server as another account, which may not be able to enter a checkout in a home directory.
os.environ["PORTAL_HOME"] = (
    f"/var/lib/portal-test/{hashlib.sha256(os.fsencode(_checkout)).hexdigest()[:12]}"
    if os.geteuid() == 0
    else str(_checkout / ".portal" / "test")
)
os.environ["DATABASE_URL"] = os.environ.get("PORTAL_TEST_DATABASE_URL", "")
os.environ["PORTAL_SECRET_KEY"] = "only-for-tests-" * 4

from portal.embedded.server import SUPERUSER  # noqa: E402
from portal.settings import *  # noqa: E402, F403
from portal.settings import DATABASES, EMBEDDED_DATABASE  # noqa: E402

# Tests make databases, and switch triggers off. The servers that they start connect as the application, as in reality.
if EMBEDDED_DATABASE:
    DATABASES["default"]["USER"] = SUPERUSER
    DATABASE_OWNER = DATABASE_APPLICATION = {}

# Serve static files from their sources and under their own names, so that collectstatic need not run.
STATIC_ROOT = None
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
WHITENOISE_AUTOREFRESH = WHITENOISE_USE_FINDERS = True
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # the real ones take 0.3 s per user
