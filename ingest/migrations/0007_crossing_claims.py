"""Crossings are claimed by whoever tells people about them. Those of before are history: nobody is told now."""

from django.db import migrations, models
from django.db.models import F


def claim_history(apps, schema_editor):
    apps.get_model("ingest", "LimitCrossing").objects.update(claimed_at=F("crossed_at"))


class Migration(migrations.Migration):

    dependencies = [("ingest", "0006_summaries")]

    operations = [
        migrations.AddField(
            model_name="limitcrossing",
            name="claimed_at",
            field=models.DateTimeField(
                editable=False,
                help_text="When whoever tells people about it took it; null: nobody yet.",
                null=True,
            ),
        ),
        migrations.RunPython(claim_history, migrations.RunPython.noop, elidable=True),
        migrations.AddIndex(
            model_name="limitcrossing",
            index=models.Index(
                condition=models.Q(("claimed_at", None)), fields=["id"], name="crossing_unclaimed"
            ),
        ),
    ]
