from django.db import migrations

from .sql import RunSQLFile


class Migration(migrations.Migration):
    dependencies = [("allocations", "0003_allocation_owner")]

    operations = [RunSQLFile("0004_token_projects")]
