"""Budgets on one scope made by the services, for the tests of these."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

from budgets.models import Budget
from budgets.scoped.drafts import BudgetDraft, draft_of
from budgets.scoped.services import change_budget, create_budget
from budgets.services import update_budget_settings
from ingest.models import Limit

ACME = BudgetDraft("tenant_id", Decimal(50), scope_value="acme")
EACH = BudgetDraft("user_id", Decimal(5), is_each_value=True, period="month")
NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)


def create(opened, draft=ACME, **changes):
    return create_budget(opened.workspace, replace(draft, **changes), acting_user=opened.owner)


def change(opened, budget, **changes):
    return change_budget(budget, replace(draft_of(budget), **changes), acting_user=opened.owner)


def limit_of(budget):
    return Limit.objects.get(workspace=budget.workspace_id, source="budgets", source_id=str(budget.pk))


def settings_budget(opened, **changes):
    wanted = {"daily_limit_usd": Decimal(100), "enforcement": "hard", **changes}
    update_budget_settings(opened.workspace, acting_user=opened.owner, **wanted)
    return Budget.objects.get(workspace=opened.workspace, scope_kind="")


def refused_fields(refusal):
    return {error.field for error in refusal.value.errors}
