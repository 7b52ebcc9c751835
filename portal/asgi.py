"""Portal for an asynchronous server: what gunicorn serves."""

import os

from django.core.asgi import get_asgi_application

from portal.bodies import LimitedBodies

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
application = LimitedBodies(get_asgi_application())
