from django.db import migrations

from .sql import RunSQLFile


class Migration(migrations.Migration):
    dependencies = [("allocations", "0008_reservations")]

    operations = [RunSQLFile("0009_quiet_audits")]
