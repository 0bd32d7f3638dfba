"""Where running UTC days and months will end, how sure that is, and when their limits would be reached.

Days to come cost what `day_rule` says. What is left of today costs its usual share of such a day, at today's pace.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from decimal import Decimal
from uuid import UUID

from django.db.models import Case, F, OuterRef, Subquery, Sum, When

from budgets.day_rule import HISTORY_DAYS, MIN_DAYS, History, Step
from budgets.forecast_figures import NOTHING, SpendFigures, is_rolled_up, read_figures
from ingest.limit_sets import WORKSPACE, ScopeKey
from ingest.limits import OVER, is_over
from ingest.models import Limit, LimitAdjustment, LimitCrossing, Measure
from opsmeter_site.lib.money import to_ledger
from opsmeter_site.lib.periods import DAY, QUARTER_HOUR, Period, Window, day_of, quarter_hour_of, window_of

# Roll-ups of more days would tell the share of a day that comes after a certain time hardly better, and cost more time.
_PROFILE_DAYS = 3
_ZERO, _ONE = Decimal(0), Decimal(1)


@dataclass(frozen=True, slots=True)
class Forecast:
    """What one running period will have cost at its end, in USD, if nothing is refused.

    `low_usd` to `high_usd` is the range. `expected_at` and `earliest_at` say when spend would go above the limit (or,
    for spend that only a raise allows, when that ends): as expected, and if all goes as at the upper end of the range;
    None if not in this period, or if it already has. `limit_usd` is the amount in force now.
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


@dataclass(frozen=True, slots=True)
class Ceiling:
    """A limit in the running period, in USD: `usd` holds now and, if that is a raise, `later_usd` from `until` on.

    `exceeded_since` is when the amount in force was crossed.
    """

    usd: Decimal
    exceeded_since: datetime | None = None
    until: datetime | None = None
    later_usd: Decimal = _ZERO

    def at(self, moment: datetime) -> Decimal:
        """The amount in force then."""
        return self.usd if self.until is None or moment < self.until else self.later_usd


@dataclass(frozen=True, slots=True)
class Question:
    """What a forecast is about: spend of a scope as a limit counts it, in the running `period`.

    `adjusted_usd` is what was added by hand in it. Days before `counts_from` may be incomplete.
    """

    period: Period
    scope: ScopeKey = WORKSPACE
    ceiling: Ceiling | None = None
    estimate_usd_per_1m: Decimal = _ZERO
    adjusted_usd: Decimal = _ZERO
    counts_from: datetime | None = None


@dataclass(frozen=True, slots=True)
class Past:
    """The whole days before today as one question counts them; the first one began at `first_day`."""

    first_day: datetime
    history: History

    @property
    def is_enough(self) -> bool:
        """Whether there is anything to learn from."""
        return len(self.history.spend) >= MIN_DAYS


def forecast(workspace_id: UUID, period: Period, now: datetime) -> Forecast | None:
    """The forecast of the workspace's `period` that holds `now`; None until there are `MIN_DAYS` whole days."""
    return forecasts(workspace_id, now).get(period)


def forecasts(workspace_id: UUID, now: datetime) -> dict[Period, Forecast]:
    """The workspace's forecasts of the UTC day and the UTC month that hold `now` (aware); empty without enough days.

    About the tightest limit of each period.
    """
    since = day_of(now).start - (HISTORY_DAYS + 1) * DAY
    figures = read_figures(workspace_id, [WORKSPACE], since, now, profile_stretches(now))
    if not past_of(figures, Question(Period.DAY), now).is_enough:
        return {}
    limits = _limits(workspace_id, now)
    questions = [limits.get(period, Question(period)) for period in Period]
    found = {}
    for question in questions:
        foreseen = foresee(figures, question, past_of(figures, question, now), now)
        if foreseen is not None:
            found[question.period] = foreseen
    return found


def profile_stretches(now: datetime) -> list[Window]:
    """The quarter hours that tell what share of a day comes after `now`: those of the last days."""
    current, midnight = quarter_hour_of(now), day_of(now).end
    return [Window(current - n * DAY, midnight - n * DAY) for n in range(1, _PROFILE_DAYS + 1)]


