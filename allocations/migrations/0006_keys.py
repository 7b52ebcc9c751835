from django.apps.registry import Apps
from django.contrib.auth.management import create_permissions
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from .sql import RunSQLFile


def let_admins_make_tokens(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    # Permissions are made after all migrations; the group needs them now.
    config = apps.get_app_config("allocations")
    config.models_module = True
    create_permissions(config, apps=apps, verbosity=0, using=schema_editor.connection.alias)
    config.models_module = None
    group, permission = apps.get_model("auth", "Group"), apps.get_model("auth", "Permission")
    rights = permission.objects.filter(content_type__app_label="allocations", codename__in=("view_token", "add_token"))
    group.objects.get(name="admin").permissions.add(*rights)


class Migration(migrations.Migration):
    dependencies = [("allocations", "0005_access"), ("auth", "0012_alter_user_first_name_max_length")]
    operations = [
        migrations.RunPython(let_admins_make_tokens, migrations.RunPython.noop),
        RunSQLFile("0006_keys"),
    ]
