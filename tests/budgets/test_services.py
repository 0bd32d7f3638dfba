from decimal import Decimal

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from budgets.models import Budget, BudgetSettings
from budgets.selectors import BudgetValues, budget_values
from budgets.services import update_budget_settings
from ingest.models import Limit, LimitCrossing, Meter, WorkspacePolicy
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import InvalidInput, NotFound
from opsmeter_site.lib.periods import day_of
from tests.factories import make_workspace
from tests.ledger import make_event
from workspaces.models import AuditEntry

pytestmark = pytest.mark.django_db

DEFAULTS = BudgetValues()


@pytest.fixture
def opened():
    return make_workspace()


def change(opened, **changes):
    return update_budget_settings(opened.workspace, acting_user=opened.owner, **changes)


def budget_limits(opened):
    return {limit.period: limit for limit in Limit.objects.filter(workspace=opened.workspace, source="budgets")}


def spend(opened, amount):
    """A meter as ingest would have left it."""
    Meter.objects.update_or_create(
        workspace=opened.workspace,
        measure="usd",
        period="day",
        period_start=day_of(utc_now()).start,
        defaults={"value": Decimal(amount)},
    )


def test_it_starts_with_defaults(opened):
    assert budget_values(opened.workspace.pk) == DEFAULTS


def test_it_changes_only_what_is_named(opened):
    change(opened, daily_limit_usd=Decimal(50), enforcement="hard")
    after = change(opened, monthly_limit_usd=Decimal(500))
    assert after == BudgetValues(daily_limit_usd=Decimal(50), monthly_limit_usd=Decimal(500), enforcement="hard")
    assert budget_values(opened.workspace.pk) == after


def test_it_pushes_limits_that_point_back_at_the_budgets(opened):
    change(opened, daily_limit_usd=Decimal("41.25"), monthly_limit_usd=Decimal(500), enforcement="hard")
    limits = budget_limits(opened)
    for budget in Budget.objects.filter(workspace=opened.workspace):
        limit = limits[budget.period]
        assert limit.source_id == str(budget.pk)
        assert (limit.measure, limit.amount, limit.enforce) == ("usd", budget.limit_usd, True)
        assert limit.thresholds == [Decimal("0.8"), Decimal(1)]
    assert limits["day"].name == "Daily budget"


def test_a_warning_at_the_limit_itself_is_one_threshold(opened):
    change(opened, daily_limit_usd=Decimal(50), warning_threshold_ratio=Decimal(1))
    assert budget_limits(opened)["day"].thresholds == [Decimal(1)]


def test_soft_stop_enforces_nothing(opened):
    change(opened, daily_limit_usd=Decimal(50), enforcement="soft")
    assert budget_limits(opened)["day"].enforce is False


def test_none_removes_the_budget_and_its_limit(opened):
    change(opened, daily_limit_usd=Decimal(50), monthly_limit_usd=Decimal(500))
    change(opened, daily_limit_usd=None)
    assert set(budget_limits(opened)) == {"month"}
    assert [budget.period for budget in Budget.objects.filter(workspace=opened.workspace)] == ["month"]


def test_the_plan_limit_is_left_alone(opened):
    before = Limit.objects.get(workspace=opened.workspace, source="billing").pk
    change(opened, daily_limit_usd=Decimal(50))
    change(opened, daily_limit_usd=None)
    assert Limit.objects.get(workspace=opened.workspace, source="billing").pk == before


def test_an_unchanged_budget_keeps_its_id_and_its_crossings(opened):
    spend(opened, 45)
    change(opened, daily_limit_usd=Decimal(50))
    before = Budget.objects.get(workspace=opened.workspace)
    crossing = LimitCrossing.objects.get(limit__source_id=str(before.pk))
    change(opened, monthly_limit_usd=Decimal(500), enforcement="hard", observe_mode=True)
    assert Budget.objects.get(workspace=opened.workspace, period="day").pk == before.pk
    assert LimitCrossing.objects.get(limit__source_id=str(before.pk)).pk == crossing.pk


def test_a_limit_below_the_spend_so_far_is_crossed_at_once(opened):
    spend(opened, "50.01")
    change(opened, daily_limit_usd=Decimal(50))
    thresholds = LimitCrossing.objects.filter(limit__workspace=opened.workspace).values_list("threshold", flat=True)
    assert sorted(thresholds) == [Decimal("0.8"), Decimal(1)]


def test_policy_travels_down_to_ingest(opened):
    change(opened, observe_mode=True, counted_data_modes=["test", "real"])
    policy = WorkspacePolicy.objects.get(workspace=opened.workspace)
    assert policy.observe_mode is True
    assert policy.counted_data_modes == ["real", "test"]