def past_of(figures: SpendFigures, question: Question, now: datetime) -> Past:
    """The days before today. The first one with a meter does not count: it may have begun in its middle."""
    today, scope = day_of(now).start, question.scope
    first = min(figures.first_day(scope) or today, today) + DAY
    if question.counts_from is not None:
        first = max(first, day_of(question.counts_from).start + DAY)
    days = [first + n * DAY for n in range((today - first).days)]
    estimate = question.estimate_usd_per_1m
    return Past(first, History.of([figures.meter(scope, Period.DAY, day).counted(estimate) for day in days]))


def foresee(figures: SpendFigures, question: Question, past: Past, now: datetime) -> Forecast | None:
    """The answer to `question`; None without enough days to learn from. Pure."""
    if not past.is_enough:
        return None
    window = window_of(question.period, now)
    history = past.history.before(len(past.history.spend))
    known_days = len(history.spend)
    today, tries = _rest_of_day(figures, question, history, now)
    later, later_tries = history.days_ahead(day_of(now).end, window.end, skipped=1)
    method = _month_method(later_tries, known_days) if later else _day_method(tries, known_days)
    spend = figures.meter(question.scope, question.period, window.start).counted(question.estimate_usd_per_1m)
    return _forecast(question, window, spend + question.adjusted_usd, [*today, *later], method)


def _rest_of_day(figures: SpendFigures, question: Question, history: History, now: datetime) -> tuple[list[Step], int]:
    """The quarter hours from `now` to midnight, and how often the rule was tried."""
    today = figures.meter(question.scope, Period.DAY, day_of(now).start)
    spent = today.counted(question.estimate_usd_per_1m)
    spread = history.spread(0, 1)
    whole_day = history.week[0]
    shares = _shares_ahead(figures, question, now)
    usual = whole_day * spread.middle
    before_now = usual * (1 - sum((share for _, share in shares), _ZERO))
    # A whole usual day on both sides: in the first hours, a little spend more or less says nothing about the pace.
    pace = (spent + usual) / (before_now + usual) if usual else _ONE
    steps = [
        Step.of(max(start, now), start + QUARTER_HOUR, whole_day * share * pace, spread) for start, share in shares
    ]
    return steps, spread.tries


