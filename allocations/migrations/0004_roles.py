"""The groups viewer, operator and admin, with the rights of the Django admin that go with each."""

from django.apps.registry import Apps
from django.contrib.auth.management import create_permissions
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

EDITED_BY_ADMINS = ("project", "portrange", "portallocation")
READ_ONLY = ("porthealthcheck", "audit", "listener", "event")


def create_groups(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    # Permissions are made after all migrations; the groups need them now.
    config = apps.get_app_config("allocations")
    config.models_module = True
    create_permissions(config, apps=apps, verbosity=0, using=schema_editor.connection.alias)
    config.models_module = None

    group, permission = apps.get_model("auth", "Group"), apps.get_model("auth", "Permission")
    ours = permission.objects.filter(content_type__app_label="allocations")
    views = ours.filter(codename__in=[f"view_{name}" for name in EDITED_BY_ADMINS + READ_ONLY])
    changes = ours.filter(
        codename__in=[f"{verb}_{name}" for verb in ("add", "change", "delete") for name in EDITED_BY_ADMINS]
    )
    allocations = changes.filter(codename__endswith="_portallocation")
    for name, rights in (
        ("viewer", views),
        ("operator", views | allocations),
        ("admin", views | changes),
    ):
        made, _ = group.objects.get_or_create(name=name)
        made.permissions.add(*rights)


class Migration(migrations.Migration):
    dependencies = [
        ("allocations", "0003_functions"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]
    # Backwards the groups stay: people are in them.
    operations = [migrations.RunPython(create_groups, migrations.RunPython.noop)]
