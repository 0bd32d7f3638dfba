"""Makes the workspace that a first look needs: data, and an owner who may also see the operators' console."""

import json
import secrets
from argparse import ArgumentParser
from decimal import ROUND_UP, Decimal
from typing import Any

from django.core.management.base import BaseCommand
from django.db import transaction

from alerts.models import ReportKind
from alerts.report_runs import make_report_now
from billing.services import open_workspace
from budgets.models import BudgetPeriod, Enforcement
from budgets.scoped.drafts import BudgetDraft
from budgets.scoped.services import create_budget
from budgets.services import update_budget_settings
from ingest.gateway.demo import load_history
from ingest.meters import current_meters
from ingest.models import DataMode, Event, Measure, ScopeKind
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.periods import Period
from workspaces import services
from workspaces.models import Scope, User, Workspace

WORKSPACE_NAME = "Demo"
OWNER_EMAIL = "demo@example.com"
PLAN_TIER = "team"
HISTORY_EVENTS = 1_500
HISTORY_DAYS = 30
# So much of the month's budget is spent at first: past the warning, so that the inbox has something to show.
_SPENT_SHARE = Decimal("0.86")
# By its token ranges a month of demo data costs some 13 USD, a fifth of it each tenant, so the hard stop has room.
SCOPED_BUDGETS = (
    BudgetDraft(
        ScopeKind.TENANT_ID.value,
        Decimal(8),
        scope_value="acme",
        period=BudgetPeriod.MONTH.value,
        enforcement=Enforcement.HARD.value,
    ),
    BudgetDraft(ScopeKind.TENANT_ID.value, Decimal("0.25"), is_each_value=True),
    BudgetDraft(
        ScopeKind.MODEL.value,
        Decimal(10),
        scope_value="claude-sonnet-4-5",
        period=BudgetPeriod.MONTH.value,
        thresholds_usd=(Decimal(4),),
    ),
)
_PASSWORD_BYTES = 12


class Command(BaseCommand):
    help = (
        "Create a demo workspace with a month of believable data, or new credentials for the one there is. "
        "For development: its owner is an operator too."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="Print the credentials as JSON.")

    def handle(self, *args: Any, **options: Any) -> None:
        credentials, api_key_id = _credentials()
        workspace_id = credentials["workspaceId"]
        # An interrupted first run has left a workspace without data.
        if not Event.objects.filter(workspace_id=workspace_id).exists():
            load_history(workspace_id, api_key_id, events=HISTORY_EVENTS, days=HISTORY_DAYS)
            workspace = Workspace.objects.get(pk=workspace_id)
            _set_budget(workspace)
            for draft in SCOPED_BUDGETS:
                create_budget(workspace, draft, acting_user=None)
            owner = User.objects.get(email=OWNER_EMAIL)
            make_report_now(workspace, ReportKind.WEEKLY, owner, queue_mail=True)
        if options["json"]:
            self.stdout.write(json.dumps(credentials, default=str))
            return
        for name, value in credentials.items():
            self.stdout.write(f"{name:14} {value}")


def _set_budget(workspace: Workspace) -> None:
    """A monthly budget that counts the demo data."""
    modes = [DataMode.REAL.value, DataMode.DEMO.value]
    update_budget_settings(workspace, acting_user=None, counted_data_modes=modes)
    spent = current_meters(workspace.pk, utc_now()).get((Measure.USD, Period.MONTH), Decimal(0))
    limit = (spent / _SPENT_SHARE).quantize(Decimal(1), ROUND_UP)
    update_budget_settings(workspace, acting_user=None, monthly_limit_usd=limit or Decimal(1))


@transaction.atomic
def _credentials() -> tuple[dict[str, Any], int]:
    """What signs in to the demo workspace, and the id of its API key. Secrets are stored as digests: these are new."""
    owner = User.objects.filter(email=OWNER_EMAIL).first() or services.create_user(
        email=OWNER_EMAIL, password=secrets.token_urlsafe(_PASSWORD_BYTES), acting_user=None
    )
    password = secrets.token_urlsafe(_PASSWORD_BYTES)
    owner.set_password(password)
    owner.is_staff = owner.is_superuser = True
    owner.save(update_fields=["password", "is_staff", "is_superuser"])
    workspace = Workspace.objects.filter(name=WORKSPACE_NAME, memberships__user=owner).first()
    if workspace is None:
        opened = open_workspace(name=WORKSPACE_NAME, plan_tier=PLAN_TIER, owner_email=OWNER_EMAIL)
        workspace, key, api_key, token = (
            opened.workspace,
            opened.api_key,
            opened.api_key_plain,
            opened.access_token_plain,
        )
    else:
        name = f"Demo {secrets.token_hex(3)}"
        key, api_key = services.create_api_key(workspace, name=name, created_by=owner, acting_user=None)
        _, token = services.create_access_token(
            user=owner, workspace=workspace, name=name, scopes=Scope.values, acting_user=None
        )
    credentials = {
        "email": owner.email,
        "password": password,
        "workspaceId": workspace.id,
        "workspaceSlug": workspace.slug,
        "apiKey": api_key,
        "bearerToken": token,
    }
    return credentials, key.pk