def test_it_writes_one_audit_entry_with_old_and_new_values(opened):
    change(opened, daily_limit_usd=Decimal(50))
    before = set(AuditEntry.objects.values_list("pk", flat=True))
    change(opened, daily_limit_usd=Decimal("75.5"), enforcement="hard")
    entry = AuditEntry.objects.exclude(pk__in=before).get()
    assert (entry.action, entry.actor, entry.workspace) == ("budgets.changed", opened.owner, opened.workspace)
    assert Decimal(entry.data["old"]["daily_limit_usd"]) == 50
    assert Decimal(entry.data["new"]["daily_limit_usd"]) == Decimal("75.5")
    assert (entry.data["old"]["enforcement"], entry.data["new"]["enforcement"]) == ("soft", "hard")


def test_no_change_writes_nothing(opened):
    change(opened, daily_limit_usd=Decimal(50), counted_data_modes=["real", "test"])
    before = AuditEntry.objects.count(), BudgetSettings.objects.get(workspace=opened.workspace).updated_at
    change(opened, daily_limit_usd=Decimal("50.00"), counted_data_modes=["test", "real"])
    assert (AuditEntry.objects.count(), BudgetSettings.objects.get(workspace=opened.workspace).updated_at) == before


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("daily_limit_usd", Decimal(0)),
        ("daily_limit_usd", Decimal(-1)),
        ("daily_limit_usd", Decimal("NaN")),
        ("daily_limit_usd", Decimal("sNaN")),
        ("daily_limit_usd", Decimal("Infinity")),
        ("daily_limit_usd", Decimal("10000000.01")),
        ("monthly_limit_usd", Decimal("1E+400")),
        ("monthly_limit_usd", Decimal("0.0000000000001")),
        ("warning_threshold_ratio", Decimal(0)),
        ("warning_threshold_ratio", Decimal("1.0001")),
        ("warning_threshold_ratio", Decimal("0.80001")),
        ("enforcement", "firm"),
        ("counted_data_modes", []),
        ("counted_data_modes", ["real", "real"]),
        ("counted_data_modes", ["real", "staging"]),
    ],
)
def test_a_bad_value_is_refused_by_name_and_changes_nothing(opened, field, value):
    good = change(opened, daily_limit_usd=Decimal(50))
    with pytest.raises(InvalidInput) as refusal:
        change(opened, **{field: value})
    assert [error.field for error in refusal.value.errors] == [field]
    assert budget_values(opened.workspace.pk) == good


def test_every_bad_value_is_named_at_once(opened):
    with pytest.raises(InvalidInput) as refusal:
        change(opened, daily_limit_usd=Decimal(-1), monthly_limit_usd=Decimal(0), enforcement="")
    named = {error.field for error in refusal.value.errors}
    assert named == {"daily_limit_usd", "monthly_limit_usd", "enforcement"}


def test_a_monthly_limit_below_the_daily_one_is_legal(opened):
    change(opened, daily_limit_usd=Decimal(100), monthly_limit_usd=Decimal(50))
    assert budget_limits(opened)["month"].amount == 50


def test_the_smallest_and_the_largest_limit(opened):
    change(opened, daily_limit_usd=Decimal("0.000000000001"), monthly_limit_usd=Decimal(10_000_000))
    assert budget_limits(opened)["day"].amount == Decimal("1E-12")


def test_a_workspace_without_a_policy_is_not_found(opened):
    Limit.objects.filter(workspace=opened.workspace).delete()
    WorkspacePolicy.objects.filter(workspace=opened.workspace).delete()
    with pytest.raises(NotFound):
        change(opened, daily_limit_usd=Decimal(5))


def test_changed_data_modes_recount_the_spend(opened):
    for mode, usd in (("real", 7), ("demo", 2)):
        make_event(opened.workspace, data_mode=mode, cost_usd=Decimal(usd), occurred_at=utc_now())
    change(opened, daily_limit_usd=Decimal(2), counted_data_modes=["demo"])
    assert _spent_today(opened) == 2
    assert {(row.threshold, row.value) for row in LimitCrossing.objects.filter(limit__workspace=opened.workspace)} == {
        (Decimal("0.8"), 2)
    }
    change(opened, counted_data_modes=["real", "demo"])
    assert _spent_today(opened) == 9


def _spent_today(opened):
    meter = Meter.objects.get(
        workspace=opened.workspace, measure="usd", period="day", period_start=day_of(utc_now()).start
    )
    return meter.value


def test_other_data_modes_are_added_up_before_ingest_has_to_wait(opened):
    """Whatever reads all that is stored comes before the first lock."""
    make_event(opened.workspace, data_mode="test", cost_usd=Decimal(2), occurred_at=utc_now())
    with CaptureQueriesContext(connection) as queries:
        change(opened, counted_data_modes=["real", "test"])
    statements = [query["sql"] for query in queries]
    locked = next(place for place, sql in enumerate(statements) if "FOR NO KEY UPDATE" in sql)
    sums = [place for place, sql in enumerate(statements) if "max(id)" in sql]
    assert sums
    assert max(sums) < locked
    assert _spent_today(opened) == 2
