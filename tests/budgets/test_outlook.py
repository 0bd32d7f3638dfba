from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from budgets.forecast import forecasts
from budgets.models import Budget
from budgets.scoped.outlook import Outlook, outlooks
from budgets.scoped.selectors import BudgetStanding, ValueStanding
from ingest.models import LimitCrossing, Meter, MeteredScope
from ingest.scopes import ROLLED_UP
from opsmeter_site.lib.periods import QUARTER_HOUR, Period, day_of, month_of, window_of
from tests.budgets.rollups import DIMENSIONS, spend
from tests.factories import make_workspace

pytestmark = pytest.mark.django_db

# A Monday.
NOON = datetime(2026, 6, 15, 12, tzinfo=UTC)
MIDNIGHT = day_of(NOON).start
MAY = datetime(2026, 5, 1, tzinfo=UTC)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
PROVIDER, MODEL = DIMENSIONS[:2]


@pytest.fixture
def workspace():
    return make_workspace("pro").workspace


def standing(workspace: Any, kind: str = "", value: str = "", **said: Any) -> BudgetStanding:
    """Where a budget of 100 USD a day stands; `said` are fields of the standing or of the budget."""
    fields = {field.name for field in Budget._meta.fields} & set(said)
    budget = Budget.objects.create(
        workspace=workspace,
        name=f"Budget {Budget.objects.count()}",
        scope_kind=kind,
        scope_value=value,
        **{"period": "day", "limit_usd": Decimal(100)} | {name: said.pop(name) for name in fields},
    )
    plain: dict[str, Any] = {
        "window": window_of(Period(budget.period), NOON),
        "limit_usd": budget.limit_usd,
        **dict.fromkeys(("spend_usd", "held_usd", "adjusted_usd"), Decimal(0)),
        "unpriced_tokens": 0,
        **dict.fromkeys(("is_raised", "is_warning", "is_exceeded", "is_enforced"), False),
        **dict.fromkeys(("counts_from", "last_seen")),
    }
    return BudgetStanding(budget=budget, **plain | said)


def meters(workspace: Any, kind: str, value: str, usd_of: Mapping[datetime, Decimal | int], tokens: int = 0) -> None:
    """Day and month meters of a scope with this spend on these days."""
    months: dict[datetime, Decimal] = {}
    for day, usd in usd_of.items():
        months[month_of(day).start] = months.get(month_of(day).start, Decimal(0)) + usd
    rows = [("day", day, usd) for day, usd in usd_of.items()] + [("month", day, usd) for day, usd in months.items()]
    Meter.objects.bulk_create(
        Meter(
            workspace=workspace,
            measure="usd",
            period=period,
            period_start=start,
            scope_kind=kind,
            scope_value=value,
            value=usd,
            unpriced_tokens=tokens,
        )
        for period, start, usd in rows
    )


def evenly(days: int, usd: Decimal | int = 24) -> dict[datetime, Decimal]:
    """The same on each of the last `days` days, and half of it today."""
    return {MIDNIGHT - n * DAY: Decimal(usd) / (1 if n else 2) for n in range(days + 1)}


def of(shown: BudgetStanding) -> Outlook:
    (found,) = outlooks(shown.budget.workspace_id, [shown], NOON)
    return found


def test_a_budget_of_the_workspace_looks_ahead_as_the_overview_does(workspace):
    spend(workspace.pk, {MIDNIGHT - 80 * DAY + n * HOUR: n % 7 for n in range(80 * 24 + 12)})
    for period in Period:
        found = of(standing(workspace, period=period.value)).forecast
        alone = forecasts(workspace.pk, NOON)[period]
        assert found is not None
        for name in ("expected_usd", "low_usd", "high_usd", "spend_usd", "method"):
            assert getattr(found, name) == getattr(alone, name), name
        assert (found.limit_usd, alone.limit_usd) == (100, None)


