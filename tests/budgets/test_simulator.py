from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from budgets.selectors import BudgetValues
from budgets.simulator import simulate
from ingest.models import Refusal
from opsmeter_site.lib.periods import QUARTER_HOUR, day_of, quarter_hour_of
from tests.budgets.rollups import spend
from tests.factories import make_workspace

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 10, 12, 7, tzinfo=UTC)
TODAY = day_of(NOW).start
FIRST = datetime(2026, 10, 12, tzinfo=UTC)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


@pytest.fixture
def workspace():
    return make_workspace("pro").workspace.pk


def hard(**values):
    return BudgetValues(enforcement="hard", **{name: Decimal(value) for name, value in values.items()})


def soft(**values):
    return BudgetValues(**{name: Decimal(value) for name, value in values.items()})


def refuse(workspace, moment, usd, requests=1, reason="budget_exceeded"):
    tokens = dict.fromkeys(
        ("uncached_input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens"), 0
    )
    Refusal.objects.create(
        workspace_id=workspace,
        bucket_start=quarter_hour_of(moment),
        reason=reason,
        requests=requests,
        cost_usd=usd,
        **tokens,
    )


def days_of(periods: Iterable):
    return [period.window.start for period in periods]


def test_thirty_utc_days_up_to_now(workspace):
    replay = simulate(workspace, BudgetValues(), NOW).replay
    assert days_of(replay.days) == [FIRST + n * DAY for n in range(30)]
    assert (replay.start, replay.end, replay.months) == (FIRST, NOW, [])
    assert (replay.sent.requests, replay.sent.usd, replay.warned, replay.exceeded) == (0, 0, [], [])
    assert len(simulate(workspace, BudgetValues(), NOW, days=7).replay.days) == 7


def test_a_warning_comes_at_the_threshold_and_an_alert_above_the_limit(workspace):
    usd = {TODAY - 5 * DAY + n * HOUR: 1 for n in range(12)}  # 12 in one day
    spend(workspace, usd)
    replay = simulate(workspace, soft(daily_limit_usd=10), NOW).replay
    (day,) = replay.warned
    assert replay.exceeded == [day]
    assert day.window.start == TODAY - 5 * DAY
    assert day.warned_at == TODAY - 5 * DAY + 7 * HOUR  # the eighth dollar
    assert day.exceeded_at == TODAY - 5 * DAY + 10 * HOUR  # the eleventh
    assert (day.sent.requests, day.sent.usd, day.accepted_usd, day.refused.requests) == (12, 12, 12, 0)


@pytest.mark.parametrize(
    ("limit", "is_warned", "is_exceeded"),
    [("5", True, False), ("4.999999999999", True, True), ("6.25", True, False), ("6.250000000001", False, False)],
)
def test_exceeded_is_above_the_limit_and_warned_at_the_threshold(workspace, limit, is_warned, is_exceeded):
    spend(workspace, {TODAY: 5})
    replay = simulate(workspace, soft(daily_limit_usd=limit), NOW).replay
    assert (bool(replay.warned), bool(replay.exceeded)) == (is_warned, is_exceeded)


def test_a_threshold_of_one_is_no_warning_of_its_own(workspace):
    spend(workspace, {TODAY: 5, TODAY + HOUR: 1})
    proposal = soft(daily_limit_usd=5, warning_threshold_ratio=1)
    replay = simulate(workspace, proposal, NOW).replay
    assert (replay.warned, days_of(replay.exceeded)) == ([], [TODAY])


def test_a_hard_stop_refuses_the_quarter_hours_after_the_crossing(workspace):
    spend(workspace, {TODAY + n * QUARTER_HOUR: 2 for n in range(8)})  # 16 in all; 5 is crossed by the third
    simulation = simulate(workspace, hard(daily_limit_usd=5), NOW)
    assert simulation.replay is simulation.with_hard_stop
    day = simulation.replay.days[-1]
    assert (day.exceeded_at, day.accepted_usd) == (TODAY + 2 * QUARTER_HOUR, 6)
    assert day.refused == (5, 10)
    # The request that crosses the limit is taken, and nothing else came in its quarter hour.
    assert day.unsure == (0, 0)


