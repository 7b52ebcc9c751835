from django.db import migrations

from .sql import RunSQLFile


class Migration(migrations.Migration):
    dependencies = [("allocations", "0006_history_of_the_owner")]

    operations = [RunSQLFile("0007_resized_ranges")]
