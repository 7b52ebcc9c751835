"""The Django admin: the same operations behind plainer forms. What SQL or audits own is read-only."""

from django.contrib import admin

from . import access, allocations, history, owning

__all__ = ["access", "allocations", "history", "owning"]

admin.site.site_header = admin.site.site_title = "Portal"
admin.site.index_title = "Registry"
admin.site.site_url = "/"
