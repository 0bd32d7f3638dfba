"""Where the running UTC day and month will end, how sure that is, and when their limits would be reached.

One rule: a coming day costs what its weekday did in the last four weeks, newer weeks counting more. What is left of
today costs its usual share of such a day, at today's pace. The same rule is then tried on the past twelve weeks, and
its misses correct the expectation and make the range: it holds what 8 of 10 tries would have needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from decimal import Decimal
from statistics import quantiles
from typing import NamedTuple
from uuid import UUID

from django.db.models import OuterRef, Q, Subquery, Sum

from ingest.limits import OVER, is_over
from ingest.models import Limit, LimitCrossing, Measure, Meter, Rollup, WorkspacePolicy
from opsmeter_site.lib.money import to_ledger
from opsmeter_site.lib.periods import QUARTER_HOUR, Period, Window, quarter_hour_of, window_of

MIN_DAYS = 3
HISTORY_DAYS = 84
# Newest week first.
_WEEK_WEIGHTS = (4, 3, 2, 1)
_WEEK = 7
# Fewer tries than this say nothing about how far the rule is off.
_MIN_TRIES = 8
# Roll-ups of more days would tell the share of a day that comes after a certain time hardly better, and cost more time.
_PROFILE_DAYS = 3
_DAY = timedelta(days=1)
_ZERO, _ONE = Decimal(0), Decimal(1)


@dataclass(frozen=True, slots=True)
class Forecast:
    """What one running period will have cost at its end, in USD, if nothing is refused.

    `low_usd` to `high_usd` is the range. `expected_at` and `earliest_at` say when spend would go above `limit_usd`:
    as expected, and if all goes as at the upper end of the range; None if not in this period, or if it already has.
    """

    period: Period
    window: Window
    spend_usd: Decimal
    expected_usd: Decimal
    low_usd: Decimal
    high_usd: Decimal
    limit_usd: Decimal | None
    exceeded_since: datetime | None
    expected_at: datetime | None
    earliest_at: datetime | None
    method: str

    @property
    def is_exceeded(self) -> bool:
        """Whether spend is above the limit now."""
        return self.limit_usd is not None and is_over(Measure.USD, self.limit_usd, self.spend_usd)


class _Spread(NamedTuple):
    """By what to multiply the rule's amount: the 10th, 50th and 90th percentile; `tries` is 0 if it was never tried."""

    low: Decimal
    middle: Decimal
    high: Decimal
    tries: int


@dataclass(frozen=True, slots=True)
class _History:
    """Spend of the whole days up to yesterday, oldest first, in USD.

    `weeks` has what the rule said after the first seven days, after eight, and so on to what it says today.
    """

    spend: list[Decimal]
    weeks: list[list[Decimal]]

    @property
    def average(self) -> Decimal:
        """Spend of an average day."""
        return sum(self.spend, _ZERO) / len(self.spend)

    @property
    def week(self) -> list[Decimal]:
        """What is expected of today and the six days after it; later ones repeat them."""
        return self.weeks[-1] if self.weeks else [self.average] * _WEEK


class _Step(NamedTuple):
    """A stretch of time ahead and what it may cost."""

    start: datetime
    end: datetime
    low: Decimal
    expected: Decimal
    high: Decimal


def forecast(workspace_id: UUID, period: Period, now: datetime) -> Forecast | None:
    """The forecast of the `period` that holds `now`; None until there are `MIN_DAYS` whole days to learn from."""
    return forecasts(workspace_id, now).get(period)


def forecasts(workspace_id: UUID, now: datetime) -> dict[Period, Forecast]:
    """The forecasts of the UTC day and the UTC month that hold `now` (aware); empty without enough whole days."""
    day, month = window_of(Period.DAY, now), window_of(Period.MONTH, now)
    meters = _meters(workspace_id, day, month)
    history = _history(meters, day)
    known_days = len(history.spend)
    if known_days < MIN_DAYS:
        return {}
    spent = meters.get((Period.DAY, day.start), _ZERO)
    today, today_tries = _rest_of_day(workspace_id, now, history, spent)
    later, later_tries = _later_days(history, day.end, month.end)
    limits = _limits(workspace_id, day, month)
    return {
        Period.DAY: _forecast(Period.DAY, day, spent, today, limits, _day_method(today_tries, known_days)),
        Period.MONTH: _forecast(
            Period.MONTH,
            month,
            meters.get((Period.MONTH, month.start), _ZERO),
            [*today, *later],
            limits,
            _month_method(later_tries, known_days) if later else _day_method(today_tries, known_days),
        ),
    }


