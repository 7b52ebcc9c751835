"""Portal's settings for the tests: a PORTAL_HOME of their own, and nothing of `.env` or the caller's environment.

The embedded server in it is shared by all test runs of this checkout. PORTAL_TEST_DATABASE_URL names another server,
PORTAL_TEST_DB_SUFFIX gives the test database another name, so that several people can test at once.
"""

import hashlib
import os
from pathlib import Path

from portal.environment import VARIABLES

_checkout = Path(__file__).resolve().parent.parent
for _name in VARIABLES:
    os.environ[_name] = ""
# As root the server runs as `nobody`, who may not be able to reach a checkout below a home directory.
os.environ["PORTAL_HOME"] = (
    f"/var/lib/portal-test/{hashlib.sha256(os.fsencode(_checkout)).hexdigest()[:12]}"
    if os.geteuid() == 0
    else str(_checkout / ".portal" / "test")
)
os.environ["DATABASE_URL"] = os.environ.get("PORTAL_TEST_DATABASE_URL", "")
os.environ["PORTAL_SECRET_KEY"] = "only-for-tests-" * 4

from portal.settings import *  # noqa: E402, F403

# Without collectstatic: files are found where they lie, under the names they have.
STATIC_ROOT = None
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
WHITENOISE_AUTOREFRESH = WHITENOISE_USE_FINDERS = True
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # the real ones take 0.3 s per user
