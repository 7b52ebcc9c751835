"""The Django app that holds the registry and all its doors, and the configuration of the Django admin."""

from django.apps import AppConfig
from django.contrib.admin import apps as admin

from portal import checks

__all__ = ["AdminConfig", "AllocationsConfig", "checks"]  # importing the checks registers them


class AllocationsConfig(AppConfig):
    name = "allocations"
    verbose_name = "Ports"
    default = True
    default_auto_field = "django.db.models.BigAutoField"


class AdminConfig(admin.AdminConfig):
    """Use the site in allocations.admin_site as `django.contrib.admin.site`."""

    default = False
    default_site = "allocations.admin_site.PortalAdminSite"
