# ruff: noqa: N999 - the name that gunicorn expects
"""gunicorn's settings: `gunicorn --config portal/gunicorn.conf.py`, from anywhere."""

import sys
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

chdir = str(Path(__file__).resolve().parent.parent)
sys.path.insert(0, chdir)  # gunicorn changes there after it has read this file
try:
    from portal import settings
except ImproperlyConfigured as error:
    sys.exit(str(error))

wsgi_app = "portal.asgi:application"
worker_class = "asgi"  # gunicorn's own: slow clients and open streams do not occupy a worker
asgi_lifespan = "off"  # Django has none
bind = (
    f"[{settings.PORTAL_HOST}]:{settings.PORTAL_PORT}"
    if ":" in settings.PORTAL_HOST
    else (f"{settings.PORTAL_HOST}:{settings.PORTAL_PORT}")
)
workers = settings.PORTAL_WORKERS
timeout = 60  # seconds that a worker may be silent
graceful_timeout = 15  # seconds that requests get to finish
max_requests, max_requests_jitter = 5000, 500  # a leak never grows for long
forwarded_allow_ips = ",".join(map(str, settings.PORTAL_TRUSTED_PROXIES))
control_socket_disable = True  # it would be one file in the home directory for all instances
