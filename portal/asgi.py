"""The ASGI application of Portal, which gunicorn serves."""

import os

from django.core.asgi import get_asgi_application

from portal.bodies import BodyLimitMiddleware

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
application = BodyLimitMiddleware(get_asgi_application())
