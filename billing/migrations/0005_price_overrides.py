"""Tell ingest whose plan includes prices of their own; from here on it is pushed with the plan."""

from django.db import migrations


def push_price_overrides(apps, schema_editor):
    alias = schema_editor.connection.alias
    subscriptions = apps.get_model("billing", "WorkspacePlan").objects.using(alias)
    including = subscriptions.filter(plan__has_price_overrides=True).values("workspace")
    policies = apps.get_model("ingest", "WorkspacePolicy").objects.using(alias)
    policies.filter(workspace__in=including).update(has_price_overrides=True)


class Migration(migrations.Migration):
    dependencies = [("billing", "0004_member_limits"), ("ingest", "0004_price_overrides")]

    operations = [migrations.RunPython(push_price_overrides, migrations.RunPython.noop)]