def test_a_soft_stop_refuses_nothing_and_says_what_a_hard_one_would(workspace):
    spend(workspace, {TODAY + n * QUARTER_HOUR: 2 for n in range(8)})
    simulation = simulate(workspace, soft(daily_limit_usd=5), NOW)
    assert (simulation.replay.refused, simulation.replay.unsure) == ((0, 0), (0, 0))
    assert simulation.with_hard_stop.refused == (5, 10)


def test_the_kill_switch_enforces_nothing(workspace):
    spend(workspace, {TODAY + n * QUARTER_HOUR: 2 for n in range(8)})
    observed = BudgetValues(daily_limit_usd=Decimal(5), enforcement="hard", observe_mode=True)
    simulation = simulate(workspace, observed, NOW)
    assert (simulation.replay.is_enforced, simulation.replay.refused.requests) == (False, 0)
    assert len(simulation.replay.exceeded) == 1
    assert simulation.with_hard_stop.refused.requests == 5


def test_what_may_have_been_refused_in_the_quarter_hour_of_the_crossing(workspace):
    spend(workspace, {TODAY: 30})
    spend(workspace, {TODAY: 70}, "test")
    proposal = BudgetValues(daily_limit_usd=Decimal(10), enforcement="hard", counted_data_modes=("real", "test"))
    replay = simulate(workspace, proposal, NOW).replay
    assert (replay.refused, replay.unsure) == ((0, 0), (1, 90))


def test_days_begin_at_utc_midnight(workspace):
    spend(workspace, {TODAY - QUARTER_HOUR: 6, TODAY: 6, TODAY - DAY: 5})
    replay = simulate(workspace, hard(daily_limit_usd=10), NOW).replay
    assert days_of(replay.exceeded) == [TODAY - DAY]
    assert replay.days[-1].accepted_usd == 6


def test_the_day_before_the_first_one_does_not_count(workspace):
    spend(workspace, {FIRST - QUARTER_HOUR: 100, FIRST: 5})
    replay = simulate(workspace, soft(daily_limit_usd=10), NOW).replay
    assert (replay.sent, replay.exceeded) == ((1, 5), [])


def test_a_month_counts_from_its_own_beginning(workspace):
    spend(workspace, {FIRST - 3 * DAY: 90, FIRST + DAY: 20, datetime(2026, 11, 1, tzinfo=UTC): 100})
    replay = simulate(workspace, soft(monthly_limit_usd=100), NOW).replay
    october, november = replay.months
    assert (october.sent.usd, october.exceeded_at) == (110, FIRST + DAY)
    assert october.warned_at == FIRST - 3 * DAY
    assert (november.sent.usd, november.exceeded_at) == (100, None)
    assert (replay.exceeded, replay.warned) == ([october], [november])  # October's warning came before these days
    assert replay.sent == (2, 120)


def test_a_month_ends_at_utc_midnight(workspace):
    november = datetime(2026, 11, 1, tzinfo=UTC)
    spend(workspace, {november - QUARTER_HOUR: 60, november: 60})
    assert simulate(workspace, soft(monthly_limit_usd=100), NOW).replay.exceeded == []


def test_an_exceeded_month_refuses_on_every_later_day_until_it_ends(workspace):
    spend(workspace, {FIRST + n * DAY: 10 for n in range(30)})
    replay = simulate(workspace, hard(monthly_limit_usd=95), NOW).replay
    october, november = replay.months
    assert october.exceeded_at == FIRST + 9 * DAY
    assert days_of(day for day in replay.days if day.refused.requests) == [FIRST + n * DAY for n in range(10, 20)]
    assert (october.accepted_usd, october.refused) == (100, (10, 100))
    assert (november.accepted_usd, november.exceeded_at) == (100, TODAY)


def test_what_a_day_refuses_does_not_count_in_its_month(workspace):
    spend(workspace, {day + n * HOUR: 5 for day in (TODAY - DAY, TODAY) for n in range(4)})
    replay = simulate(workspace, hard(daily_limit_usd=9, monthly_limit_usd=25), NOW).replay
    assert [day.accepted_usd for day in replay.days[-2:]] == [10, 10]
    november = replay.months[-1]
    assert (november.sent.usd, november.accepted_usd, november.exceeded_at) == (40, 20, None)
    assert simulate(workspace, soft(daily_limit_usd=9, monthly_limit_usd=25), NOW).replay.months[-1].is_exceeded


