"""The table of approved hosts, and the permissions of admins for it."""

import django.db.models.functions.datetime
from django.apps.registry import Apps
from django.contrib.auth.management import create_permissions
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from .sql import RunSQLFile


def grant_permissions(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Let the group admin edit hosts in the Django admin."""
    # Django creates permissions after the last migration, but the group needs them now.
    config = apps.get_app_config("allocations")
    config.models_module = True
    create_permissions(config, apps=apps, verbosity=0, using=schema_editor.connection.alias)
    config.models_module = None
    permissions = apps.get_model("auth", "Permission").objects
    rights = permissions.filter(codename__in=("view_host", "add_host", "delete_host"))
    apps.get_model("auth", "Group").objects.get(name="admin").permissions.add(*rights)


class Migration(migrations.Migration):
    dependencies = [("allocations", "0004_token_projects")]

    operations = [
        migrations.CreateModel(
            name="Host",
            fields=[
                (
                    "name",
                    models.CharField(db_collation="C", max_length=255, primary_key=True, serialize=False),
                ),
                ("approved_by", models.CharField(editable=False, max_length=255)),
                (
                    "approved_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
            ],
            options={"db_table": "hosts", "ordering": ("name",)},
        ),
        RunSQLFile("0005_hosts"),
        migrations.RunPython(grant_permissions, migrations.RunPython.noop),
    ]
