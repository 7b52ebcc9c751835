"""The app `allocations`: everything about ports."""

from django.apps import AppConfig


class AllocationsConfig(AppConfig):
    name = "allocations"
    verbose_name = "Ports"
    default_auto_field = "django.db.models.BigAutoField"
