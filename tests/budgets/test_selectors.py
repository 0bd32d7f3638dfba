from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import uuid4

import pytest

from budgets.models import Budget
from budgets.scoped.services import adjust_budget, raise_budget
from budgets.selectors import budget_values, workspace_status
from budgets.services import update_budget_settings
from ingest.models import Limit, Meter
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.errors import NotFound
from opsmeter_site.lib.periods import Period, window_of
from tests.factories import make_workspace

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 3, 7, 15, 30, 12, 345678, tzinfo=UTC)


@pytest.fixture
def opened():
    return make_workspace("starter")


def meter(opened, measure, period, value, moment=NOW):
    Meter.objects.create(
        workspace=opened.workspace,
        measure=measure,
        period=period,
        period_start=window_of(Period(period), moment).start,
        value=Decimal(value),
    )


def budgets(opened, **changes):
    changes = {name: Decimal(value) if isinstance(value, int) else value for name, value in changes.items()}
    update_budget_settings(opened.workspace, acting_user=opened.owner, **changes)


def status_of(opened, now=NOW):
    return workspace_status(opened.workspace.pk, now)


def test_a_workspace_without_budgets_and_meters_is_normal(opened):
    status = status_of(opened)
    assert status.severity == "normal"
    assert (status.is_budget_warning, status.is_budget_exceeded) == (False, False)
    assert (status.plan.tier, status.plan.name, status.plan.request_count) == ("starter", "Starter", 0)
    assert (status.plan.request_limit, status.plan.remaining) == (100_000, 100_000)
    for window in (status.daily, status.monthly):
        assert (window.limit_usd, window.spend_usd, window.utilization_ratio) == (None, 0, 0)
        assert (window.is_warning, window.is_exceeded) == (False, False)
    assert status.warning_threshold_ratio == Decimal("0.8")


def test_spend_is_shown_without_a_limit_too(opened):
    meter(opened, "usd", "day", "12.5")
    daily = status_of(opened).daily
    assert (daily.spend_usd, daily.utilization_ratio, daily.is_exceeded) == (Decimal("12.5"), 0, False)


@pytest.mark.parametrize(
    ("spend", "ratio", "is_warning", "is_exceeded", "severity"),
    [
        ("39.999999999999", "0.8000", False, False, "normal"),
        ("40", "0.8000", True, False, "warning"),
        ("41.25", "0.8250", True, False, "warning"),
        ("50", "1.0000", True, False, "warning"),
        ("50.000000000001", "1.0000", True, True, "critical"),
        ("412.55", "8.2510", True, True, "critical"),
    ],
)
def test_warning_starts_at_the_threshold_and_exceeded_above_the_limit(
    opened, spend, ratio, is_warning, is_exceeded, severity
):
    budgets(opened, daily_limit_usd=50)
    meter(opened, "usd", "day", spend)
    status = status_of(opened)
    assert status.daily.utilization_ratio == Decimal(ratio)
    assert (status.daily.is_warning, status.daily.is_exceeded) == (is_warning, is_exceeded)
    assert (status.is_budget_warning, status.is_budget_exceeded, status.severity) == (is_warning, is_exceeded, severity)
    assert (status.monthly.is_warning, status.monthly.is_exceeded) == (False, False)


def test_a_threshold_of_one_warns_at_the_limit(opened):
    budgets(opened, daily_limit_usd=50, warning_threshold_ratio=1)
    meter(opened, "usd", "day", 50)
    daily = status_of(opened).daily
    assert (daily.is_warning, daily.is_exceeded) == (True, False)


def test_ratios_are_rounded_half_up_to_four_decimals(opened):
    budgets(opened, monthly_limit_usd=3)
    meter(opened, "usd", "month", 2)
    assert status_of(opened).monthly.utilization_ratio == Decimal("0.6667")


