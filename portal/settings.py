"""The Django settings, read from the environment and the .env file.

An invalid value raises ImproperlyConfigured, which `manage.py` and gunicorn print as one line.
"""

import ipaddress
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured

from portal import home
from portal.database import POSTGRESQL, owner_of, parse_url
from portal.embedded import server
from portal.environment import flag, host, invalid, is_loopback, items, number, read_env_file, text

BASE_DIR = Path(__file__).resolve().parent.parent
# The variables that the .env file added to the environment. They are for Portal only.
_env_file = Path(text("PORTAL_ENV_FILE", str(BASE_DIR / ".env")))
ENV_FILE_NAMES = read_env_file(_env_file) if _env_file.exists() else set()

# --- Portal ---

_default_home = "/var/lib/portal" if os.geteuid() == 0 else ".portal"
# Relative to the checkout, not to the current directory, so that cron and a shell use the same database.
PORTAL_HOME = (BASE_DIR / Path(text("PORTAL_HOME", _default_home)).expanduser()).resolve()
PORTAL_HOST = host("PORTAL_HOST", text("PORTAL_HOST", "127.0.0.1"))
PORTAL_PORT = number("PORTAL_PORT", 3000, 1, 65535)
PORTAL_WORKERS = number("PORTAL_WORKERS", 2, 1, 64)
PORTAL_DATABASE_SESSIONS = number("PORTAL_DATABASE_SESSIONS", 40, 1, 10_000)  # of all workers
PORTAL_ANONYMOUS_READ = flag("PORTAL_ANONYMOUS_READ")
PORTAL_RATE_LIMIT = number("PORTAL_RATE_LIMIT", 600, 10, 1_000_000)
PORTAL_ADMIN_PASSWORD = text("PORTAL_ADMIN_PASSWORD")
PORTAL_CHECK_RETENTION_DAYS = number("PORTAL_CHECK_RETENTION_DAYS", 30, 1, 3650)
PORTAL_ALERT_URLS = text("PORTAL_ALERT_URLS").split()  # not by commas, which a URL may contain
if not all("://" in url for url in PORTAL_ALERT_URLS):
    raise invalid("PORTAL_ALERT_URLS", "it must contain Apprise URLs (scheme://...) separated by spaces")
try:
    PORTAL_TRUSTED_PROXIES = [ipaddress.ip_network(item) for item in items("PORTAL_TRUSTED_PROXIES")]
except ValueError:
    raise invalid("PORTAL_TRUSTED_PROXIES", "it must contain IP addresses or networks such as 10.0.0.0/8") from None

# --- The database ---

EMBEDDED_DATABASE = not text("DATABASE_URL")
if EMBEDDED_DATABASE:
    _server = server.Server(PORTAL_HOME)
    _database: dict[str, Any] = {
        "NAME": server.DATABASE,
        "USER": server.APPLICATION,
        "HOST": str(_server.socket_dir),
        "PORT": server.PORT,
    }
else:
    _database = parse_url(text("DATABASE_URL"))
    if _database.get("ENGINE") != POSTGRESQL or not _database["NAME"]:
        raise invalid(
            "DATABASE_URL", "it must be the URL of a PostgreSQL database, postgresql://user:password@host/name"
        )

# Neither side waits forever. The limits of the server and tcp_user_timeout are in milliseconds, the others in seconds.
# The limits of the server belong to the role, because a pooler drops what a connection asks for; see portal.database.
DATABASE_LIMITS = {"statement_timeout": 30_000, "lock_timeout": 10_000, "idle_in_transaction_session_timeout": 60_000}
_client_limits = {
    "connect_timeout": 3,
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "application_name": "portal",
}
_url_options = _database.get("OPTIONS", {})  # those of DATABASE_URL take precedence
# CONN_MAX_AGE has no effect under ASGI. The workers keep their sessions in a pool of Portal's own: portal.postgresql.
_database |= {
    "ENGINE": "portal.embedded" if EMBEDDED_DATABASE else "portal.postgresql",
    "OPTIONS": {**_client_limits, **_url_options},
    "CONN_MAX_AGE": 0,
    "TEST": {"NAME": f"test_{_database['NAME']}{text('PORTAL_TEST_DB_SUFFIX')}"},
}
DATABASES = {"default": _database}
# How the connection of the owner, which migrates the database, differs from that of the application; see
# portal.database.
DATABASE_GRANTS = "allocations.sql.grants.apply_grants"
DATABASE_OWNER = {"USER": server.OWNER} if EMBEDDED_DATABASE else owner_of(_database, text("DATABASE_OWNER_URL"))
DATABASE_APPLICATION = {name: _database[name] for name in DATABASE_OWNER}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- Security ---

