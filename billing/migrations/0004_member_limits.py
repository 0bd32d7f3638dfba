"""Tell workspaces how many people their plan includes; from here on it is pushed with the plan."""

from django.db import migrations
from django.db.models import OuterRef, Subquery
from django.db.models.functions import Coalesce


def push_member_limits(apps, schema_editor):
    alias = schema_editor.connection.alias
    workspaces = apps.get_model("workspaces", "Workspace").objects.using(alias)
    subscriptions = apps.get_model("billing", "WorkspacePlan").objects.using(alias).filter(workspace=OuterRef("pk"))
    number = subscriptions.annotate(people=Coalesce("members_override", "plan__members")).values("people")[:1]
    workspaces.update(member_limit=Subquery(number))


class Migration(migrations.Migration):
    dependencies = [("billing", "0003_plans"), ("workspaces", "0002_invitations")]

    operations = [migrations.RunPython(push_member_limits, migrations.RunPython.noop)]