@pytest.mark.parametrize(("kind", "value"), [("tenant_id", "acme"), ("model", MODEL)])
def test_a_scope_is_foreseen_from_its_own_days(workspace, kind, value):
    spend(workspace.pk, {MIDNIGHT - 20 * DAY + n * HOUR: 1 for n in range(20 * 24 + 12)})
    meters(workspace, "tenant_id", "umbrella", evenly(20, 999))
    meters(workspace, kind, value, evenly(20))
    found = of(standing(workspace, kind, value, limit_usd=Decimal(18))).forecast
    assert found is not None
    assert (found.spend_usd, found.expected_usd) == (12, 24)
    assert found.expected_at == NOON + 6 * HOUR


def test_spend_of_a_tenant_comes_at_the_hours_of_the_workspace(workspace):
    spend(workspace.pk, {MIDNIGHT - n * DAY + 20 * HOUR: 9 for n in range(1, 20)})
    meters(workspace, "tenant_id", "acme", evenly(20) | {MIDNIGHT: Decimal(0)})
    found = of(standing(workspace, "tenant_id", "acme", limit_usd=Decimal(10))).forecast
    assert found.expected_usd == 24
    assert MIDNIGHT + 20 * HOUR <= found.expected_at < MIDNIGHT + 20 * HOUR + QUARTER_HOUR


def test_others_do_not_count(workspace):
    meters(workspace, "tenant_id", "umbrella", evenly(20))
    meters(make_workspace().workspace, "tenant_id", "acme", evenly(20))
    assert of(standing(workspace, "tenant_id", "acme")) == Outlook(Decimal(0), None, None)


def test_a_budget_on_each_value_is_about_the_one_that_has_spent_most(workspace):
    meters(workspace, "tenant_id", "acme", evenly(20))
    meters(workspace, "tenant_id", "umbrella", evenly(20, 240))
    top = ValueStanding("umbrella", Decimal(120), Decimal(0), True, True)
    each = standing(workspace, "tenant_id", is_each_value=True, values=(top,), is_exceeded=True)
    limit = workspace.limits.create(
        source="budgets", source_id=str(each.budget.pk), measure="usd", period="day", amount=100, thresholds=[1],
        enforce=False, scope_kind="tenant_id", is_each_value=True,
    )  # fmt: skip
    for value, at in (("acme", MIDNIGHT), ("umbrella", MIDNIGHT + HOUR)):
        LimitCrossing.objects.create(
            limit=limit, period_start=MIDNIGHT, scope_value=value, threshold=1, amount=100, value=101, crossed_at=at
        )
    found = of(each).forecast
    assert (found.spend_usd, found.is_exceeded, found.exceeded_since) == (120, True, MIDNIGHT + HOUR)
    empty = standing(workspace, "user_id", is_each_value=True)
    assert of(empty) == Outlook(Decimal(0), None, None)


def test_estimates_and_adjustments_are_part_of_what_a_budget_counts(workspace):
    meters(workspace, "tenant_id", "acme", evenly(20), tokens=500_000)
    shown = standing(
        workspace, "tenant_id", "acme", unpriced="estimate", estimate_usd_per_1m=Decimal(4), adjusted_usd=Decimal(-3)
    )
    found = of(shown).forecast
    # Each day 24 and half a million tokens; today has the tokens of a whole day and half of the rest.
    assert found.spend_usd == 12 + 2 - 3
    assert found.expected_usd == round(12 + 2 - 3 + 13 * Decimal(14 + 26) / (13 + 26), 12)


def test_a_raise_holds_until_its_end(workspace):
    meters(workspace, "tenant_id", "acme", evenly(40))
    raised = {"limit_usd": Decimal(17), "raised_limit_usd": Decimal(50), "raised_until": NOON + 6 * HOUR}
    # By 17:00 spend is above what holds from 18:00 on, and never above the raise.
    shown = replace(standing(workspace, "tenant_id", "acme", **raised), limit_usd=Decimal(50), is_raised=True)
    found = of(shown).forecast
    assert (found.limit_usd, found.is_exceeded) == (50, False)
    assert found.expected_at == found.earliest_at == NOON + 6 * HOUR


