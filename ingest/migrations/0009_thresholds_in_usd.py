"""A crossing says whether its threshold is one in USD, which stays the same whatever the limit's amount is."""

from django.db import migrations, models

# Shares were rounded to 12 digits. What was crossed again under another amount stays a share: it was told twice.
_FILL_THRESHOLDS_USD = """
UPDATE ingest_limitcrossing AS crossing SET threshold_usd = first.usd
FROM (
    SELECT DISTINCT ON (crossed.limit_id, crossed.period_start, crossed.scope_value, threshold.usd)
        crossed.id, threshold.usd
    FROM ingest_limitcrossing AS crossed JOIN ingest_limit AS rule ON rule.id = crossed.limit_id
    CROSS JOIN LATERAL (
        SELECT usd FROM unnest(rule.thresholds_usd) AS usd
        WHERE abs(crossed.threshold * crossed.amount - usd) <= crossed.amount * 0.000000000001
        ORDER BY abs(crossed.threshold * crossed.amount - usd) LIMIT 1
    ) AS threshold
    WHERE crossed.threshold < 1 AND crossed.threshold <> ALL(rule.thresholds)
    ORDER BY crossed.limit_id, crossed.period_start, crossed.scope_value, threshold.usd, crossed.id
) AS first
WHERE crossing.id = first.id
"""

# On the way back: of those that were told apart by their USD alone, one stays.
_DELETE_DOUBLED = """
DELETE FROM ingest_limitcrossing AS crossing USING ingest_limitcrossing AS other
WHERE crossing.threshold_usd IS NOT NULL AND (other.threshold_usd IS NULL OR other.id < crossing.id)
    AND (other.limit_id, other.period_start, other.scope_value, other.threshold, other.amount)
        = (crossing.limit_id, crossing.period_start, crossing.scope_value, crossing.threshold, crossing.amount)
"""


class Migration(migrations.Migration):

    dependencies = [("ingest", "0008_scoped_limits")]

    operations = [
        migrations.AddField(
            model_name="limitcrossing",
            name="threshold_usd",
            field=models.DecimalField(
                decimal_places=12,
                help_text="Of a threshold that is set in USD; null: a share.",
                max_digits=24,
                null=True,
            ),
        ),
        migrations.AlterField(
            model_name="limitcrossing",
            name="threshold",
            field=models.DecimalField(
                decimal_places=12, help_text="As a share of `amount`; 1 means over the limit.", max_digits=13
            ),
        ),
        migrations.RunSQL(_FILL_THRESHOLDS_USD, migrations.RunSQL.noop),
        migrations.RemoveConstraint(model_name="limitcrossing", name="crossing_once_a_period"),
        migrations.RunSQL(migrations.RunSQL.noop, _DELETE_DOUBLED),
        migrations.AddConstraint(
            model_name="limitcrossing",
            constraint=models.UniqueConstraint(
                condition=models.Q(("threshold_usd", None)),
                fields=("limit", "period_start", "scope_value", "threshold", "amount"),
                name="crossing_once_a_period",
            ),
        ),
        migrations.AddConstraint(
            model_name="limitcrossing",
            constraint=models.UniqueConstraint(
                condition=models.Q(("threshold_usd__isnull", False)),
                fields=("limit", "period_start", "scope_value", "threshold_usd"),
                name="crossing_of_usd_once_a_period",
            ),
        ),
    ]