def _shares_ahead(figures: SpendFigures, question: Question, now: datetime) -> list[tuple[datetime, Decimal]]:
    """The quarter hours from `now` to midnight and the share of a day's spend that each had on the last days.

    Of scopes without roll-ups, and of those that spent nothing on these days, as the whole workspace; if that spent
    nothing, spend is taken to be even. Of the quarter hour that holds `now` only the part ahead counts.
    """
    current, midnight = quarter_hour_of(now), day_of(now).end
    ahead = [current + number * QUARTER_HOUR for number in range((midnight - current) // QUARTER_HOUR)]
    for scope in (question.scope, WORKSPACE):
        usual, spent = _spend_by_time(figures, scope, question.estimate_usd_per_1m, now)
        if spent:
            shares = [usual.get(start.time(), _ZERO) / spent for start in ahead]
            break
    else:
        shares = [_ONE / (DAY // QUARTER_HOUR)] * len(ahead)
    shares[0] *= Decimal((current + QUARTER_HOUR - now) // timedelta(seconds=1)) / (
        QUARTER_HOUR // timedelta(seconds=1)
    )
    return list(zip(ahead, shares, strict=True))


def _spend_by_time(
    figures: SpendFigures, scope: ScopeKey, estimate: Decimal, now: datetime
) -> tuple[Mapping[time, Decimal], Decimal]:
    """Spend of the last days by time of day, of what comes after `now`, and all of their spend."""
    if not is_rolled_up(scope):
        return {}, _ZERO
    days = [day_of(now).start - n * DAY for n in range(1, _PROFILE_DAYS + 1)]
    spend: dict[time, Decimal] = {}
    quarter_hours = figures.quarter_hours[scope]
    for stretch in profile_stretches(now):
        start = stretch.start
        while start < stretch.end:
            usd = quarter_hours.get(start, NOTHING).counted(estimate)
            spend[start.time()] = spend.get(start.time(), _ZERO) + usd
            start += QUARTER_HOUR
    return spend, sum((figures.meter(scope, Period.DAY, day).counted(estimate) for day in days), _ZERO)


def _limits(workspace_id: UUID, now: datetime) -> dict[Period, Question]:
    """The tightest USD limit of each period: its amount in force, what it counts, since when it is exceeded."""
    starts = Case(*(When(period=period.value, then=window_of(period, now).start) for period in Period))
    in_force = Case(When(raised_until__gt=now, then=F("raised_amount")), default=F("amount"))
    running = {"limit": OuterRef("pk"), "period_start": OuterRef("starts_at")}
    crossings = LimitCrossing.objects.filter(**running, threshold=OVER, amount=OuterRef("in_force"))
    adjusted = LimitAdjustment.objects.filter(**running).order_by().values("limit").annotate(sum=Sum("usd"))
    limits = (
        Limit.objects.filter(workspace_id=workspace_id, measure=Measure.USD, scope_kind="")
        .annotate(starts_at=starts, in_force=in_force)
        .annotate(
            exceeded_since=Subquery(crossings.values("crossed_at")[:1]), adjusted=Subquery(adjusted.values("sum")[:1])
        )
        .order_by("-in_force")
    )
    return {
        Period(limit.period): Question(
            Period(limit.period),
            ceiling=Ceiling(
                limit.in_force,
                limit.exceeded_since,
                limit.raised_until if limit.in_force != limit.amount else None,
                limit.amount,
            ),
            estimate_usd_per_1m=limit.estimate_usd_per_1m,
            adjusted_usd=limit.adjusted or _ZERO,
        )
        for limit in limits
    }


def _forecast(question: Question, window: Window, spend: Decimal, steps: Sequence[Step], method: str) -> Forecast:
    ceiling = question.ceiling
    is_exceeded = ceiling is not None and is_over(Measure.USD, ceiling.usd, spend)
    return Forecast(
        period=question.period,
        window=window,
        spend_usd=spend,
        expected_usd=to_ledger(spend + sum((step.expected for step in steps), _ZERO)),
        low_usd=to_ledger(spend + sum((step.low for step in steps), _ZERO)),
        high_usd=to_ledger(spend + sum((step.high for step in steps), _ZERO)),
        limit_usd=ceiling.usd if ceiling else None,
        exceeded_since=ceiling.exceeded_since if ceiling and is_exceeded else None,
        expected_at=_when_over(ceiling, spend, [(step.start, step.end, step.expected) for step in steps]),
        earliest_at=_when_over(ceiling, spend, [(step.start, step.end, step.high) for step in steps]),
        method=method,
    )


_Stretch = tuple[datetime, datetime, Decimal]


def _when_over(ceiling: Ceiling | None, spend: Decimal, steps: Sequence[_Stretch]) -> datetime | None:
    """The minute in which `spend` goes above the limit on its way through `steps`, or the limit falls below it."""
    if ceiling is None or is_over(Measure.USD, ceiling.usd, spend):
        return None
    for start, end, usd in _parted(steps, ceiling.until):
        limit = ceiling.at(start)
        if is_over(Measure.USD, limit, to_ledger(spend)):
            return start.replace(second=0, microsecond=0)
        # Rounded as the sums are, so that a limit is reached if and only if the sum is above it.
        if is_over(Measure.USD, limit, to_ledger(spend + usd)):
            part = float((limit - spend) / usd)
            return (start + (end - start) * part).replace(second=0, microsecond=0)
        spend += usd
    return None


def _parted(steps: Sequence[_Stretch], moment: datetime | None) -> list[_Stretch]:
    """`steps`, with the one that holds `moment` in two."""
    parted = []
    for start, end, usd in steps:
        if moment is None or not start < moment < end:
            parted.append((start, end, usd))
            continue
        before = usd * Decimal((moment - start) // timedelta(seconds=1)) / ((end - start) // timedelta(seconds=1))
        parted += [(start, moment, before), (moment, end, usd - before)]
    return parted


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