SECRET_KEY = text("PORTAL_SECRET_KEY")
if not SECRET_KEY and EMBEDDED_DATABASE:
    SECRET_KEY = home.secret_key(PORTAL_HOME)
elif not SECRET_KEY:
    raise ImproperlyConfigured(
        "PORTAL_SECRET_KEY is not set. With DATABASE_URL, all Portals on that database need the same key: set it to "
        'the output of `python3 -c "import secrets; print(secrets.token_urlsafe(48))"`, and keep it.'
    )
elif len(SECRET_KEY) < 50 or len(set(SECRET_KEY)) < 5:
    raise invalid("PORTAL_SECRET_KEY", "it must have at least 50 characters, preferably random ones")

_hosts = [host("PORTAL_ALLOWED_HOSTS", item) for item in items("PORTAL_ALLOWED_HOSTS")]
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]", *(f"[{name}]" if ":" in name else name for name in _hosts)]
if is_loopback(PORTAL_HOST) and PORTAL_HOST not in {"localhost", "127.0.0.1", "::1"}:
    ALLOWED_HOSTS.append(PORTAL_HOST)
# Requests to a loopback name never leave this machine. Requests to any other name cross a network and need TLS, which a
# proxy or tunnel named in PORTAL_TRUSTED_PROXIES has to provide.
HTTPS = not all(is_loopback(name) for name in _hosts)
SECURE_SSL_REDIRECT = SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$"]
SECURE_HSTS_SECONDS = 365 * 24 * 3600 if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = HTTPS
# portal.middleware removes the header unless a trusted proxy sent it.
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
    }
}

# Cookies are shared by all ports of a host, so two Portals on one machine would log out each other's users.
SESSION_COOKIE_NAME = f"portal_session_{PORTAL_PORT}"
CSRF_COOKIE_NAME = f"portal_csrf_{PORTAL_PORT}"
CSRF_FAILURE_VIEW = "allocations.pages.csrf_failure"
SESSION_COOKIE_AGE = 7 * 24 * 3600
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
LOGIN_URL, LOGIN_REDIRECT_URL, LOGOUT_REDIRECT_URL = "login", "home", "login"
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = timedelta(minutes=15)
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_RESET_ON_SUCCESS = True
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False  # further attempts do not extend the lockout
AXES_DISABLE_ACCESS_LOG = True
AXES_VERBOSE = False
AXES_LOCKOUT_CALLABLE = "allocations.logins.lockout"
AXES_WHITELIST_CALLABLE = "allocations.logins.is_known"
PASSWORD_HASHERS = ["portal.hashers.QueuedPBKDF2PasswordHasher"]

# --- Django ---

DEBUG = False
ROOT_URLCONF = "portal.urls"
WSGI_APPLICATION = "portal.wsgi.application"
ASGI_APPLICATION = "portal.asgi.application"
INSTALLED_APPS = [
    "allocations",
    "allocations.apps.AdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "django_htmx",
    "template_partials",
    "axes",
    "csp",
]
MIDDLEWARE = [
    "portal.middleware.ReleaseSessionMiddleware",
    "portal.middleware.RequestMiddleware",
    "allocations.api.problems.ProblemsMiddleware",
    "portal.middleware.ReadableRequestMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "portal.middleware.StaticFilesMiddleware",
    "portal.middleware.CompressionMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    # Every view requires a login unless it is decorated with @login_not_required.
    "portal.login_required.LoginMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "axes.middleware.AxesMiddleware",
    "portal.middleware.PrivatePagesMiddleware",  # must be last, see its docstring
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "OPTIONS": {
            "builtins": ["allocations.templatetags.icons", "template_partials.templatetags.partials"],
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]
STATIC_URL = "static/"
FILE_UPLOAD_DIRECTORY_PERMISSIONS = 0o755  # of collected files, which the server may read as another account
STATIC_ROOT: Path | None = PORTAL_HOME / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}
WHITENOISE_ALLOW_ALL_ORIGINS = False
TIME_ZONE, USE_TZ, USE_I18N = "UTC", True, False
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(request_id)s: %(message)s"}},
    "filters": {
        "request": {"()": "portal.middleware.RequestFilter"},
        "unavailable": {"()": "portal.middleware.UnavailableFilter"},
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["request"]}},
    "root": {"handlers": ["console"], "level": "WARNING"},
    "loggers": {
        "portal": {"level": "INFO"},
        "allocations": {"level": "INFO"},
        "django.request": {"level": "ERROR", "filters": ["unavailable"]},  # portal.middleware logs 4xx responses
        "django.security.DisallowedHost": {"level": "CRITICAL"},
    },
}
