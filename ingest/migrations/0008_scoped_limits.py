"""Limits and meters on one scope, leases and holds, re-pricing.

As in 0003, what is found by what it sums has that as its primary key; see there.
"""

import django.contrib.postgres.fields
import django.db.models.deletion
import opsmeter_site.lib.clock
from django.conf import settings
from django.db import migrations, models


_NATURAL_KEYS = {
    "ingest_meter": ("meter_unique", "workspace_id, period_start, scope_kind, scope_value, period, measure"),
    "ingest_hold": ("hold_unique", "workspace_id, scope_kind, scope_value, expires_at"),
    "ingest_lease": ("lease_unique", "workspace_id, external_request_id"),
}

# Meters of the whole workspace have to know the tokens of their unpriced events from now on.
_FILL_UNPRICED_TOKENS = """
WITH unpriced AS (
    SELECT rollup.workspace_id, date_trunc('day', bucket_start, 'UTC') AS day,
        sum(uncached_input_tokens + cache_read_tokens + cache_write_tokens + output_tokens) AS tokens
    FROM ingest_rollup AS rollup JOIN ingest_workspacepolicy AS policy USING (workspace_id)
    WHERE NOT is_priced AND data_mode = ANY(policy.counted_data_modes)
    GROUP BY 1, 2
), periods AS (
    SELECT workspace_id, 'day' AS period, day AS period_start, tokens FROM unpriced
    UNION ALL
    SELECT workspace_id, 'month', date_trunc('month', day, 'UTC'), sum(tokens) FROM unpriced GROUP BY 1, 3
)
UPDATE ingest_meter AS meter SET unpriced_tokens = periods.tokens
FROM periods
WHERE meter.workspace_id = periods.workspace_id AND meter.measure = 'usd' AND meter.period = periods.period
    AND meter.period_start = periods.period_start
"""


