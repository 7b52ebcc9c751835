"""The Django admin, which runs the same operations as every other door. Rows of triggers and audits are read-only."""

from django.contrib import admin

from . import allocations, history, projects, tokens, users

__all__ = ["allocations", "history", "projects", "tokens", "users"]

admin.site.site_header = admin.site.site_title = "Portal"
admin.site.index_title = "Registry"
admin.site.site_url = "/"
