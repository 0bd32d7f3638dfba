"""Exports as jobs, and wishes to delete test and demo rows. Chunks are packed already: the database need not try."""

import django.db.models.deletion
import opsmeter_site.lib.clock
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('ingest', '0004_price_overrides'),
        ('workspaces', '0001_initial'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='ExportJob',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('created_at', models.DateTimeField(default=opsmeter_site.lib.clock.utc_now, editable=False)),
                ('what', models.CharField(choices=[('requests', 'Requests'), ('quarter_hours', 'Sums by quarter hour'), ('days', 'Sums by day')], max_length=20)),
                ('format', models.CharField(choices=[('csv', 'CSV'), ('jsonl', 'JSON Lines')], max_length=10)),
                ('zone', models.CharField(help_text='IANA name of the zone of its local times.', max_length=64)),
                ('start', models.DateTimeField(help_text='UTC; empty: from the beginning.', null=True)),
                ('end', models.DateTimeField(help_text='UTC, not included; empty: to the end.', null=True)),
                ('where', models.JSONField(default=dict, help_text='Column and wanted value, as text.')),
                ('words', models.JSONField(default=list, help_text='The filters as people read them: pairs of name and value.')),
                ('last_id', models.BigIntegerField(help_text='The last row that was stored when it was asked for.', null=True)),
                ('state', models.CharField(choices=[('waiting', 'Waiting'), ('running', 'Under way'), ('done', 'Ready'), ('failed', 'Failed'), ('cancelled', 'Cancelled')], default='waiting', max_length=10)),
                ('expected_rows', models.BigIntegerField(help_text='An estimate, for the progress.')),
                ('rows', models.BigIntegerField(default=0)),
                ('chunks', models.PositiveIntegerField(default=0)),
                ('stored_bytes', models.BigIntegerField(default=0, help_text='Of all chunks, as stored.')),
                ('position', models.CharField(blank=True, help_text='Where reading goes on.', max_length=100)),
                ('is_truncated', models.BooleanField(default=False, help_text='There were more rows than an export may have.')),
                ('worked_at', models.DateTimeField(editable=False, help_text='When the last chunk was begun.', null=True)),
                ('finished_at', models.DateTimeField(editable=False, null=True)),
                ('error', models.CharField(blank=True, max_length=200)),
                ('created_by', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='exports', to=settings.AUTH_USER_MODEL)),
                ('workspace', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='exports', to='workspaces.workspace')),
            ],
        ),
        migrations.CreateModel(
            name='ExportChunk',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('number', models.PositiveIntegerField()),
                ('data', models.BinaryField()),
                ('job', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='pieces', to='ingest.exportjob')),
            ],
        ),
        migrations.CreateModel(
            name='RowDeletion',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('data_mode', models.CharField(choices=[('real', 'Real'), ('test', 'Test'), ('demo', 'Demo')], max_length=10)),
                ('only_own', models.BooleanField(help_text="Only rows that were sent with the person's own API keys.")),
                ('asked_at', models.DateTimeField(default=opsmeter_site.lib.clock.utc_now, editable=False)),
                ('worked_at', models.DateTimeField(editable=False, help_text='When somebody last began to work on it.', null=True)),
                ('finished_at', models.DateTimeField(editable=False, null=True)),
                ('deleted', models.BigIntegerField(editable=False, help_text='Rows, once it is finished.', null=True)),
                ('asked_by', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='row_deletions', to=settings.AUTH_USER_MODEL)),
                ('workspace', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='row_deletions', to='workspaces.workspace')),
            ],
        ),
        migrations.AddIndex(
            model_name='exportjob',
            index=models.Index(fields=['workspace', '-created_at'], name='export_newest_first'),
        ),
        migrations.AddIndex(
            model_name='exportjob',
            index=models.Index(condition=models.Q(('state__in', ['waiting', 'running'])), fields=['worked_at'], name='export_unfinished'),
        ),
        migrations.AddConstraint(
            model_name='exportjob',
            constraint=models.CheckConstraint(condition=models.Q(('what__in', ['requests', 'quarter_hours', 'days'])), name='export_what_known'),
        ),
        migrations.AddConstraint(
            model_name='exportjob',
            constraint=models.CheckConstraint(condition=models.Q(('format__in', ['csv', 'jsonl'])), name='export_format_known'),
        ),
        migrations.AddConstraint(
            model_name='exportjob',
            constraint=models.CheckConstraint(condition=models.Q(('state__in', ['waiting', 'running', 'done', 'failed', 'cancelled'])), name='export_state_known'),
        ),
        migrations.AddConstraint(
            model_name='exportchunk',
            constraint=models.UniqueConstraint(fields=('job', 'number'), name='export_chunk_unique'),
        ),
        migrations.AddIndex(
            model_name='rowdeletion',
            index=models.Index(fields=['workspace', '-asked_at'], name='deletion_newest_first'),
        ),
        migrations.AddIndex(
            model_name='rowdeletion',
            index=models.Index(condition=models.Q(('finished_at', None)), fields=['worked_at'], name='deletion_unfinished'),
        ),
        migrations.AddConstraint(
            model_name='rowdeletion',
            constraint=models.CheckConstraint(condition=models.Q(('data_mode__in', ['demo', 'test'])), name='deletion_never_of_real_rows'),
        ),
        migrations.RunSQL(
            "ALTER TABLE ingest_exportchunk ALTER COLUMN data SET STORAGE EXTERNAL",
            "ALTER TABLE ingest_exportchunk ALTER COLUMN data SET STORAGE EXTENDED",
        ),
    ]
