from django.db import migrations

from .sql import RunSQLFile


class Migration(migrations.Migration):
    dependencies = [
        ("allocations", "0009_canonical_hosts"),
    ]

    operations = [RunSQLFile("0010_last_admin")]
