"""Indexes for lists and counts that do not read the history; two that others began with are dropped."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("allocations", "0010_listener_cwd"),
    ]

    operations = [
        migrations.AlterField(
            model_name="portallocation",
            name="port_range",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name="allocations",
                to="allocations.portrange",
            ),
        ),
        migrations.AlterField(
            model_name="portallocation",
            name="project",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name="allocations",
                to="allocations.project",
            ),
        ),
        migrations.AddIndex(
            model_name="portallocation",
            index=models.Index(
                condition=models.Q(("status", "pending")), fields=["expires_at"], name="port_allocations_pending"
            ),
        ),
        migrations.AddIndex(
            model_name="portallocation",
            index=models.Index(
                condition=models.Q(("status", "released"), _negated=True),
                fields=["port_number", "hostname", "protocol", "id"],
                name="port_allocations_listed",
            ),
        ),
        migrations.AddIndex(
            model_name="portallocation",
            index=models.Index(
                condition=models.Q(("status", "released"), _negated=True),
                fields=["port_range"],
                include=("port_number", "status", "expires_at"),
                name="port_allocations_held_in_range",
            ),
        ),
    ]
