from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from budgets.day_rule import HISTORY_DAYS
from budgets.forecast import forecast, forecasts
from budgets.services import update_budget_settings
from ingest.models import LimitCrossing, Meter
from opsmeter_site.lib.periods import QUARTER_HOUR, Period, day_of
from tests.budgets.rollups import spend
from tests.factories import make_workspace

pytestmark = pytest.mark.django_db

# A Monday; the month has 14 days before it and 15 after it.
NOON = datetime(2026, 6, 15, 12, tzinfo=UTC)
MIDNIGHT = day_of(NOON).start
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
SATURDAY = 5


@pytest.fixture
def opened():
    return make_workspace("pro")


def hourly(first: datetime, until: datetime, usd_of: Callable[[datetime], Decimal | int] = lambda _: 1):
    """`usd_of(moment)` at every full hour of `[first, until)`."""
    hours = [first + n * HOUR for n in range((until - first) // HOUR)]
    return {hour: usd_of(hour) for hour in hours}


def by_day(first: datetime, usd: list[Decimal | int]):
    """One request at the noon of each day."""
    return {first + n * DAY + 12 * HOUR: each for n, each in enumerate(usd)}


def of(opened, period=Period.DAY, now=NOON):
    found = forecast(opened.workspace.pk, period, now)
    assert found is not None
    return found


def limits(opened, **changes):
    update_budget_settings(opened.workspace, acting_user=opened.owner, **changes)


def test_even_spend_goes_on_evenly(opened):
    spend(opened.workspace.pk, hourly(MIDNIGHT - 40 * DAY, NOON))
    day, month = of(opened), of(opened, Period.MONTH)
    assert (day.spend_usd, day.low_usd, day.expected_usd, day.high_usd) == (12, 24, 24, 24)
    assert (month.spend_usd, month.low_usd, month.expected_usd, month.high_usd) == (14 * 24 + 12, 720, 720, 720)
    assert day.window.end == MIDNIGHT + DAY
    assert month.window.end == datetime(2026, 7, 1, tzinfo=UTC)


def test_the_limit_is_reached_when_spend_would_go_above_it(opened):
    spend(opened.workspace.pk, {NOON - 40 * DAY + n * QUARTER_HOUR: 1 for n in range(40 * 96)})
    limits(opened, daily_limit_usd=Decimal("70.5"), monthly_limit_usd=Decimal(20 * 96 + 48))
    day, month = of(opened), of(opened, Period.MONTH)
    assert day.expected_at == day.earliest_at == MIDNIGHT + timedelta(hours=17, minutes=37)
    assert month.expected_at == month.earliest_at == datetime(2026, 6, 21, 12, tzinfo=UTC)
    assert (day.limit_usd, day.is_exceeded, day.exceeded_since) == (Decimal("70.5"), False, None)


def test_a_limit_that_is_only_just_kept_is_not_reached(opened):
    spend(opened.workspace.pk, hourly(MIDNIGHT - 40 * DAY, NOON))
    limits(opened, daily_limit_usd=Decimal(24), monthly_limit_usd=Decimal(720))
    assert (of(opened).expected_at, of(opened).earliest_at) == (None, None)
    assert (of(opened, Period.MONTH).expected_at, of(opened, Period.MONTH).earliest_at) == (None, None)


def test_without_a_limit_none_is_reached(opened):
    spend(opened.workspace.pk, hourly(MIDNIGHT - 40 * DAY, NOON))
    day = of(opened)
    assert (day.limit_usd, day.expected_at, day.earliest_at, day.is_exceeded) == (None, None, None, False)


def test_a_limit_that_is_exceeded_says_since_when(opened):
    spend(opened.workspace.pk, hourly(MIDNIGHT - 40 * DAY, NOON))
    limits(opened, daily_limit_usd=Decimal("11.99"), monthly_limit_usd=Decimal(1))
    since = NOON - HOUR
    for limit in opened.workspace.limits.filter(source="budgets"):
        start = MIDNIGHT if limit.period == "day" else MIDNIGHT.replace(day=1)
        LimitCrossing.objects.create(
            limit=limit, period_start=start, threshold=1, amount=limit.amount, value=12, crossed_at=since
        )
        # One of another period says nothing about this one.
        LimitCrossing.objects.create(
            limit=limit, period_start=start - 40 * DAY, threshold=1, amount=limit.amount, value=12, crossed_at=start
        )
    for period in Period:
        found = of(opened, period)
        assert (found.is_exceeded, found.exceeded_since) == (True, since)
        assert (found.expected_at, found.earliest_at) == (None, None)


def test_weekends_are_expected_to_be_weekends(opened):
    def usd(moment):
        return Decimal(1 if moment.weekday() >= SATURDAY else 10)

    spend(opened.workspace.pk, hourly(MIDNIGHT - 80 * DAY, NOON, usd))
    end = datetime(2026, 7, 1, tzinfo=UTC)
    assert of(opened, Period.MONTH).expected_usd == sum(hourly(MIDNIGHT.replace(day=1), end, usd).values())
    saturday = datetime(2026, 6, 13, 6, tzinfo=UTC)
    Meter.objects.filter(workspace=opened.workspace, period="day", period_start=day_of(saturday).start).update(value=6)
    assert of(opened, now=saturday).expected_usd < 30


def test_the_rest_of_a_day_costs_what_usually_comes_after_this_time(opened):
    evening = {MIDNIGHT - n * DAY + 20 * HOUR: Decimal(30) for n in range(1, 30)}
    spend(opened.workspace.pk, evening | {MIDNIGHT - n * DAY + 6 * HOUR: Decimal(10) for n in range(30)})
    assert (of(opened).spend_usd, of(opened).expected_usd) == (10, 40)
    assert of(opened, now=MIDNIGHT + 21 * HOUR).expected_usd < 11
    limits(opened, daily_limit_usd=Decimal(25))
    assert MIDNIGHT + 20 * HOUR <= of(opened).expected_at < MIDNIGHT + 20 * HOUR + QUARTER_HOUR


def test_a_day_that_began_faster_is_expected_to_go_on_faster(opened):
    spend(opened.workspace.pk, hourly(MIDNIGHT - 40 * DAY, MIDNIGHT) | hourly(MIDNIGHT, NOON, lambda _: 3))
    assert (of(opened).spend_usd, of(opened).expected_usd) == (36, 36 + 12 * Decimal(60) / 36)


def test_only_the_part_of_the_quarter_hour_that_is_ahead_counts(opened):
    spend(opened.workspace.pk, {MIDNIGHT - 10 * DAY + n * QUARTER_HOUR: 1 for n in range(10 * 96)})
    now = MIDNIGHT + DAY - timedelta(minutes=5)
    Meter.objects.create(
        workspace=opened.workspace, measure="usd", period="day", period_start=MIDNIGHT, value=96 - Decimal(1) / 4
    )
    assert float(of(opened, now=now).expected_usd) == pytest.approx(96, abs=0.1)


def test_noisy_days_make_a_range(opened):
    random = Random(7)
    days = [Decimal(random.randint(60, 140)) for _ in range(84)]
    spend(opened.workspace.pk, by_day(MIDNIGHT - 84 * DAY, days))
    now = MIDNIGHT + HOUR
    day, month = of(opened, now=now), of(opened, Period.MONTH, now)
    assert 60 <= day.low_usd < 90 < day.expected_usd < 110 < day.high_usd < 160
    spent = sum(days[-14:])
    assert spent + 1300 < month.low_usd < month.expected_usd < month.high_usd < spent + 2000
    # Good and bad days cancel out: a month is surer than a day.
    assert (month.high_usd - month.low_usd) / month.expected_usd < (day.high_usd - day.low_usd) / day.expected_usd


def test_the_range_learns_from_growth(opened):
    def usd(moment):
        return Decimal(10) * Decimal("1.01") ** ((moment - MIDNIGHT) // DAY)

    spend(opened.workspace.pk, hourly(MIDNIGHT - 84 * DAY, NOON, usd))
    month = of(opened, Period.MONTH)
    real = sum(hourly(MIDNIGHT.replace(day=1), datetime(2026, 7, 1, tzinfo=UTC), usd).values())
    assert month.low_usd * Decimal("0.99") < real < month.high_usd * Decimal("1.01")


@pytest.mark.parametrize(("days", "is_enough"), [(0, False), (1, False), (3, False), (4, True), (5, True)])
def test_it_needs_three_whole_days(opened, days, is_enough):
    """The first day does not count: the workspace may have begun in its middle."""
    spend(opened.workspace.pk, by_day(MIDNIGHT - days * DAY, [Decimal(5)] * (days + 1)))
    assert [forecast(opened.workspace.pk, period, NOON) is not None for period in Period] == [is_enough, is_enough]


def test_with_few_days_the_range_is_that_of_single_days(opened):
    spend(opened.workspace.pk, by_day(MIDNIGHT - 4 * DAY, [Decimal(n) for n in (100, 10, 20, 30, 0)]))
    day = of(opened, now=MIDNIGHT)
    assert (day.low_usd, day.expected_usd, day.high_usd) == (12, 20, 28)
    assert "only 3 whole days" in day.method
    month = of(opened, Period.MONTH, MIDNIGHT)
    assert (month.low_usd, month.expected_usd, month.high_usd) == (160 + 16 * 12, 160 + 16 * 20, 160 + 16 * 28)


def test_days_without_spend_are_days(opened):
    spend(opened.workspace.pk, by_day(MIDNIGHT - 60 * DAY, [Decimal(5)] * 10))
    assert (of(opened).spend_usd, of(opened).expected_usd, of(opened).high_usd) == (0, 0, 0)
    Meter.objects.create(workspace=opened.workspace, measure="usd", period="day", period_start=MIDNIGHT, value=7)
    assert of(opened).expected_usd == 7


def test_the_last_day_of_a_month_ends_with_the_month(opened):
    now = datetime(2026, 6, 30, 18, tzinfo=UTC)
    spend(opened.workspace.pk, hourly(now - 50 * DAY, now))
    day, month = of(opened, now=now), of(opened, Period.MONTH, now)
    assert (day.expected_usd, month.expected_usd) == (24, 720)
    assert month.method == day.method


def test_the_first_moment_of_a_year(opened):
    now = datetime(2027, 1, 1, tzinfo=UTC)
    spend(opened.workspace.pk, hourly(now - 50 * DAY, now))
    day, month = of(opened, now=now), of(opened, Period.MONTH, now)
    assert (day.spend_usd, day.expected_usd) == (0, 24)
    assert (month.spend_usd, month.expected_usd, month.window.end) == (0, 31 * 24, datetime(2027, 2, 1, tzinfo=UTC))


def test_it_counts_what_budgets_count(opened):
    spend(opened.workspace.pk, hourly(MIDNIGHT - 20 * DAY, NOON))
    spend(opened.workspace.pk, hourly(MIDNIGHT - 20 * DAY, NOON, lambda _: 5), "test")
    assert of(opened).expected_usd == 24
    limits(opened, counted_data_modes=["real", "test"])
    assert of(opened).expected_usd == 144


def test_other_workspaces_and_days_long_ago_do_not_count(opened):
    other = make_workspace()
    spend(other.workspace.pk, hourly(MIDNIGHT - 20 * DAY, NOON))
    assert forecasts(opened.workspace.pk, NOON) == {}
    spend(opened.workspace.pk, by_day(MIDNIGHT - (HISTORY_DAYS + 10) * DAY, [Decimal(9)] * 9))
    assert forecasts(opened.workspace.pk, NOON) == {}


def test_both_take_three_statements(opened, django_assert_num_queries):
    spend(opened.workspace.pk, hourly(MIDNIGHT - 20 * DAY, NOON))
    with django_assert_num_queries(3):
        assert set(forecasts(opened.workspace.pk, NOON)) == set(Period)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    days=st.lists(st.integers(0, 10**9), min_size=4, max_size=HISTORY_DAYS),
    now=st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC)),  # noqa: DTZ001
    today=st.integers(0, 10**9),
    limit=st.integers(1, 10**12),
)
def test_a_forecast_is_never_at_odds_with_itself(db, days, now, today, limit):
    opened = make_workspace()
    midnight = day_of(now).start
    micros = [Decimal(each) / 10**6 for each in [*days, today]]
    spend(opened.workspace.pk, {midnight - n * DAY: each for n, each in enumerate(reversed(micros))})
    # Straight into the table: the service would look at the meters of the real day.
    opened.workspace.limits.create(
        measure="usd", period="month", amount=Decimal(limit) / 10**6, thresholds=[1], enforce=False, source="budgets"
    )
    found = forecasts(opened.workspace.pk, now)
    for each in found.values():
        assert each.spend_usd <= each.low_usd <= each.expected_usd <= each.high_usd
    month = found[Period.MONTH]
    assert (month.expected_at is not None) == (month.spend_usd <= month.limit_usd < month.expected_usd)
    assert (month.earliest_at is not None) == (month.spend_usd <= month.limit_usd < month.high_usd)
    for at in (month.expected_at, month.earliest_at):
        assert at is None or now - timedelta(minutes=1) < at < month.window.end
    if month.expected_at:
        assert month.earliest_at <= month.expected_at
