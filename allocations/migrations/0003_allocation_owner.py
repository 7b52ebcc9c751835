from django.db import migrations, models

from .sql import RunSQLFile


class Migration(migrations.Migration):
    dependencies = [("allocations", "0002_functions")]

    operations = [
        migrations.AddField(
            model_name="portallocation",
            name="owner",
            field=models.CharField(blank=True, db_default="", default="", max_length=255),
        ),
        RunSQLFile("0003_allocation_owner"),
    ]