def _meters(workspace_id: UUID, day: Window, month: Window) -> dict[tuple[str, datetime], Decimal]:
    """The USD meters of the running month and of the days since `HISTORY_DAYS` ago, by period and start."""
    wanted = Q(period=Period.DAY, period_start__gte=day.start - HISTORY_DAYS * _DAY) | Q(
        period=Period.MONTH, period_start=month.start
    )
    rows = Meter.objects.filter(wanted, workspace_id=workspace_id, measure=Measure.USD)
    return {(period, start): value for period, start, value in rows.values_list("period", "period_start", "value")}


def _history(meters: dict[tuple[str, datetime], Decimal], day: Window) -> _History:
    """The whole days before `day`. The first one with a meter does not count: it may have begun in its middle."""
    known = [start for period, start in meters if period == Period.DAY and start < day.start]
    first = min(known, default=day.start)
    spend = [meters.get((Period.DAY, first + n * _DAY), _ZERO) for n in range(1, (day.start - first).days)]
    return _History(spend, [_week_ahead(spend[:today]) for today in range(_WEEK, len(spend) + 1)])


def _week_ahead(spend: Sequence[Decimal]) -> list[Decimal]:
    """What the rule says of the seven days that follow the days of `spend`, of which there is a week at least."""
    week = []
    for ahead in range(_WEEK):
        same_weekday = spend[len(spend) + ahead - _WEEK :: -_WEEK]
        weighted = list(zip(_WEEK_WEIGHTS, same_weekday, strict=False))
        week.append(sum(weight * usd for weight, usd in weighted) / Decimal(sum(weight for weight, _ in weighted)))
    return week


def _rest_of_day(workspace_id: UUID, now: datetime, history: _History, spent: Decimal) -> tuple[list[_Step], int]:
    """The quarter hours from `now` to midnight, and how often the rule was tried."""
    spread = _spread(history, 0, 1)
    whole_day = history.week[0]
    shares = _shares_ahead(workspace_id, now, sum(history.spend[-_PROFILE_DAYS:], _ZERO))
    usual = whole_day * spread.middle
    before_now = usual * (1 - sum((share for _, share in shares), _ZERO))
    # A whole usual day on both sides: in the first hours, a little spend more or less says nothing about the pace.
    pace = (spent + usual) / (before_now + usual) if usual else _ONE
    steps = [_step(max(start, now), start + QUARTER_HOUR, whole_day * share * pace, spread) for start, share in shares]
    return steps, spread.tries


def _later_days(history: _History, first: datetime, end: datetime) -> tuple[list[_Step], int]:
    """The days from `first` to the `end` of the month, and how often the rule was tried on as many days."""
    number = (end - first).days
    if not number:
        return [], 0
    spread = _spread(history, 1, number)
    starts = [first + n * _DAY for n in range(number)]
    steps = [_step(start, start + _DAY, history.week[n % _WEEK], spread) for n, start in enumerate(starts, start=1)]
    return steps, spread.tries


def _spread(history: _History, skipped: int, days: int) -> _Spread:
    """How the sum of `days` days, `skipped` days ahead, compared with what the rule would have said before them.

    With too few tries: how single days compare with their average, as if all days to come were of one kind.
    """
    spend, ratios = history.spend, []
    for today, week in enumerate(history.weeks[: len(spend) - skipped - days - _WEEK + 1], start=_WEEK):
        foreseen = sum((week[ahead % _WEEK] for ahead in range(skipped, skipped + days)), _ZERO)
        if foreseen:
            ratios.append(sum(spend[today + skipped : today + skipped + days], _ZERO) / foreseen)
    tries = len(ratios)
    if tries < _MIN_TRIES:
        tries, average = 0, history.average
        ratios = [usd / average if average else _ONE for usd in spend]
    deciles = quantiles(ratios, n=10, method="inclusive")
    return _Spread(deciles[0], deciles[4], deciles[8], tries)


def _step(start: datetime, end: datetime, amount: Decimal, spread: _Spread) -> _Step:
    return _Step(start, end, amount * spread.low, amount * spread.middle, amount * spread.high)


