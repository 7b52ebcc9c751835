from django.db import migrations

from .sql import RunSQLFile


class Migration(migrations.Migration):
    dependencies = [("allocations", "0002_guards")]
    operations = [RunSQLFile("0003_functions")]
