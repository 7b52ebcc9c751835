"""The URLs of Portal."""

from django.contrib import admin
from django.urls import include, path

from portal import probes

handler400 = "allocations.pages.bad_request"
handler403 = "allocations.pages.permission_denied"
handler404 = "allocations.pages.page_not_found"
handler500 = "allocations.pages.server_error"
urlpatterns = [
    path("healthz", probes.healthz, name="healthz"),
    path("readyz", probes.readyz, name="readyz"),
    path("admin/", admin.site.urls),
    path("", include("allocations.api.urls")),
    path("", include("allocations.urls")),
]
