"""The Python functions that 0001_initial runs.

The underscore in the name of this module tells Django that it is not a migration.
"""

from django.apps.registry import Apps
from django.contrib.auth.management import create_permissions
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

EDITED_BY_ADMINS = ("project", "portrange", "portallocation")
READ_ONLY = ("porthealthcheck", "audit", "listener", "event")


def run_deferred_sql(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Create the foreign keys and indexes that Django otherwise creates at the end of the migration.

    With nothing left for the end, Django records the migration in its own transaction. If a migration of a new database
    is interrupted, all of it is therefore recorded or nothing, and never only some of its ten names.
    """
    for statement in schema_editor.deferred_sql:
        schema_editor.execute(statement, None)
    schema_editor.deferred_sql.clear()


def create_groups(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Create the groups viewer, operator and admin, each with its permissions in the Django admin."""
    # Django creates permissions after the last migration, but the groups need them now.
    config = apps.get_app_config("allocations")
    config.models_module = True
    create_permissions(config, apps=apps, verbosity=0, using=schema_editor.connection.alias)
    config.models_module = None

    groups, permissions = apps.get_model("auth", "Group").objects, apps.get_model("auth", "Permission").objects

    def named(*codenames: str) -> list[object]:
        return list(permissions.filter(content_type__app_label="allocations", codename__in=codenames))

    view = named(*(f"view_{model}" for model in EDITED_BY_ADMINS + READ_ONLY))
    edit_allocations = named(*(f"{action}_portallocation" for action in ("add", "change", "delete")))
    edit_all = named(*(f"{action}_{model}" for action in ("add", "change", "delete") for model in EDITED_BY_ADMINS))
    make_tokens = named("view_token", "add_token")
    for name, rights in (
        ("viewer", view),
        ("operator", view + edit_allocations),
        ("admin", view + edit_all + make_tokens),
    ):
        group, _ = groups.get_or_create(name=name)
        group.permissions.add(*rights)