def test_the_tiniest_limit_and_the_largest_spend(opened):
    budgets(opened, daily_limit_usd=Decimal("1E-12"))
    meter(opened, "usd", "day", "99999999.999999999999")
    assert status_of(opened).daily.is_exceeded is True


def test_a_reached_plan_limit_pauses_telemetry(opened):
    meter(opened, "requests", "month", 100_000)
    status = status_of(opened)
    assert (status.plan.remaining, status.plan.is_limit_reached, status.plan.is_telemetry_paused) == (0, True, True)
    assert status.severity == "critical"


def test_remaining_requests_are_never_negative(opened):
    meter(opened, "requests", "month", 100_500)
    assert status_of(opened).plan.remaining == 0


def test_a_plan_without_limit(opened):
    Limit.objects.filter(workspace=opened.workspace, source="billing").delete()
    meter(opened, "requests", "month", 12)
    plan = status_of(opened).plan
    assert (plan.request_count, plan.request_limit, plan.remaining, plan.is_limit_reached) == (12, None, None, False)


def test_windows_are_the_utc_day_and_month(opened):
    status = status_of(opened, datetime(2026, 2, 28, 23, 59, 59, 999999, tzinfo=UTC))
    assert status.daily.window.start == datetime(2026, 2, 28, tzinfo=UTC)
    assert status.daily.window.last_second == datetime(2026, 2, 28, 23, 59, 59, tzinfo=UTC)
    assert status.monthly.window.start == datetime(2026, 2, 1, tzinfo=UTC)
    assert status.plan.window.last_second == datetime(2026, 2, 28, 23, 59, 59, tzinfo=UTC)


def test_meters_of_other_periods_do_not_count(opened):
    budgets(opened, daily_limit_usd=50, monthly_limit_usd=50)
    meter(opened, "usd", "day", 60, datetime(2026, 3, 6, 12, tzinfo=UTC))
    meter(opened, "usd", "month", 60, datetime(2026, 2, 6, 12, tzinfo=UTC))
    assert status_of(opened).severity == "normal"


def test_other_workspaces_do_not_count(opened):
    other = make_workspace()
    budgets(other, daily_limit_usd=1)
    meter(other, "usd", "day", 60)
    assert status_of(opened).daily.limit_usd is None
    assert status_of(opened).daily.spend_usd == 0


def test_observe_mode_still_shows_everything(opened):
    budgets(opened, daily_limit_usd=1, observe_mode=True, enforcement="hard")
    meter(opened, "usd", "day", 60)
    assert status_of(opened).severity == "critical"


def test_one_statement_reads_one_snapshot(opened, django_assert_num_queries):
    budgets(opened, daily_limit_usd=50, monthly_limit_usd=500)
    with django_assert_num_queries(1):
        status_of(opened)
    with django_assert_num_queries(1):
        budget_values(opened.workspace.pk)


def test_an_unknown_workspace_is_not_found():
    with pytest.raises(NotFound):
        workspace_status(uuid4(), NOW)
    with pytest.raises(NotFound):
        budget_values(uuid4())


def test_the_status_says_what_is_enforced_a_raise_and_an_adjustment_included(opened):
    update_budget_settings(opened.workspace, acting_user=opened.owner, daily_limit_usd=Decimal(50))
    budget = Budget.objects.get(workspace=opened.workspace)
    now = utc_now()
    raise_budget(budget, Decimal(80), now + timedelta(hours=2), "a launch", acting_user=opened.owner)
    adjust_budget(budget, Decimal(60), "a call that was not sent", acting_user=opened.owner)

    raised = workspace_status(opened.workspace.pk, now).daily
    assert (raised.limit_usd, raised.spend_usd, raised.is_exceeded) == (Decimal(80), Decimal(60), False)
    later = workspace_status(opened.workspace.pk, now + timedelta(hours=2)).daily
    if later.window == raised.window:
        assert (later.limit_usd, later.is_exceeded) == (Decimal(50), True)
    assert workspace_status(opened.workspace.pk, now).monthly.limit_usd is None
