from django.db import migrations

from .sql import RunSQLFile


class Migration(migrations.Migration):
    dependencies = [("allocations", "0001_registry")]
    operations = [RunSQLFile("0002_guards")]
