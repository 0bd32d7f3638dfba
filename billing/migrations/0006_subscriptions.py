"""Subscriptions, what people asked for, and the inbox of the provider's messages; what operators gave is kept apart."""

import django.db.models.deletion
import opsmeter_site.lib.clock
import uuid
from django.conf import settings
from django.db import migrations, models
from django.db.models import F


def grant_what_is(apps, schema_editor):
    plans = apps.get_model("billing", "WorkspacePlan").objects.using(schema_editor.connection.alias)
    plans.update(granted=F("plan"))


class Migration(migrations.Migration):

    dependencies = [
        ('billing', '0005_price_overrides'),
        ('workspaces', '0003_verified_addresses'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='BillingEvent',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('source', models.CharField(choices=[('webhook', 'Webhook'), ('reconcile', 'Found by asking')], default='webhook', max_length=10)),
                ('provider', models.CharField(max_length=20)),
                ('dedupe_key', models.CharField(help_text="The provider's id of the message, or the SHA-256 of its body.", max_length=80, unique=True)),
                ('name', models.CharField(max_length=100, verbose_name='event')),
                ('resource_type', models.CharField(blank=True, max_length=50)),
                ('resource_id', models.CharField(blank=True, max_length=64)),
                ('provider_subscription_id', models.CharField(blank=True, max_length=64, verbose_name="provider's subscription")),
                ('sealed_body', models.TextField(editable=False, help_text="As it came, encrypted: it holds links that open somebody's billing.")),
                ('received_at', models.DateTimeField(default=opsmeter_site.lib.clock.utc_now, editable=False)),
                ('repeats', models.PositiveIntegerField(default=0, help_text='How often the same message came again.')),
                ('state', models.CharField(choices=[('waiting', 'Waiting'), ('done', 'Done'), ('parked', 'Needs an operator'), ('failed', 'Failed for good')], default='waiting', max_length=10)),
                ('outcome', models.CharField(blank=True, choices=[('applied', 'Applied'), ('unchanged', 'Known already'), ('stale', 'Older than what is known'), ('ignored', 'Nothing to do for it'), ('unmatched', 'No workspace is known for it'), ('wrong_mode', 'Test event on a live installation, or the reverse'), ('wrong_store', "Another store's"), ('unknown_variant', 'Variant without a plan'), ('unknown_status', 'Status that is not known'), ('not_found', 'The provider does not know it'), ('unreadable', 'Not what the provider documents'), ('error', 'Something went wrong on our side')], max_length=20)),
                ('error', models.CharField(blank=True, max_length=500)),
                ('attempts_made', models.PositiveIntegerField(default=0)),
                ('next_attempt_at', models.DateTimeField(default=opsmeter_site.lib.clock.utc_now)),
                ('processed_at', models.DateTimeField(null=True)),
            ],
        ),
        migrations.CreateModel(
            name='ChangeRequest',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('kind', models.CharField(choices=[('change_plan', 'Change of plan'), ('cancel', 'Cancellation'), ('resume', 'Resumption')], max_length=12)),
                ('interval', models.CharField(blank=True, choices=[('month', 'Monthly'), ('year', 'Yearly')], max_length=5)),
                ('variant_id', models.CharField(blank=True, max_length=64, verbose_name='variant')),
                ('requested_at', models.DateTimeField(default=opsmeter_site.lib.clock.utc_now, editable=False)),
                ('state', models.CharField(choices=[('pending', "Waiting for the provider's word"), ('confirmed', 'Confirmed by the provider'), ('refused', 'Refused by the provider'), ('lapsed', 'Never confirmed')], default='pending', max_length=10)),
                ('is_unsure', models.BooleanField(default=False, help_text='The provider did not answer: it may or may not act.')),
                ('resolved_at', models.DateTimeField(null=True)),
                ('note', models.CharField(blank=True, help_text='Why it was refused, in words for people.', max_length=300)),
            ],
        ),
        migrations.CreateModel(
            name='Checkout',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('provider', models.CharField(max_length=20)),
                ('interval', models.CharField(choices=[('month', 'Monthly'), ('year', 'Yearly')], max_length=5)),
                ('variant_id', models.CharField(max_length=64, verbose_name='variant')),
                ('buyer_email', models.EmailField(help_text='Filled in at the provider; the buyer may change it there.', max_length=254)),
                ('created_at', models.DateTimeField(default=opsmeter_site.lib.clock.utc_now, editable=False)),
                ('returned_at', models.DateTimeField(help_text='When the buyer came back, which proves nothing.', null=True)),
            ],
        ),
        migrations.CreateModel(
            name='Invoice',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('provider', models.CharField(max_length=20)),
                ('provider_invoice_id', models.CharField(max_length=64, verbose_name="provider's id")),
                ('reason', models.CharField(blank=True, help_text='Initial, renewal or updated.', max_length=20)),
                ('status', models.CharField(blank=True, help_text='Pending, paid, void, refunded, …', max_length=20)),
                ('is_refunded', models.BooleanField(default=False)),
                ('total_text', models.CharField(blank=True, max_length=60, verbose_name='total')),
                ('refunded_text', models.CharField(blank=True, max_length=60, verbose_name='refunded')),
                ('currency', models.CharField(blank=True, max_length=3)),
                ('card_brand', models.CharField(blank=True, max_length=30)),
                ('card_last_four', models.CharField(blank=True, max_length=4)),
                ('invoiced_at', models.DateTimeField()),
                ('provider_updated_at', models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name='PlanVariant',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('provider', models.CharField(default='lemonsqueezy', max_length=20)),
                ('variant_id', models.CharField(help_text="The provider's id of it: digits, from its dashboard.", max_length=64, verbose_name='variant')),
                ('interval', models.CharField(choices=[('month', 'Monthly'), ('year', 'Yearly')], default='month', max_length=5)),
                ('is_offered', models.BooleanField(default=True, help_text='Whether people can choose it now.', verbose_name='offered')),
                ('price_text', models.CharField(blank=True, help_text='Shown beside the plan, such as "$49 a month plus tax". What is charged is the provider\'s alone.', max_length=60, verbose_name='price as shown')),
            ],
            options={
                'ordering': ('plan__rank', 'interval'),
            },
        ),
        migrations.CreateModel(
            name='Subscription',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('provider', models.CharField(max_length=20)),
                ('provider_subscription_id', models.CharField(max_length=64, verbose_name="provider's id")),
                ('provider_customer_id', models.CharField(blank=True, max_length=64, verbose_name="provider's customer")),
                ('variant_id', models.CharField(blank=True, max_length=64, verbose_name='variant')),
                ('interval', models.CharField(blank=True, choices=[('month', 'Monthly'), ('year', 'Yearly')], max_length=5)),
                ('status', models.CharField(blank=True, choices=[('on_trial', 'On trial'), ('active', 'Active'), ('paused', 'Paused'), ('past_due', 'Payment past due'), ('unpaid', 'Unpaid'), ('cancelled', 'Cancelled'), ('expired', 'Expired')], help_text='Empty: not heard of yet.', max_length=20)),
                ('pause_mode', models.CharField(blank=True, help_text='Of a paused one: "free" keeps the plan.', max_length=10)),
                ('renews_at', models.DateTimeField(help_text='Past due: the next attempt at the payment.', null=True)),
                ('ends_at', models.DateTimeField(null=True)),
                ('trial_ends_at', models.DateTimeField(null=True)),
                ('card_brand', models.CharField(blank=True, max_length=30)),
                ('card_last_four', models.CharField(blank=True, max_length=4)),
                ('is_test', models.BooleanField(default=False, verbose_name='test mode')),
                ('started_at', models.DateTimeField(help_text='When the provider made it.', null=True)),
                ('provider_updated_at', models.DateTimeField(help_text="The provider's own time of its last change.", null=True)),
                ('checked_at', models.DateTimeField(help_text='When the provider was asked last and answered.', null=True)),
                ('heard_at', models.DateTimeField(help_text='When the last event of it came.', null=True)),
                ('next_check_at', models.DateTimeField(default=opsmeter_site.lib.clock.utc_now, help_text='When to ask; empty: it is final.', null=True)),
                ('lapsed_at', models.DateTimeField(help_text='When its end passed by our clock and its plan was taken.', null=True)),
                ('created_at', models.DateTimeField(default=opsmeter_site.lib.clock.utc_now, editable=False)),
            ],
        ),
        migrations.AddField(
            model_name='workspaceplan',
            name='announced_raw_days',
            field=models.PositiveIntegerField(editable=False, null=True),
        ),
        migrations.AddField(
            model_name='workspaceplan',
            name='announced_rollup_days',
            field=models.PositiveIntegerField(editable=False, null=True),
        ),
        migrations.AddField(
            model_name='workspaceplan',
            name='granted',
            field=models.ForeignKey(null=True, help_text='What the workspace has without a subscription. A subscription can only add to it.', on_delete=django.db.models.deletion.PROTECT, related_name='grants', to='billing.plan'),
        ),
        migrations.RunPython(grant_what_is, migrations.RunPython.noop),
        # Otherwise PostgreSQL would not alter the table while checks of the new column are still to be made.
        migrations.RunSQL("SET CONSTRAINTS ALL IMMEDIATE", migrations.RunSQL.noop),
        migrations.AlterField(
            model_name='workspaceplan',
            name='granted',
            field=models.ForeignKey(help_text='What the workspace has without a subscription. A subscription can only add to it.', on_delete=django.db.models.deletion.PROTECT, related_name='grants', to='billing.plan'),
        ),
        migrations.AddField(
            model_name='workspaceplan',
            name='kept_raw_days',
            field=models.PositiveIntegerField(editable=False, null=True),
        ),
        migrations.AddField(
            model_name='workspaceplan',
            name='kept_rollup_days',
            field=models.PositiveIntegerField(editable=False, null=True),
        ),
        migrations.AddField(
            model_name='workspaceplan',
            name='kept_until',
            field=models.DateTimeField(editable=False, null=True),
        ),
        migrations.AddField(
            model_name='workspaceplan',
            name='notice_mailed_at',
            field=models.DateTimeField(editable=False, help_text='When owners and admins were told by mail that less will be kept.', null=True),
        ),
        migrations.AlterField(
            model_name='workspaceplan',
            name='plan',
            field=models.ForeignKey(help_text='What applies; see `granted`.', on_delete=django.db.models.deletion.PROTECT, related_name='workspaces', to='billing.plan'),
        ),
        migrations.AddConstraint(
            model_name='workspaceplan',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('announced_raw_days', None), ('announced_rollup_days', None), ('kept_raw_days', None), ('kept_rollup_days', None), ('kept_until', None)), models.Q(('announced_raw_days__isnull', False), ('announced_rollup_days__isnull', False), ('kept_raw_days__isnull', False), ('kept_rollup_days__isnull', False), ('kept_until__isnull', False)), _connector='OR'), name='workspace_plan_kept_whole'),
        ),
        migrations.AddField(
            model_name='changerequest',
            name='plan',
            field=models.ForeignKey(help_text='Of a change of plan: the wanted one.', null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='billing.plan'),
        ),
        migrations.AddField(
            model_name='changerequest',
            name='requested_by',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='checkout',
            name='plan',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='billing.plan'),
        ),
        migrations.AddField(
            model_name='checkout',
            name='requested_by',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='checkout',
            name='workspace',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='checkouts', to='workspaces.workspace'),
        ),
        migrations.AddField(
            model_name='planvariant',
            name='plan',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='variants', to='billing.plan'),
        ),
        migrations.AddField(
            model_name='subscription',
            name='plan',
            field=models.ForeignKey(help_text='Of the last variant that was known.', null=True, on_delete=django.db.models.deletion.PROTECT, related_name='subscriptions', to='billing.plan'),
        ),
        migrations.AddField(
            model_name='subscription',
            name='workspace',
            field=models.ForeignKey(help_text='Empty: nobody knows yet whom it is for.', null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='subscriptions', to='workspaces.workspace'),
        ),
        migrations.AddField(
            model_name='invoice',
            name='subscription',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='invoices', to='billing.subscription'),
        ),
        migrations.AddField(
            model_name='checkout',
            name='subscription',
            field=models.ForeignKey(help_text='What came of it.', null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='checkouts', to='billing.subscription'),
        ),
        migrations.AddField(
            model_name='changerequest',
            name='subscription',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='changes', to='billing.subscription'),
        ),
        migrations.AddField(
            model_name='billingevent',
            name='subscription',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='events', to='billing.subscription'),
        ),
        migrations.AddConstraint(
            model_name='planvariant',
            constraint=models.UniqueConstraint(fields=('provider', 'variant_id'), name='plan_variant_unique'),
        ),
        migrations.AddConstraint(
            model_name='planvariant',
            constraint=models.UniqueConstraint(condition=models.Q(('is_offered', True)), fields=('provider', 'plan', 'interval'), name='plan_variant_offered_once'),
        ),
        migrations.AddIndex(
            model_name='subscription',
            index=models.Index(condition=models.Q(('next_check_at__isnull', False)), fields=['next_check_at'], name='subscription_due'),
        ),
        migrations.AddIndex(
            model_name='subscription',
            index=models.Index(condition=models.Q(('status', 'cancelled')), fields=['ends_at'], name='subscription_ending'),
        ),
        migrations.AddIndex(
            model_name='subscription',
            index=models.Index(fields=['provider', 'provider_customer_id'], name='subscription_customer'),
        ),
        migrations.AddConstraint(
            model_name='subscription',
            constraint=models.UniqueConstraint(fields=('provider', 'provider_subscription_id'), name='subscription_unique'),
        ),
        migrations.AddIndex(
            model_name='invoice',
            index=models.Index(fields=['subscription', '-invoiced_at'], name='invoice_newest_first'),
        ),
        migrations.AddConstraint(
            model_name='invoice',
            constraint=models.UniqueConstraint(fields=('provider', 'provider_invoice_id'), name='invoice_unique'),
        ),
        migrations.AddIndex(
            model_name='checkout',
            index=models.Index(fields=['workspace', '-created_at'], name='checkout_newest_first'),
        ),
        migrations.AddIndex(
            model_name='changerequest',
            index=models.Index(fields=['subscription', '-requested_at'], name='change_newest_first'),
        ),
        migrations.AddConstraint(
            model_name='changerequest',
            constraint=models.UniqueConstraint(condition=models.Q(('state', 'pending')), fields=('subscription',), name='change_one_pending'),
        ),
        migrations.AddIndex(
            model_name='billingevent',
            index=models.Index(condition=models.Q(('state', 'waiting')), fields=['next_attempt_at'], name='billing_event_due'),
        ),
        migrations.AddIndex(
            model_name='billingevent',
            index=models.Index(fields=['-received_at'], name='billing_event_newest_first'),
        ),
        migrations.AddIndex(
            model_name='billingevent',
            index=models.Index(condition=models.Q(('state__in', ['parked', 'failed'])), fields=['state'], name='billing_event_trouble'),
        ),
    ]
