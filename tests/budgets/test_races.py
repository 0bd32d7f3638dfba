"""Promises that hold when two people change budgets at the same moment, on a real PostgreSQL."""

from decimal import Decimal

import pytest

from budgets.models import Budget
from budgets.selectors import BudgetValues, budget_values
from budgets.services import update_budget_settings
from ingest.models import Limit
from tests.factories import make_workspace
from tests.races import at_once
from workspaces.models import AuditEntry

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("_redis_used")]


def test_changes_of_different_fields_at_once_are_all_kept():
    opened = make_workspace()

    def change(**changes):
        return lambda: update_budget_settings(opened.workspace, acting_user=opened.owner, **changes)

    at_once(
        change(daily_limit_usd=Decimal(50)),
        change(monthly_limit_usd=Decimal(500)),
        change(warning_threshold_ratio=Decimal("0.5")),
        change(enforcement="hard"),
        change(observe_mode=True),
        change(counted_data_modes=["real", "test"]),
    )
    assert budget_values(opened.workspace.pk) == BudgetValues(
        daily_limit_usd=Decimal(50),
        monthly_limit_usd=Decimal(500),
        warning_threshold_ratio=Decimal("0.5"),
        enforcement="hard",
        observe_mode=True,
        counted_data_modes=("real", "test"),
    )
    limits = Limit.objects.filter(workspace=opened.workspace, source="budgets")
    assert {limit.period: limit.amount for limit in limits} == {"day": 50, "month": 500}
    assert all(limit.enforce and limit.thresholds == [Decimal("0.5"), 1] for limit in limits)
    assert AuditEntry.objects.filter(action="budgets.changed").count() == 6


def test_the_first_budget_set_twice_at_once_is_one_budget():
    opened = make_workspace()

    def change():
        return update_budget_settings(opened.workspace, acting_user=opened.owner, daily_limit_usd=Decimal(50))

    at_once(change, change, change)
    assert Budget.objects.filter(workspace=opened.workspace).count() == 1
    assert Limit.objects.filter(workspace=opened.workspace, source="budgets").count() == 1
    assert AuditEntry.objects.filter(action="budgets.changed").count() == 1
