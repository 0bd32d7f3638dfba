"""Budgets with a name, and on one scope."""

import budgets.models
import django.contrib.postgres.fields
import opsmeter_site.lib.clock
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('budgets', '0002_initial'),
        ('workspaces', '0003_verified_addresses'),
    ]

    operations = [
        migrations.RemoveConstraint(
            model_name='budget',
            name='budget_one_a_period',
        ),
        migrations.AddField(
            model_name='budget',
            name='enforcement',
            field=models.CharField(choices=[('soft', 'Soft stop: say so, keep taking telemetry'), ('hard', 'Hard stop: refuse telemetry (402); provider calls continue')], default='soft', max_length=4),
        ),
        migrations.AddField(
            model_name='budget',
            name='estimate_usd_per_1m',
            field=models.DecimalField(blank=True, decimal_places=6, help_text='USD per 1M tokens; only to estimate.', max_digits=18, null=True),
        ),
        migrations.AddField(
            model_name='budget',
            name='is_each_value',
            field=models.BooleanField(default=False),
        ),
        migrations.AddField(
            model_name='budget',
            name='name',
            field=models.CharField(default='Budget', help_text='What refusals and alerts call it.', max_length=100),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name='budget',
            name='raise_reason',
            field=models.CharField(blank=True, default='', max_length=200),
        ),
        migrations.AddField(
            model_name='budget',
            name='raised_limit_usd',
            field=models.DecimalField(blank=True, decimal_places=12, help_text='USD; holds before `raised_until`.', max_digits=20, null=True),
        ),
        migrations.AddField(
            model_name='budget',
            name='raised_until',
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name='budget',
            name='scope_kind',
            field=models.CharField(blank=True, choices=[('endpoint_tag', 'Endpoint'), ('tenant_id', 'Tenant'), ('user_id', 'User'), ('model', 'Model'), ('provider', 'Provider'), ('prompt_version', 'Prompt version'), ('environment', 'Environment'), ('api_key_id', 'API key')], default='', max_length=20),
        ),
        migrations.AddField(
            model_name='budget',
            name='scope_value',
            field=models.CharField(blank=True, default='', help_text='Empty for each value.', max_length=200),
        ),
        migrations.AddField(
            model_name='budget',
            name='thresholds',
            field=django.contrib.postgres.fields.ArrayField(base_field=models.DecimalField(decimal_places=4, max_digits=5), blank=True, default=budgets.models.default_thresholds, help_text='Shares of the limit below 1, ascending. Going over the limit is always told.', size=None),
        ),
        migrations.AddField(
            model_name='budget',
            name='thresholds_usd',
            field=django.contrib.postgres.fields.ArrayField(base_field=models.DecimalField(decimal_places=12, max_digits=20), blank=True, default=list, help_text='USD, ascending.', size=None),
        ),
        migrations.AddField(
            model_name='budget',
            name='unpriced',
            field=models.CharField(choices=[('ignore', 'Count them as nothing'), ('estimate', 'Count them at an assumed price per token'), ('block', 'Refuse them (hard stop only)')], default='ignore', max_length=10),
        ),
        migrations.AddField(
            model_name='budget',
            name='updated_at',
            field=models.DateTimeField(default=opsmeter_site.lib.clock.utc_now, editable=False),
        ),
        migrations.RunSQL(
            "UPDATE budgets_budget SET name = CASE period WHEN 'day' THEN 'Daily budget' ELSE 'Monthly budget' END",
            migrations.RunSQL.noop,
        ),
        # Enforcement and warning stood in the settings only; from now on every budget says them itself.
        migrations.RunSQL(
            """
            UPDATE budgets_budget AS budget SET
                enforcement = settings.enforcement,
                thresholds = CASE WHEN settings.warning_threshold_ratio < 1
                    THEN ARRAY[settings.warning_threshold_ratio] ELSE '{}' END
            FROM budgets_budgetsettings AS settings
            WHERE settings.workspace_id = budget.workspace_id
            """,
            migrations.RunSQL.noop,
        ),
        migrations.RunSQL("SET CONSTRAINTS ALL IMMEDIATE", migrations.RunSQL.noop),
        migrations.AddConstraint(
            model_name='budget',
            constraint=models.UniqueConstraint(condition=models.Q(('scope_kind', '')), fields=('workspace', 'period'), name='budget_one_a_period'),
        ),
        migrations.AddConstraint(
            model_name='budget',
            constraint=models.UniqueConstraint(fields=('workspace', 'name'), name='budget_name_unique'),
        ),
        migrations.AddConstraint(
            model_name='budget',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('raised_limit_usd', None), ('raised_until', None)), models.Q(('raised_limit_usd__isnull', False), ('raised_until__isnull', False)), _connector='OR'), name='budget_raise_whole'),
        ),
    ]
