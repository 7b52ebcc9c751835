from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("allocations", "0009_quiet_audits")]

    operations = [
        migrations.AddField(model_name="listener", name="cwd", field=models.TextField(db_default="")),
    ]
