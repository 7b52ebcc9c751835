"""Settings from the environment; a wrong value stops the start with a sentence."""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent
PORTAL_HOME = Path(os.environ.get("PORTAL_HOME") or BASE_DIR / ".portal").resolve()
SECRET_KEY = "dev"
DEBUG = False
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]", "testserver"]
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "allocations",
]
DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "portal", "USER": "portal", "HOST": "/tmp/brief/pg", "TEST": {"NAME": "test_portal" + os.environ.get("PORTAL_TEST_DB_SUFFIX", "")}}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
ROOT_URLCONF = "portal.urls"
TEMPLATES = []
