"""Insert the five plans as they first shipped; later edits belong to operators."""

from django.db import migrations

_COLUMNS = (
    "tier", "name", "rank", "monthly_requests", "requests_per_minute",
    "raw_retention_days", "rollup_retention_days", "members",
    "has_summaries", "has_immediate_alerts", "has_integrations", "has_executive_report", "has_price_overrides",
)  # fmt: skip
_PLANS = (
    ("free", "Free", 1, 10_000, 120, 14, 90, 2, False, False, False, False, False),
    ("starter", "Starter", 2, 100_000, 300, 30, 180, 5, True, False, False, False, False),
    ("pro", "Pro", 3, 1_000_000, 600, 90, 365, 15, True, True, True, False, False),
    ("team", "Team", 4, 5_000_000, 3_000, 180, 730, 50, True, True, True, True, False),
    ("enterprise", "Enterprise", 5, None, 6_000, 730, 1_095, None, True, True, True, True, True),
)


def insert_plans(apps, schema_editor):
    plan_model = apps.get_model("billing", "Plan")
    plans = [plan_model(**dict(zip(_COLUMNS, values, strict=True))) for values in _PLANS]
    plan_model.objects.using(schema_editor.connection.alias).bulk_create(plans, ignore_conflicts=True)


class Migration(migrations.Migration):
    dependencies = [("billing", "0002_initial")]

    operations = [migrations.RunPython(insert_plans, migrations.RunPython.noop)]