def test_burn_is_spend_of_the_last_24_hours(workspace):
    spend(workspace.pk, {NOON - 30 * HOUR: 1_000, NOON - 20 * HOUR: 36, NOON - HOUR: 12})
    meters(workspace, "tenant_id", "acme", evenly(1, 36))
    for kind, value, usd in (("", "", 2), ("model", MODEL, 2), ("model", "other", 0), ("tenant_id", "acme", 54 / 36)):
        assert of(standing(workspace, kind, value)).burn_usd_per_hour == Decimal(usd), kind
        Budget.objects.all().delete()


def test_every_dimension_with_rollups_is_read_from_them(workspace):
    spend(workspace.pk, {NOON - HOUR: 24})
    values = dict(zip(("provider", "model", "endpoint_tag", "prompt_version", "environment"), DIMENSIONS, strict=True))
    assert set(values) == ROLLED_UP
    for kind, value in values.items():
        assert of(standing(workspace, kind, value)).burn_usd_per_hour == 1


def test_days_that_may_be_incomplete_teach_nothing(workspace):
    meters(workspace, "tenant_id", "acme", evenly(20))
    MeteredScope.objects.create(
        workspace=workspace, kind="tenant_id", value="acme", is_each_value=False, counts_from=MIDNIGHT - 3 * DAY + HOUR
    )
    assert of(standing(workspace, "tenant_id", "acme")).forecast is None


def test_a_record_of_even_days_is_perfect(workspace):
    meters(workspace, "tenant_id", "acme", evenly(80))
    for period, shown in (("day", "tenant_id"), ("month", "tenant_id")):
        record = of(standing(workspace, shown, "acme", period=period)).record
        assert (record.month, record.tries, record.mean_error, record.inside_range) == (MAY, 31, 0, 31)


def test_a_record_says_how_far_off_daily_forecasts_were(workspace):
    # Every day of April cost 10, every day of May twice as much as anybody had reason to think: with weekdays of the
    # last four weeks at 4:3:2:1, the first week of May is told 10, the next 14, then 17, 19 and 20.
    days = {day: Decimal(10 if day < MAY else 20) for day in (MAY - 40 * DAY + n * DAY for n in range(71))}
    meters(workspace, "tenant_id", "acme", days)
    record = of(standing(workspace, "tenant_id", "acme")).record
    assert record.tries == 31
    assert Decimal("0.15") < record.mean_error < Decimal("0.35")
    assert record.inside_range < 31


def test_a_record_uses_only_what_was_known_at_the_time(workspace):
    quiet = {MAY - 40 * DAY + n * DAY: Decimal(10) for n in range(40)}
    meters(workspace, "tenant_id", "acme", quiet | {MAY + n * DAY: Decimal(10) for n in range(30)})
    last_of_may = MAY + 30 * DAY
    meters(workspace, "tenant_id", "umbrella", quiet | {last_of_may: Decimal(1_000)})
    assert of(standing(workspace, "tenant_id", "acme")).record.mean_error == 0
    record = of(standing(workspace, "tenant_id", "umbrella", period="month")).record
    assert (record.tries, record.inside_range) == (31, 0)
    assert record.mean_error > Decimal("0.5")


def test_without_days_before_there_is_no_record(workspace):
    meters(workspace, "tenant_id", "acme", evenly(12))
    found = of(standing(workspace, "tenant_id", "acme"))
    assert found.forecast is not None
    assert found.record is None


def test_more_budgets_take_no_more_statements(workspace, django_assert_num_queries):
    spend(workspace.pk, {MIDNIGHT - 20 * DAY + n * HOUR: 1 for n in range(20 * 24)})
    shown = [standing(workspace, "tenant_id", f"t{n}") for n in range(19)]
    shown.append(standing(workspace, is_exceeded=True))
    with django_assert_num_queries(4):
        assert len(outlooks(workspace.pk, shown, NOON)) == 20
    assert outlooks(workspace.pk, [], NOON) == []
