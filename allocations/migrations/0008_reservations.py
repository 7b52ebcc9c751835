"""The table of reservations: a block of ports in one row."""

import django.contrib.postgres.functions
import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models

from .sql import RunSQLFile


class Migration(migrations.Migration):
    dependencies = [
        ("allocations", "0007_resized_ranges"),
    ]

    operations = [
        migrations.CreateModel(
            name="Reservation",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        db_default=django.contrib.postgres.functions.RandomUUID(),
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("start_port", models.IntegerField()),
                ("end_port", models.IntegerField()),
                (
                    "hostname",
                    models.CharField(
                        db_collation="C",
                        db_default="localhost",
                        default="localhost",
                        max_length=255,
                        verbose_name="host",
                    ),
                ),
                ("protocol", models.CharField(db_default="tcp", default="tcp", max_length=10)),
                ("description", models.TextField(blank=True, db_default="", default="", verbose_name="note")),
                ("expires_at", models.DateTimeField(blank=True, null=True, verbose_name="expires")),
                (
                    "reserved_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
                ("reserved_by", models.CharField(db_default="", editable=False, max_length=255)),
                ("released_at", models.DateTimeField(editable=False, null=True, verbose_name="released")),
                (
                    "project",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="reservations",
                        to="allocations.project",
                    ),
                ),
            ],
            options={
                "db_table": "reservations",
                "ordering": ("start_port", "hostname", "protocol", "pk"),
            },
        ),
        migrations.AddField(
            model_name="portallocation",
            name="reservation",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                editable=False,
                null=True,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name="allocations",
                to="allocations.reservation",
            ),
        ),
        migrations.AddIndex(
            model_name="portallocation",
            index=models.Index(
                condition=models.Q(("reservation__isnull", False)),
                fields=["reservation", "port_number"],
                name="port_allocations_of_block",
            ),
        ),
        migrations.AddConstraint(
            model_name="reservation",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("end_port__lte", 65535), ("start_port__gte", 1), ("start_port__lte", models.F("end_port"))
                ),
                name="reservations_bounds",
            ),
        ),
        migrations.AddConstraint(
            model_name="reservation",
            constraint=models.CheckConstraint(
                condition=models.Q(("protocol__in", ("tcp", "udp"))), name="reservations_protocol"
            ),
        ),
        RunSQLFile("0008_reservations"),
    ]
