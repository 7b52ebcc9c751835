"""Every table with its constraints and indexes, and the groups of users.

Generated from the models, but for `replaces` and the last three operations.
"""

import django.contrib.postgres.constraints
import django.contrib.postgres.fields.ranges
import django.contrib.postgres.functions
import django.db.models.deletion
import django.db.models.expressions
import django.db.models.functions.comparison
import django.db.models.functions.datetime
from django.conf import settings
from django.db import migrations, models

from ._initial import create_groups, run_deferred_sql
from .sql import RunSQLFile


class Migration(migrations.Migration):
    initial = True

    # A database that these ten made has every table already.
    replaces = [
        ("allocations", "0001_registry"),
        ("allocations", "0002_guards"),
        ("allocations", "0003_functions"),
        ("allocations", "0004_roles"),
        ("allocations", "0005_access"),
        ("allocations", "0006_keys"),
        ("allocations", "0007_agents"),
        ("allocations", "0008_one_name_a_host"),
        ("allocations", "0009_canonical_hosts"),
        ("allocations", "0010_last_admin"),
    ]

    dependencies = [
        ("contenttypes", "0002_remove_content_type_name"),
        ("auth", "0012_alter_user_first_name_max_length"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Event",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("actor", models.CharField(max_length=255)),
                ("source", models.CharField(max_length=50)),
                ("verb", models.CharField(max_length=20)),
                ("subject", models.CharField(max_length=20)),
                ("subject_id", models.UUIDField()),
                ("project_id", models.UUIDField()),
                ("label", models.TextField()),
                ("changes", models.JSONField(db_default={})),
            ],
            options={
                "db_table": "events",
                "ordering": ("-id",),
                "indexes": [
                    models.Index(fields=["project_id", "-id"], name="events_of_project"),
                    models.Index(fields=["subject_id", "-id"], name="events_of_subject"),
                ],
            },
        ),
        migrations.CreateModel(
            name="IdempotentAnswer",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("principal", models.CharField(db_collation="C", max_length=300)),
                ("key", models.CharField(db_collation="C", max_length=255)),
                ("fingerprint", models.BinaryField()),
                ("answer", models.JSONField(null=True)),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                "db_table": "idempotent_answers",
                "indexes": [models.Index(fields=["created_at"], name="idempotent_answers_age")],
                "constraints": [models.UniqueConstraint(fields=("principal", "key"), name="idempotent_answers_key")],
            },
        ),
        migrations.CreateModel(
            name="Listener",
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
                ("hostname", models.CharField(db_collation="C", max_length=255)),
                ("protocol", models.CharField(max_length=10)),
                ("address", models.CharField(max_length=100)),
                ("port", models.IntegerField()),
                ("process", models.CharField(db_default="", max_length=255)),
                ("pid", models.IntegerField(null=True)),
                ("container", models.CharField(db_default="", max_length=255)),
                ("first_seen_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("last_seen_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                "db_table": "listeners",
                "ordering": ("port", "hostname", "protocol", "address", "pk"),
                "constraints": [
                    models.UniqueConstraint(
                        fields=("hostname", "protocol", "port", "address"), name="listeners_one_socket"
                    ),
                    models.CheckConstraint(condition=models.Q(("port__range", (1, 65535))), name="listeners_port"),
                ],
            },
        ),
        migrations.CreateModel(
            name="Project",
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
                ("name", models.CharField(db_collation="C", max_length=255, unique=True)),
                ("description", models.TextField(blank=True, db_default="", default="")),
                (
                    "mode",
                    models.CharField(
                        choices=[("autonomous", "autonomous"), ("ask", "ask")],
                        db_default="autonomous",
                        default="autonomous",
                        max_length=20,
                        verbose_name="agents",
                    ),
                ),
                ("agent_quota", models.IntegerField(blank=True, null=True, verbose_name="ports per token")),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
            ],
            options={
                "db_table": "projects",
                "ordering": ("name", "pk"),
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("name__regex", "^[a-z0-9][a-z0-9._-]{0,254}$")),
                        name="projects_name",
                        violation_error_code="invalid_name",
                        violation_error_message="Use a-z 0-9 . _ -, starting with a letter or a digit.",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("mode__in", ("autonomous", "ask"))), name="projects_mode"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("agent_quota__isnull", True), ("agent_quota__gte", 0), _connector="OR"),
                        name="projects_quota",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="PortRange",
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
                ("range_name", models.CharField(db_collation="C", max_length=255, unique=True, verbose_name="name")),
                ("start_port", models.IntegerField(verbose_name="start port")),
                ("end_port", models.IntegerField(verbose_name="end port")),
                ("description", models.TextField(blank=True, db_default="", default="")),
                ("is_active", models.BooleanField(db_default=True, default=True, verbose_name="active")),
                ("is_shared", models.BooleanField(db_default=False, default=False, verbose_name="shared")),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
                (
                    "span",
                    models.GeneratedField(
                        db_persist=True,
                        expression=models.Func(
                            django.db.models.functions.comparison.Least("start_port", "end_port"),
                            django.db.models.functions.comparison.Greatest("start_port", "end_port"),
                            models.Value("[]"),
                            function="int4range",
                        ),
                        output_field=django.contrib.postgres.fields.ranges.IntegerRangeField(),
                    ),
                ),
                (
                    "project",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="ranges",
                        to="allocations.project",
                    ),
                ),
            ],
            options={
                "db_table": "port_ranges",
                "ordering": ("start_port", "pk"),
            },
        ),
        migrations.CreateModel(
            name="PortAllocation",
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
                ("port_number", models.IntegerField(verbose_name="port")),
                (
                    "service_name",
                    models.CharField(blank=True, db_collation="C", max_length=255, null=True, verbose_name="service"),
                ),
                ("instance", models.IntegerField(db_default=0, default=0)),
                (
                    "service_type",
                    models.CharField(blank=True, db_default="", default="", max_length=100, verbose_name="type"),
                ),
                ("description", models.TextField(blank=True, db_default="", default="")),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("allocated", "Allocated"),
                            ("reserved", "Reserved"),
                            ("pending", "Pending"),
                            ("released", "Released"),
                        ],
                        db_default="allocated",
                        default="allocated",
                        max_length=50,
                    ),
                ),
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
                (
                    "cloudflare_hostname",
                    models.CharField(
                        blank=True, db_collation="C", max_length=253, null=True, verbose_name="Cloudflare hostname"
                    ),
                ),
                ("metadata", models.JSONField(blank=True, db_default={}, default=dict)),
                (
                    "allocated_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
                ("last_used_at", models.DateTimeField(editable=False, null=True)),
                ("expires_at", models.DateTimeField(blank=True, null=True, verbose_name="expires")),
                ("released_at", models.DateTimeField(editable=False, null=True, verbose_name="released")),
                (
                    "health",
                    models.CharField(
                        choices=[("up", "Up"), ("down", "Down"), ("conflict", "Conflict"), ("unknown", "Unknown")],
                        editable=False,
                        max_length=50,
                        null=True,
                    ),
                ),
                ("span", django.contrib.postgres.fields.ranges.IntegerRangeField(editable=False, null=True)),
                ("range_project_id", models.UUIDField(editable=False, null=True)),
                ("range_is_shared", models.BooleanField(editable=False, null=True)),
                ("allocated_by", models.CharField(db_default="", editable=False, max_length=255)),
                ("token_id", models.UUIDField(editable=False, null=True)),
                (
                    "port_range",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="allocations",
                        to="allocations.portrange",
                    ),
                ),
                (
                    "project",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="allocations",
                        to="allocations.project",
                    ),
                ),
            ],
            options={
                "db_table": "port_allocations",
                "ordering": ("port_number", "hostname", "protocol", "-allocated_at", "pk"),
            },
        ),
        migrations.CreateModel(
            name="Audit",
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
                ("started_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("finished_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("actor", models.CharField(db_default="", max_length=255)),
                ("source", models.CharField(db_default="", max_length=50)),
                ("hostname", models.CharField(max_length=255, null=True)),
                ("allocated", models.IntegerField(db_default=0)),
                ("in_use", models.IntegerField(db_default=0)),
                ("not_running", models.IntegerField(db_default=0)),
                ("conflicts", models.IntegerField(db_default=0)),
                ("unknown", models.IntegerField(db_default=0)),
                ("unallocated", models.IntegerField(db_default=0)),
                (
                    "project",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="audits",
                        to="allocations.project",
                    ),
                ),
            ],
            options={
                "db_table": "audits",
                "ordering": ("-finished_at", "pk"),
            },
        ),
        migrations.CreateModel(
            name="Token",
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
                ("public_id", models.CharField(db_collation="C", editable=False, max_length=8, unique=True)),
                ("secret_hash", models.BinaryField()),
                ("name", models.CharField(db_collation="C", max_length=100)),
                ("role", models.CharField(max_length=20)),
                ("is_limited", models.BooleanField(db_default=False, default=False)),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
                ("created_by", models.CharField(editable=False, max_length=255)),
                ("expires_at", models.DateTimeField()),
                ("last_used_at", models.DateTimeField(editable=False, null=True)),
                ("revoked_at", models.DateTimeField(editable=False, null=True)),
                (
                    "projects",
                    models.ManyToManyField(
                        blank=True, db_table="api_token_projects", related_name="+", to="allocations.project"
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="port_tokens",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "db_table": "api_tokens",
                "ordering": ("-created_at", "pk"),
            },
        ),
        migrations.CreateModel(
            name="UserLimit",
            fields=[
                (
                    "user",
                    models.OneToOneField(
                        db_column="user_id",
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="port_limit",
                        serialize=False,
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "projects",
                    models.ManyToManyField(
                        blank=True, db_table="user_limit_projects", related_name="+", to="allocations.project"
                    ),
                ),
            ],
            options={
                "db_table": "user_limits",
            },
        ),
        migrations.CreateModel(
            name="PortHealthCheck",
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
                ("check_type", models.CharField(max_length=50)),
                (
                    "status",
                    models.CharField(
                        choices=[("up", "Up"), ("down", "Down"), ("conflict", "Conflict"), ("unknown", "Unknown")],
                        max_length=50,
                    ),
                ),
                ("response_time_ms", models.IntegerField(null=True)),
                ("checked_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("evidence", models.JSONField(db_default={})),
                (
                    "audit",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="checks",
                        to="allocations.audit",
                    ),
                ),
                (
                    "port_allocation",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="checks",
                        to="allocations.portallocation",
                    ),
                ),
            ],
            options={
                "db_table": "port_health_checks",
                "ordering": ("-checked_at", "pk"),
                "indexes": [
                    models.Index(fields=["port_allocation", "-checked_at"], name="port_health_checks_newest"),
                    models.Index(fields=["checked_at"], name="port_health_checks_age"),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("status__in", ("up", "down", "conflict", "unknown"))),
                        name="port_health_checks_status",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("response_time_ms__isnull", True), ("response_time_ms__gte", 0), _connector="OR"
                        ),
                        name="port_health_checks_time",
                    ),
                ],
            },
        ),
        migrations.AddConstraint(
            model_name="portrange",
            constraint=models.CheckConstraint(
                condition=models.Q(("range_name__regex", "^[a-z0-9][a-z0-9._-]{0,254}$")),
                name="port_ranges_name",
                violation_error_code="invalid_name",
                violation_error_message="Use a-z 0-9 . _ -, starting with a letter or a digit.",
            ),
        ),
        migrations.AddConstraint(
            model_name="portrange",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("end_port__lte", 65535), ("start_port__gte", 1), ("start_port__lte", models.F("end_port"))
                ),
                name="port_ranges_bounds",
                violation_error_code="port_out_of_range",
                violation_error_message="A range lies within 1 to 65535, and its start port comes first.",
            ),
        ),
        migrations.AddConstraint(
            model_name="portrange",
            constraint=django.contrib.postgres.constraints.ExclusionConstraint(
                expressions=(("span", "&&"),),
                name="port_ranges_no_overlap",
                violation_error_code="range_overlap",
                violation_error_message="This span shares ports with another range.",
            ),
        ),
        migrations.AddIndex(
            model_name="portallocation",
            index=models.Index(fields=["project", "service_name"], name="port_allocations_of_project"),
        ),
        migrations.AddIndex(
            model_name="portallocation",
            index=models.Index(
                condition=models.Q(models.Q(("status", "released"), _negated=True), ("token_id__isnull", False)),
                fields=["token_id"],
                name="port_allocations_of_token",
            ),
        ),
        migrations.AddIndex(
            model_name="portallocation",
            index=models.Index(fields=["port_range"], name="port_allocations_of_range"),
        ),
        migrations.AddIndex(
            model_name="portallocation",
            index=models.Index(
                condition=models.Q(("status", "reserved")), fields=["expires_at"], name="port_allocations_expiring"
            ),
        ),
        migrations.AddConstraint(
            model_name="portallocation",
            constraint=models.UniqueConstraint(
                condition=models.Q(("status", "released"), _negated=True),
                fields=("hostname", "protocol", "port_number"),
                include=("expires_at",),
                name="port_allocations_one_holder",
                violation_error_code="port_taken",
                violation_error_message="Another service holds this port.",
            ),
        ),
        migrations.AddConstraint(
            model_name="portallocation",
            constraint=models.UniqueConstraint(
                condition=models.Q(("status", "released"), _negated=True),
                fields=("project", "service_name", "hostname", "protocol", "instance"),
                name="port_allocations_one_instance",
                violation_error_code="name_taken",
                violation_error_message="The service already holds this instance.",
            ),
        ),
        migrations.AddConstraint(
            model_name="portallocation",
            constraint=models.UniqueConstraint(
                condition=models.Q(("status", "released"), _negated=True),
                fields=("cloudflare_hostname",),
                name="port_allocations_one_cloudflare",
                violation_error_code="hostname_taken",
                violation_error_message="The Cloudflare hostname points at another allocation.",
            ),
        ),
        migrations.AddConstraint(
            model_name="portallocation",
            constraint=models.CheckConstraint(
                condition=models.Q(("port_number__range", (1, 65535))), name="port_allocations_port"
            ),
        ),
        migrations.AddConstraint(
            model_name="portallocation",
            constraint=models.CheckConstraint(
                condition=models.Q(("status__in", ("allocated", "reserved", "pending", "released"))),
                name="port_allocations_status",
            ),
        ),
        migrations.AddConstraint(
            model_name="portallocation",
            constraint=models.CheckConstraint(
                condition=models.Q(("protocol__in", ("tcp", "udp"))), name="port_allocations_protocol"
            ),
        ),
        migrations.AddConstraint(
            model_name="portallocation",
            constraint=models.CheckConstraint(
                condition=models.Q(("instance__gte", 0)), name="port_allocations_instance"
            ),
        ),
        migrations.AddConstraint(
            model_name="portallocation",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("service_name__isnull", False), ("service_name__regex", "^[a-z0-9][a-z0-9._-]{0,254}$")),
                    models.Q(("service_name__isnull", True), models.Q(("status", "allocated"), _negated=True)),
                    _connector="OR",
                ),
                name="port_allocations_service",
            ),
        ),
        migrations.AddConstraint(
            model_name="portallocation",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    (
                        "hostname__regex",
                        "^(?!127(\\.[0-9]+){3}$|0\\.0\\.0\\.0$|::1?$)([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?|[0-9a-f:]*:[0-9a-f:.]*(%[a-z0-9._-]+)?)$",
                    )
                ),
                name="port_allocations_hostname",
            ),
        ),
        migrations.AddConstraint(
            model_name="portallocation",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("cloudflare_hostname__isnull", True),
                    ("cloudflare_hostname__regex", "^(\\*\\.)?[a-z0-9]([a-z0-9.-]{0,249}[a-z0-9])?$"),
                    _connector="OR",
                ),
                name="port_allocations_cloudflare",
            ),
        ),
        migrations.AddConstraint(
            model_name="portallocation",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("health__isnull", True), ("health__in", ("up", "down", "conflict", "unknown")), _connector="OR"
                ),
                name="port_allocations_health",
            ),
        ),
        migrations.AddConstraint(
            model_name="portallocation",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("expires_at__isnull", False), models.Q(("status", "pending"), _negated=True), _connector="OR"
                ),
                name="port_allocations_pending_expires",
            ),
        ),
        migrations.AddConstraint(
            model_name="portallocation",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("expires_at__isnull", True), models.Q(("status", "allocated"), _negated=True), _connector="OR"
                ),
                name="port_allocations_expiry",
            ),
        ),
        migrations.AddConstraint(
            model_name="portallocation",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("released_at__isnull", False), ("status", "released")),
                    models.Q(models.Q(("status", "released"), _negated=True), ("released_at__isnull", True)),
                    _connector="OR",
                ),
                name="port_allocations_released_at",
            ),
        ),
        migrations.AddConstraint(
            model_name="portallocation",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("range_is_shared__isnull", True),
                        ("range_project_id__isnull", True),
                        ("span__isnull", True),
                        ("status", "released"),
                    ),
                    models.Q(
                        models.Q(("status", "released"), _negated=True),
                        ("range_is_shared__isnull", False),
                        ("range_project_id__isnull", False),
                        ("span__isnull", False),
                    ),
                    _connector="OR",
                ),
                name="port_allocations_copies",
            ),
        ),
        migrations.AddConstraint(
            model_name="portallocation",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("status", "released"), ("span__contains", models.F("port_number")), _connector="OR"
                ),
                name="port_allocations_inside_range",
                violation_error_code="port_out_of_range",
                violation_error_message="The port lies outside the range.",
            ),
        ),
        migrations.AddConstraint(
            model_name="portallocation",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("status", "released"),
                    ("range_project_id", models.F("project_id")),
                    ("range_is_shared", True),
                    _connector="OR",
                ),
                name="port_allocations_own_or_shared",
                violation_error_code="not_permitted",
                violation_error_message="The range belongs to another project and is not shared.",
            ),
        ),
        migrations.AddIndex(
            model_name="audit",
            index=models.Index(fields=["-finished_at"], name="audits_newest_first"),
        ),
        migrations.AddConstraint(
            model_name="token",
            constraint=models.CheckConstraint(
                condition=models.Q(("public_id__regex", "^[0-9A-Za-z]{8}$")), name="api_tokens_public"
            ),
        ),
        migrations.AddConstraint(
            model_name="token",
            constraint=models.CheckConstraint(condition=models.Q(("secret_hash__length", 32)), name="api_tokens_hash"),
        ),
        migrations.AddConstraint(
            model_name="token",
            constraint=models.CheckConstraint(
                condition=models.Q(("role__in", ("scraper", "viewer", "operator", "admin"))), name="api_tokens_role"
            ),
        ),
        migrations.AddConstraint(
            model_name="token",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("expires_at__gt", models.F("created_at")),
                    (
                        "expires_at__lte",
                        django.db.models.expressions.CombinedExpression(
                            models.F("created_at"), "+", models.Value("366 days", models.DurationField())
                        ),
                    ),
                ),
                name="api_tokens_expiry",
            ),
        ),
        RunSQLFile("tables"),
        migrations.RunPython(run_deferred_sql, migrations.RunPython.noop),
        # Backwards the groups stay, because users belong to them.
        migrations.RunPython(create_groups, migrations.RunPython.noop),
    ]
