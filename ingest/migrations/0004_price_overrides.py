from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('ingest', '0003_storage'),
    ]

    operations = [
        migrations.AddField(
            model_name='workspacepolicy',
            name='has_price_overrides',
            field=models.BooleanField(default=False, help_text="The plan includes prices of the workspace's own."),
        ),
    ]
