"""The addresses of the API."""

from django.contrib.auth.decorators import login_not_required
from django.urls import path

from . import api
from .docs import docs, openapi

_operations, _, _namespace = api.urls
for _pattern in _operations:
    if _pattern.callback:
        login_not_required(_pattern.callback)  # the API authenticates its own requests, also by token, and answers 401

urlpatterns = [
    path("api/docs", docs, name="api-docs"),
    path("api/openapi.json", openapi, name="openapi"),
    path("api/", (_operations, "ninja", _namespace)),
]