def _shares_ahead(workspace_id: UUID, now: datetime, spent: Decimal) -> list[tuple[datetime, Decimal]]:
    """The quarter hours from `now` to midnight and the share of a day's spend that each had on the last days.

    `spent` is what those days spent in all; if nothing, spend is taken to be even. Of the quarter hour that holds `now`
    only the part ahead counts.
    """
    current, midnight = quarter_hour_of(now), window_of(Period.DAY, now).end
    ahead = [current + number * QUARTER_HOUR for number in range((midnight - current) // QUARTER_HOUR)]
    if spent:
        usual = _spend_by_time(workspace_id, current, midnight)
        shares = [usual.get(start.time(), _ZERO) / spent for start in ahead]
    else:
        shares = [_ONE / (_DAY // QUARTER_HOUR)] * len(ahead)
    shares[0] *= Decimal((current + QUARTER_HOUR - now) // timedelta(seconds=1)) / (
        QUARTER_HOUR // timedelta(seconds=1)
    )
    return list(zip(ahead, shares, strict=True))


def _spend_by_time(workspace_id: UUID, current: datetime, midnight: datetime) -> dict[time, Decimal]:
    """Counted spend of the last days by time of day, from that of `current` on."""
    stretches = Q()
    for number in range(1, _PROFILE_DAYS + 1):
        stretches |= Q(bucket_start__gte=current - number * _DAY, bucket_start__lt=midnight - number * _DAY)
    counted = WorkspacePolicy.objects.filter(workspace_id=workspace_id).values_list("counted_data_modes", flat=True)
    rows = (
        Rollup.objects.filter(stretches, workspace_id=workspace_id, data_mode__in=counted.first() or [])
        .values_list("bucket_start")
        .annotate(usd=Sum("cost_usd"))
        .order_by()
    )
    spend: dict[time, Decimal] = {}
    for start, usd in rows:
        spend[start.time()] = spend.get(start.time(), _ZERO) + usd
    return spend


def _limits(workspace_id: UUID, day: Window, month: Window) -> dict[str, tuple[Decimal, datetime | None]]:
    """The tightest USD limit of each period, and since when it is exceeded in the running one."""
    running = Q(limit__period=Period.DAY, period_start=day.start) | Q(
        limit__period=Period.MONTH, period_start=month.start
    )
    crossings = LimitCrossing.objects.filter(
        running, limit=OuterRef("pk"), threshold=OVER, amount=OuterRef("amount")
    ).values("crossed_at")
    rows = (
        Limit.objects.filter(workspace_id=workspace_id, measure=Measure.USD)
        .annotate(exceeded_since=Subquery(crossings[:1]))
        .order_by("-amount")
        .values_list("period", "amount", "exceeded_since")
    )
    return {period: (amount, since) for period, amount, since in rows}


def _forecast(
    period: Period,
    window: Window,
    spend: Decimal,
    steps: Sequence[_Step],
    limits: dict[str, tuple[Decimal, datetime | None]],
    method: str,
) -> Forecast:
    limit, since = limits.get(period, (None, None))
    is_exceeded = limit is not None and is_over(Measure.USD, limit, spend)
    return Forecast(
        period=period,
        window=window,
        spend_usd=spend,
        expected_usd=to_ledger(spend + sum((step.expected for step in steps), _ZERO)),
        low_usd=to_ledger(spend + sum((step.low for step in steps), _ZERO)),
        high_usd=to_ledger(spend + sum((step.high for step in steps), _ZERO)),
        limit_usd=limit,
        exceeded_since=since if is_exceeded else None,
        expected_at=_when_over(limit, spend, [(step.start, step.end, step.expected) for step in steps]),
        earliest_at=_when_over(limit, spend, [(step.start, step.end, step.high) for step in steps]),
        method=method,
    )


def _when_over(
    limit: Decimal | None, spend: Decimal, steps: Sequence[tuple[datetime, datetime, Decimal]]
) -> datetime | None:
    """The minute in which `spend` goes above `limit` on its way through `steps`."""
    if limit is None or is_over(Measure.USD, limit, spend):
        return None
    for start, end, usd in steps:
        # Rounded as the sums are, so that a limit is reached if and only if the sum is above it.
        if is_over(Measure.USD, limit, to_ledger(spend + usd)):
            part = float((limit - spend) / usd)
            return (start + (end - start) * part).replace(second=0, microsecond=0)
        spend += usd
    return None


def _day_method(tries: int, days: int) -> str:
    return (
        "The rest of today is taken to cost what it usually does after this time on this weekday, at today's pace. "
        + _range_method(tries, days)
    )


def _month_method(tries: int, days: int) -> str:
    return (
        "Each day to come is taken to cost what its weekday did in the last four weeks, newer weeks counting more. "
        + _range_method(tries, days)
    )


def _range_method(tries: int, days: int) -> str:
    if tries:
        return f"The range is what 8 of 10 would have needed, of the {tries} times this was tried on the past weeks."
    return f"The range is that between quiet and busy days, of the only {days} whole days known so far."
