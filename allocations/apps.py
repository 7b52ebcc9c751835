"""The Django app that holds the registry and all its doors."""

from django.apps import AppConfig


class AllocationsConfig(AppConfig):
    name = "allocations"
    verbose_name = "Ports"
    default_auto_field = "django.db.models.BigAutoField"
