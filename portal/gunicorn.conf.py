# ruff: noqa: N999 - gunicorn expects this name
"""The settings of gunicorn: run `gunicorn --config portal/gunicorn.conf.py` from any directory."""

import os
import sys
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

chdir = str(Path(__file__).resolve().parent.parent)
sys.path.insert(0, chdir)  # gunicorn changes to this directory only after reading this file
try:
    from portal import settings
except ImproperlyConfigured as error:
    sys.exit(str(error))

wsgi_app = "portal.asgi:application"
worker_class = "portal.worker.Worker"  # ASGI, so that slow clients and open streams do not occupy a worker
asgi_lifespan = "off"  # Django does not support it
bind = (
    f"[{settings.PORTAL_HOST}]:{settings.PORTAL_PORT}"
    if ":" in settings.PORTAL_HOST
    else (f"{settings.PORTAL_HOST}:{settings.PORTAL_PORT}")
)
workers = settings.PORTAL_WORKERS
timeout = 60  # seconds after which a silent worker is restarted
# Longer than proxies and clients keep a connection (60 s is usual): whoever closes it first may lose a request.
keepalive = 75
graceful_timeout = 15  # seconds for requests to finish before a worker is stopped
max_requests, max_requests_jitter = 5000, 500  # limits the effect of memory leaks
forwarded_allow_ips = ",".join(map(str, settings.PORTAL_TRUSTED_PROXIES))
control_socket_disable = True  # all instances would share one file in the home directory


def on_starting(server: object) -> None:
    """Refuse to serve as root."""
    if os.geteuid() == 0:
        sys.exit("Root does not serve Portal: `make up` hands over to an account without rights.")
