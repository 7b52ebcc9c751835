"""The ASGI application of Portal, which gunicorn serves."""

import os

from django.core.asgi import get_asgi_application

from portal.bodies import BodyLimitMiddleware
from portal.charsets import CharsetMiddleware
from portal.websockets import NoWebSocketsMiddleware

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
application = NoWebSocketsMiddleware(CharsetMiddleware(BodyLimitMiddleware(get_asgi_application())))
