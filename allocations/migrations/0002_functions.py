"""Every function and trigger, and the CHECK that needs a function."""

from django.db import migrations

from .sql import RunSQLFile

# Of a database that the ten migrations before 0001_initial made: functions whose names or parameters have changed since.
# CASCADE drops their triggers too, which the files below create again. On a new database there is nothing to drop.
DROP_REPLACED = """
DROP FUNCTION IF EXISTS
    guard_allocation_v3(), refuse_v1(), record_event_v1(), guard_token_v1(), guard_last_admin_v2(), refuse_truncate_v1()
    CASCADE;
DROP FUNCTION IF EXISTS
    hold_port(uuid, uuid[], text, text, text, text, int, text, text, text, jsonb, timestamptz, boolean),
    next_instance_of(uuid, text, text, text),
    next_free_port(int, int, text, text, int),
    is_full_admin(integer);
ALTER TABLE port_allocations DROP CONSTRAINT IF EXISTS port_allocations_canonical_host;
"""


class Migration(migrations.Migration):
    dependencies = [("allocations", "0001_initial")]

    operations = [
        migrations.RunSQL([DROP_REPLACED], migrations.RunSQL.noop),
        RunSQLFile("guards"),
        RunSQLFile("history"),
        RunSQLFile("rights"),
        RunSQLFile("allocator"),
    ]