class Migration(migrations.Migration):

    dependencies = [
        ('ingest', '0007_crossing_claims'),
        ('workspaces', '0003_verified_addresses'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='Hold',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('scope_kind', models.CharField(blank=True, choices=[('endpoint_tag', 'Endpoint'), ('tenant_id', 'Tenant'), ('user_id', 'User'), ('model', 'Model'), ('provider', 'Provider'), ('prompt_version', 'Prompt version'), ('environment', 'Environment'), ('api_key_id', 'API key')], max_length=20)),
                ('scope_value', models.CharField(blank=True, max_length=200)),
                ('expires_at', models.DateTimeField()),
                ('usd', models.DecimalField(decimal_places=12, max_digits=24)),
                ('unpriced_tokens', models.BigIntegerField()),
            ],
        ),
        migrations.CreateModel(
            name='Lease',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('external_request_id', models.CharField(max_length=200)),
                ('api_key_id', models.BigIntegerField(help_text='The workspaces.ApiKey that asked for it.')),
                ('provider', models.CharField(max_length=100)),
                ('model', models.CharField(max_length=200)),
                ('endpoint_tag', models.CharField(max_length=200)),
                ('prompt_version', models.CharField(max_length=200)),
                ('environment', models.CharField(choices=[('prod', 'Production'), ('staging', 'Staging'), ('dev', 'Development')], max_length=10)),
                ('data_mode', models.CharField(choices=[('real', 'Real'), ('test', 'Test'), ('demo', 'Demo')], max_length=10)),
                ('user_id', models.CharField(max_length=200)),
                ('tenant_id', models.CharField(max_length=200)),
                ('usd', models.DecimalField(decimal_places=12, help_text='The estimate; 0 if there is no price.', max_digits=20)),
                ('unpriced_tokens', models.BigIntegerField(help_text='The estimate, if there is no price.')),
                ('created_at', models.DateTimeField(default=opsmeter_site.lib.clock.utc_now)),
                ('expires_at', models.DateTimeField(help_text='A whole second.')),
                ('closed_at', models.DateTimeField(null=True)),
                ('outcome', models.CharField(blank=True, choices=[('settled', 'Settled: its event was stored'), ('released', 'Released: the call was not made')], default='', max_length=10)),
                ('settled_usd', models.DecimalField(decimal_places=12, help_text='What the event cost; null: unpriced, or not settled.', max_digits=20, null=True)),
            ],
        ),
        migrations.CreateModel(
            name='LimitAdjustment',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('period_start', models.DateTimeField()),
                ('scope_value', models.CharField(blank=True, default='', help_text='Of a limit on each value.', max_length=200)),
                ('usd', models.DecimalField(decimal_places=12, max_digits=24)),
                ('reason', models.CharField(max_length=200)),
                ('created_at', models.DateTimeField(default=opsmeter_site.lib.clock.utc_now, editable=False)),
            ],
        ),
        migrations.CreateModel(
            name='MeteredScope',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('kind', models.CharField(choices=[('endpoint_tag', 'Endpoint'), ('tenant_id', 'Tenant'), ('user_id', 'User'), ('model', 'Model'), ('provider', 'Provider'), ('prompt_version', 'Prompt version'), ('environment', 'Environment'), ('api_key_id', 'API key')], max_length=20)),
                ('value', models.CharField(blank=True, max_length=200)),
                ('is_each_value', models.BooleanField()),
                ('counts_from', models.DateTimeField(help_text='Empty: nothing is missing.', null=True)),
            ],
        ),
        migrations.CreateModel(
            name='Repricing',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('created_at', models.DateTimeField(default=opsmeter_site.lib.clock.utc_now, editable=False)),
                ('reason', models.CharField(max_length=200)),
                ('provider', models.CharField(blank=True, help_text='As sent; empty: all.', max_length=100)),
                ('models_sent', django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=200), default=list, help_text='As sent; empty: all.', size=None)),
                ('start', models.DateTimeField()),
                ('end', models.DateTimeField()),
                ('only_unpriced', models.BooleanField(default=False)),
                ('state', models.CharField(choices=[('previewing', 'Working out what would change'), ('previewed', 'Waiting for your confirmation'), ('running', 'Re-pricing'), ('done', 'Done'), ('cancelled', 'Cancelled'), ('failed', 'Failed')], default='previewing', max_length=10)),
                ('catalogue_version', models.BigIntegerField(help_text='The prices that the preview was made with.')),
                ('cursor', models.BigIntegerField(default=0)),
                ('last_id', models.BigIntegerField()),
                ('expected_rows', models.BigIntegerField(default=0, help_text='About how many events each pass has to look at.')),
                ('looked_at_rows', models.BigIntegerField(default=0)),
                ('changed_rows', models.BigIntegerField(default=0)),
                ('limits_affected', models.JSONField(default=list, help_text='What the preview found about limits of running periods.')),
                ('worked_at', models.DateTimeField(null=True)),
                ('finished_at', models.DateTimeField(null=True)),
                ('error', models.CharField(blank=True, default='', max_length=200)),
            ],
        ),
        migrations.CreateModel(
            name='RepricingDay',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('day', models.DateTimeField()),
                ('is_preview', models.BooleanField()),
                ('rows', models.BigIntegerField(default=0, help_text='Events whose cost changes.')),
                ('newly_priced', models.BigIntegerField(default=0, help_text='Of these, events that had no price.')),
                ('before_usd', models.DecimalField(decimal_places=12, default=0, max_digits=24)),
                ('after_usd', models.DecimalField(decimal_places=12, default=0, max_digits=24)),
            ],
        ),
        migrations.RemoveConstraint(
            model_name='limitcrossing',
            name='crossing_once_a_period',
        ),
        migrations.RemoveConstraint(
            model_name='meter',
            name='meter_unique',
        ),
        migrations.AddField(
            model_name='event',
            name='charged_cost_usd',
            field=models.DecimalField(decimal_places=12, help_text='USD before the first re-pricing; see `repricing_id`.', max_digits=20, null=True),
        ),
        migrations.AddField(
            model_name='event',
            name='charged_price_id',
            field=models.BigIntegerField(help_text='The ModelPrice before the first re-pricing.', null=True),
        ),
        migrations.AddField(
            model_name='event',
            name='repricing_id',
            field=models.BigIntegerField(help_text='The last Repricing that changed it; null: as charged.', null=True),
        ),
        migrations.AddField(
            model_name='limit',
            name='estimate_usd_per_1m',
            field=models.DecimalField(decimal_places=6, default=0, help_text='USD per 1M tokens of unpriced events; 0 ignores them.', max_digits=18),
        ),
        migrations.AddField(
            model_name='limit',
            name='is_each_value',
            field=models.BooleanField(default=False),
        ),
        migrations.AddField(
            model_name='limit',
            name='raised_amount',
            field=models.DecimalField(decimal_places=12, help_text='Holds instead of the amount before `raised_until`.', max_digits=24, null=True),
        ),
        migrations.AddField(
            model_name='limit',
            name='raised_until',
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name='limit',
            name='scope_kind',
            field=models.CharField(blank=True, choices=[('endpoint_tag', 'Endpoint'), ('tenant_id', 'Tenant'), ('user_id', 'User'), ('model', 'Model'), ('provider', 'Provider'), ('prompt_version', 'Prompt version'), ('environment', 'Environment'), ('api_key_id', 'API key')], default='', max_length=20),
        ),
        migrations.AddField(
            model_name='limit',
            name='scope_value',
            field=models.CharField(blank=True, default='', help_text='Empty for each value.', max_length=200),
        ),
        migrations.AddField(
            model_name='limit',
            name='thresholds_usd',
            field=django.contrib.postgres.fields.ArrayField(base_field=models.DecimalField(decimal_places=12, max_digits=24), default=list, help_text='Further thresholds in USD; those that are not below the amount in force say nothing.', size=None),
        ),
        migrations.AddField(
            model_name='limit',
            name='unpriced',
            field=models.CharField(choices=[('ignore', 'Count them as nothing'), ('estimate', 'Count them at an assumed price per token'), ('block', 'Refuse them (hard stop only)')], default='ignore', max_length=10),
        ),
        migrations.AddField(
            model_name='limitcrossing',
            name='scope_value',
            field=models.CharField(blank=True, db_default='', default='', help_text='Whose meter it was, of a limit on each value.', max_length=200),
        ),
        migrations.AddField(
            model_name='meter',
            name='scope_kind',
            field=models.CharField(blank=True, choices=[('endpoint_tag', 'Endpoint'), ('tenant_id', 'Tenant'), ('user_id', 'User'), ('model', 'Model'), ('provider', 'Provider'), ('prompt_version', 'Prompt version'), ('environment', 'Environment'), ('api_key_id', 'API key')], default='', max_length=20),
        ),
        migrations.AddField(
            model_name='meter',
            name='scope_value',
            field=models.CharField(blank=True, default='', max_length=200),
        ),
        migrations.AddField(
            model_name='meter',
            name='unpriced_tokens',
            field=models.BigIntegerField(db_default=0, default=0, help_text='Input and output tokens of the counted events without a price (USD meters).'),
        ),
        migrations.AddField(
            model_name='workspacepolicy',
            name='leases_until',
            field=models.DateTimeField(editable=False, help_text='No lease of the workspace is live from then on.', null=True),
        ),
        migrations.AddField(
            model_name='workspacepolicy',
            name='rewrites',
            field=models.BigIntegerField(db_default=0, default=0, editable=False, help_text='Moves on when stored events are changed or deleted on request.'),
        ),
        migrations.AlterField(
            model_name='limit',
            name='thresholds',
            field=django.contrib.postgres.fields.ArrayField(base_field=models.DecimalField(decimal_places=12, max_digits=13), help_text='Shares of the amount, ascending, at most 1; the first is the warning, 1 means over the limit.', size=None),
        ),
        migrations.AlterField(
            model_name='limitcrossing',
            name='threshold',
            field=models.DecimalField(decimal_places=12, max_digits=13),
        ),
        migrations.AddConstraint(
            model_name='limit',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('raised_amount', None), ('raised_until', None)), models.Q(('raised_amount__isnull', False), ('raised_until__isnull', False)), _connector='OR'), name='limit_raise_whole'),
        ),
        migrations.AddConstraint(
            model_name='limitcrossing',
            constraint=models.UniqueConstraint(fields=('limit', 'period_start', 'scope_value', 'threshold', 'amount'), name='crossing_once_a_period'),
        ),
        migrations.AddConstraint(
            model_name='meter',
            constraint=models.UniqueConstraint(fields=('workspace', 'period_start', 'scope_kind', 'scope_value', 'period', 'measure'), name='meter_unique'),
        ),
        migrations.AddField(
            model_name='hold',
            name='workspace',
            field=models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.CASCADE, to='workspaces.workspace'),
        ),
        migrations.AddField(
            model_name='lease',
            name='workspace',
            field=models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.CASCADE, to='workspaces.workspace'),
        ),
        migrations.AddField(
            model_name='limitadjustment',
            name='created_by',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='limitadjustment',
            name='limit',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='adjustments', to='ingest.limit'),
        ),
        migrations.AddField(
            model_name='meteredscope',
            name='workspace',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='metered_scopes', to='workspaces.workspace'),
        ),
        migrations.AddField(
            model_name='repricing',
            name='created_by',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='repricing',
            name='workspace',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='repricings', to='workspaces.workspace'),
        ),
        migrations.AddField(
            model_name='repricingday',
            name='repricing',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='days', to='ingest.repricing'),
        ),
        migrations.AddConstraint(
            model_name='hold',
            constraint=models.UniqueConstraint(fields=('workspace', 'scope_kind', 'scope_value', 'expires_at'), name='hold_unique'),
        ),
        migrations.AddIndex(
            model_name='lease',
            index=models.Index(fields=['workspace', 'expires_at'], name='lease_by_expiry'),
        ),
        migrations.AddConstraint(
            model_name='lease',
            constraint=models.UniqueConstraint(fields=('workspace', 'external_request_id'), name='lease_unique'),
        ),
        migrations.AddConstraint(
            model_name='meteredscope',
            constraint=models.UniqueConstraint(fields=('workspace', 'kind', 'value', 'is_each_value'), name='metered_scope_unique'),
        ),
        migrations.AddConstraint(
            model_name='repricing',
            constraint=models.UniqueConstraint(condition=models.Q(('state__in', ['previewing', 'previewed', 'running'])), fields=('workspace',), name='repricing_one_unfinished'),
        ),
        migrations.AddConstraint(
            model_name='repricingday',
            constraint=models.UniqueConstraint(fields=('repricing', 'is_preview', 'day'), name='repricing_day_unique'),
        ),
        *(
            migrations.RunSQL(
                f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {table}_pkey, DROP CONSTRAINT {name}, "
                f"ADD CONSTRAINT {name} PRIMARY KEY ({columns})",
                f"ALTER TABLE {table} DROP CONSTRAINT {name}, ADD CONSTRAINT {name} UNIQUE ({columns})",
            )
            for table, (name, columns) in _NATURAL_KEYS.items()
        ),
        *(
            migrations.RunSQL(
                f"ALTER TABLE {table} SET (fillfactor = 50)", f"ALTER TABLE {table} RESET (fillfactor)"
            )
            for table in ("ingest_hold", "ingest_lease")
        ),
        migrations.RunSQL(_FILL_UNPRICED_TOKENS, migrations.RunSQL.noop),
    ]