def test_what_a_budget_refused_in_reality_is_replayed(workspace):
    spend(workspace, {TODAY: 6})
    refuse(workspace, TODAY + HOUR, 20, requests=3)
    refuse(workspace, TODAY + HOUR, 50, reason="plan_limit_reached")
    assert simulate(workspace, hard(daily_limit_usd=5), NOW).replay.refused == (3, 20)
    roomy = simulate(workspace, hard(daily_limit_usd=25), NOW).replay
    assert (roomy.sent, roomy.days[-1].exceeded_at) == ((4, 26), TODAY + HOUR)


def test_only_the_proposals_data_modes_count(workspace):
    spend(workspace, {TODAY: 6})
    spend(workspace, {TODAY: 7}, "demo")
    assert simulate(workspace, BudgetValues(), NOW).replay.sent == (1, 6)
    assert simulate(workspace, BudgetValues(counted_data_modes=("demo",)), NOW).replay.sent == (1, 7)


def test_unpriced_requests_are_refused_like_all_others(workspace):
    spend(workspace, {TODAY: 6, TODAY + HOUR: 0})
    replay = simulate(workspace, hard(daily_limit_usd=5), NOW).replay
    assert replay.refused == (1, 0)


def test_other_workspaces_do_not_count(workspace):
    spend(make_workspace().workspace.pk, {TODAY: 6})
    assert simulate(workspace, BudgetValues(), NOW).replay.sent == (0, 0)


def test_two_statements_whatever_the_limits(workspace, django_assert_num_queries):
    spend(workspace, {FIRST + n * DAY: 10 for n in range(30)})
    with django_assert_num_queries(2):
        simulate(workspace, hard(daily_limit_usd=5, monthly_limit_usd=50), NOW)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sent=st.dictionaries(st.integers(0, 40 * 96), st.integers(0, 5_000), max_size=60),
    daily=st.none() | st.integers(1, 10_000),
    monthly=st.none() | st.integers(1, 60_000),
    is_hard=st.booleans(),
)
def test_it_is_what_counting_event_by_event_gives(db, sent, daily, monthly, is_hard):
    """With one event a quarter hour, the order is known and the replay must be exact."""
    workspace = make_workspace().workspace.pk
    cents = {NOW.replace(minute=0) - n * QUARTER_HOUR: usd for n, usd in sent.items()}
    spend(workspace, {moment: Decimal(usd) / 100 for moment, usd in cents.items()})
    proposal = BudgetValues(
        daily_limit_usd=None if daily is None else Decimal(daily) / 100,
        monthly_limit_usd=None if monthly is None else Decimal(monthly) / 100,
        enforcement="hard" if is_hard else "soft",
    )

    # From the first of October, 11 days before the first day asked for; events before it belong to no month asked for.
    cents = {moment: usd for moment, usd in sorted(cents.items()) if moment >= datetime(2026, 10, 1, tzinfo=UTC)}
    meters: dict[tuple[int, ...], int] = {}
    refused: list[datetime] = []
    for moment, usd in cents.items():
        day, month = (moment.month, moment.day), (moment.month,)
        over_day = daily is not None and meters.get(day, 0) > daily
        over_month = monthly is not None and meters.get(month, 0) > monthly
        if is_hard and (over_day or over_month):
            refused.append(moment)
            continue
        for key in (day, month):
            meters[key] = meters.get(key, 0) + usd

    replay = simulate(workspace, proposal, NOW).replay
    assert replay.sent.usd == Decimal(sum(usd for moment, usd in cents.items() if moment >= FIRST)) / 100
    assert replay.sent.requests == sum(moment >= FIRST for moment in cents)
    assert replay.refused.requests == sum(moment >= FIRST for moment in refused)
    assert replay.unsure == (0, 0)
    for day in replay.days:
        value = meters.get((day.window.start.month, day.window.start.day), 0)
        assert day.accepted_usd == Decimal(value) / 100
        assert day.is_exceeded == (daily is not None and value > daily)
        assert (day.warned_at is not None) == (daily is not None and value * 5 >= daily * 4)
    for month in replay.months:
        assert month.is_exceeded == (meters.get((month.window.start.month,), 0) > monthly)
