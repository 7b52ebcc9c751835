from django.db import migrations

from .sql import RunSQLFile


class Migration(migrations.Migration):
    dependencies = [("allocations", "0005_hosts")]

    operations = [RunSQLFile("0006_history_of_the_owner")]
