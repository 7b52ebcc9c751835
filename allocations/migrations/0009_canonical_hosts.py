from django.db import migrations

from .sql import RunSQLFile


class Migration(migrations.Migration):
    dependencies = [
        ("allocations", "0008_one_name_a_host"),
    ]

    operations = [RunSQLFile("0009_canonical_hosts")]
