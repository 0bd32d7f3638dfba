"""How the ledger's tables lie on disk.

Primary keys begin with the workspace, so that the tables can be distributed by it; Django keeps seeing `id`. Sums are found by
what they sum, so that is their primary key, and nothing indexes their `id`. Rows that are added to all day leave room for
their next version on the same page, which spares the indexes.
"""

from django.db import migrations

_NATURAL_KEYS = {
    "ingest_rollup": ("rollup_unique", "workspace_id, bucket_start, dimensions_key"),
    "ingest_refusal": ("refusal_unique", "workspace_id, bucket_start, reason"),
    "ingest_meter": ("meter_unique", "workspace_id, period_start, period, measure"),
}
_UPDATED = {"ingest_rollup": 80, "ingest_refusal": 80, "ingest_meter": 50, "ingest_workspacepolicy": 50}


class Migration(migrations.Migration):
    dependencies = [("ingest", "0002_initial")]

    operations = [
        migrations.RunSQL(
            "ALTER TABLE ingest_event DROP CONSTRAINT ingest_event_pkey, ADD PRIMARY KEY (workspace_id, id)",
            "ALTER TABLE ingest_event DROP CONSTRAINT ingest_event_pkey, ADD PRIMARY KEY (id)",
        ),
        *(
            migrations.RunSQL(
                f"ALTER TABLE {table} DROP CONSTRAINT {table}_pkey, DROP CONSTRAINT {name}, "
                f"ADD CONSTRAINT {name} PRIMARY KEY ({columns})",
                f"ALTER TABLE {table} DROP CONSTRAINT {name}, ADD PRIMARY KEY (id), "
                f"ADD CONSTRAINT {name} UNIQUE ({columns})",
            )
            for table, (name, columns) in _NATURAL_KEYS.items()
        ),
        *(
            migrations.RunSQL(
                f"ALTER TABLE {table} SET (fillfactor = {share})", f"ALTER TABLE {table} RESET (fillfactor)"
            )
            for table, share in _UPDATED.items()
        ),
    ]
