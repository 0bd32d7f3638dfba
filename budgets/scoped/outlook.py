"""How fast budgets are used up, where their periods will end, and how right such forecasts were last month."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from budgets.day_rule import HISTORY_DAYS, MIN_DAYS
from budgets.forecast import Ceiling, Forecast, Past, Question, foresee, past_of, profile_stretches
from budgets.forecast_figures import SpendFigures, is_rolled_up, read_figures
from budgets.limit_specs import SOURCE
from budgets.models import Budget
from budgets.scoped.selectors import BudgetStanding
from ingest.limit_sets import WORKSPACE, ScopeKey
from ingest.limits import OVER
from ingest.models import LimitCrossing, MeteredScope
from ingest.snapshots import snapshot
from opsmeter_site.lib.money import to_ledger
from opsmeter_site.lib.periods import DAY, Period, Window, day_of, month_of, quarter_hour_of

_HOUR = timedelta(hours=1)
_ZERO = Decimal(0)

Crossed = Mapping[tuple[str, datetime, str, Decimal], datetime]
Since = Mapping[tuple[str, str, bool], datetime | None]


@dataclass(frozen=True, slots=True)
class TrackRecord:
    """How far off forecasts of the last whole month were: mean of |forecast - actual| / actual over `tries` of them.

    Of a monthly budget: what was said of the month's end at the start of each of its days. Of a daily one: what was
    said of each day at its start. Each from the days before it only. `inside_range` of them had the actual spend in
    their range. Days without anything to learn from, and days without spend, are not tried.
    """

    month: datetime
    tries: int
    mean_error: Decimal
    inside_range: int


@dataclass(frozen=True, slots=True)
class Outlook:
    """`burn_usd_per_hour` is that of the last 24 hours of counted spend (or of what there is), in USD.

    Dimensions without roll-ups have no such hours: it is that since the beginning of yesterday. `forecast` is None
    without three whole days to learn from, `record` without any in the last month. Of a budget on each value it is
    about the value that has spent most.
    """

    burn_usd_per_hour: Decimal
    forecast: Forecast | None
    record: TrackRecord | None


_NOTHING = Outlook(_ZERO, None, None)


def outlooks(workspace_id: UUID, shown: Sequence[BudgetStanding], now: datetime) -> list[Outlook]:
    """That of each, in their order; the number of queries does not grow with them."""
    if not shown:
        return []
    with snapshot():
        crossed, counts_from = _crossed(shown), _counts_from(workspace_id)
        questions = [_question(standing, crossed, counts_from) for standing in shown]
        figures = _figures(workspace_id, [question for question in questions if question is not None], now)
    # Budgets on the same scope share their past, which takes longest to work out.
    pasts: dict[tuple[ScopeKey, Decimal, datetime | None], Past] = {}
    found = []
    for question in questions:
        if question is None:
            found.append(_NOTHING)
            continue
        key = (question.scope, question.estimate_usd_per_1m, question.counts_from)
        past = pasts[key] = pasts.get(key) or past_of(figures, question, now)
        found.append(
            Outlook(
                _burn(figures, question, now),
                foresee(figures, question, past, now),
                _record(question.period, past, now),
            )
        )
    return found


def _question(standing: BudgetStanding, crossed: Crossed, counts_from: Since) -> Question | None:
    """What its forecast is about; None for a budget on each value where no value has spent anything yet."""
    budget = standing.budget
    value = budget.scope_value
    if budget.is_each_value:
        if not standing.values:
            return None
        value = standing.values[0].scope_value
    told_value = value if budget.is_each_value else ""
    return Question(
        Period(budget.period),
        ScopeKey(budget.scope_kind, value),
        Ceiling(
            standing.limit_usd,
            crossed.get((str(budget.pk), standing.window.start, told_value, standing.limit_usd)),
            budget.raised_until if standing.is_raised else None,
            budget.limit_usd,
        ),
        budget.estimate_usd_per_1m or _ZERO,
        standing.adjusted_usd,
        counts_from.get(_scope_of(budget)),
    )


def _scope_of(budget: Budget) -> tuple[str, str, bool]:
    return (budget.scope_kind, budget.scope_value, budget.is_each_value)


def _crossed(shown: Sequence[BudgetStanding]) -> Crossed:
    """When limits were exceeded: by budget, period, value and amount."""
    rows = LimitCrossing.objects.filter(
        limit__source=SOURCE,
        limit__source_id__in=[str(standing.budget.pk) for standing in shown if standing.is_exceeded],
        limit__workspace__in=[standing.budget.workspace_id for standing in shown[:1]],
        period_start__in={standing.window.start for standing in shown},
        threshold=OVER,
    )
    columns = ("limit__source_id", "period_start", "scope_value", "amount", "crossed_at")
    return {(source_id, start, value, amount): at for source_id, start, value, amount, at in rows.values_list(*columns)}


def _counts_from(workspace_id: UUID) -> Since:
    """From when on each metered scope has every event."""
    rows = MeteredScope.objects.filter(workspace_id=workspace_id).exclude(counts_from=None)
    columns = ("kind", "value", "is_each_value", "counts_from")
    return {(kind, value, is_each): since for kind, value, is_each, since in rows.values_list(*columns)}


def _figures(workspace_id: UUID, questions: Sequence[Question], now: datetime) -> SpendFigures:
    scopes = list(dict.fromkeys([WORKSPACE, *(question.scope for question in questions)]))
    since = _last_month(now).start - HISTORY_DAYS * DAY
    # The first of the stretches is what the last 24 hours have besides today.
    stretches = [*profile_stretches(now), Window(day_of(now).start, now)]
    return read_figures(workspace_id, scopes, since, now, stretches)


# --- How fast ---------------------------------------------------------------------------------------------------------


def _burn(figures: SpendFigures, question: Question, now: datetime) -> Decimal:
    """USD an hour."""
    estimate, today = question.estimate_usd_per_1m, day_of(now).start
    if is_rolled_up(question.scope):
        start = quarter_hour_of(now) - DAY
        quarter_hours = figures.quarter_hours[question.scope]
        usd = sum((spent.counted(estimate) for moment, spent in quarter_hours.items() if moment >= start), _ZERO)
    else:
        start = today - DAY
        usd = sum((figures.meter(question.scope, Period.DAY, day).counted(estimate) for day in (start, today)), _ZERO)
    if question.counts_from is not None:
        start = min(max(start, question.counts_from), now - _HOUR)
    return to_ledger(usd * 3600 / Decimal((now - start) // timedelta(seconds=1)))


# --- How right forecasts were -----------------------------------------------------------------------------------------


def _last_month(now: datetime) -> Window:
    """The last whole UTC month."""
    return month_of(month_of(now).start - DAY)


def _record(period: Period, past: Past, now: datetime) -> TrackRecord | None:
    """The rule's forecasts of the last whole month, held against what it cost."""
    month = _last_month(now)
    days = [month.start + n * DAY for n in range((month.end - month.start).days)]
    if period is Period.MONTH:
        tries = [_said_before(past, day, month.start, month.end) for day in days]
    else:
        tries = [_said_before(past, day, day, day + DAY) for day in days]
    said = [each for each in tries if each is not None]
    if not said:
        return None
    errors = [abs(each.expected - each.actual) / each.actual for each in said]
    return TrackRecord(
        month=month.start,
        tries=len(said),
        mean_error=(sum(errors, _ZERO) / len(said)).quantize(Decimal("0.0001")),
        inside_range=sum(each.low <= each.actual <= each.high for each in said),
    )


class _Said(NamedTuple):
    """What was said of a time, and what it cost. USD."""

    low: Decimal
    expected: Decimal
    high: Decimal
    actual: Decimal


def _said_before(past: Past, day: datetime, since: datetime, end: datetime) -> _Said | None:
    """What was said at the start of `day` of `[since, end)`; None if that was too early, or if it cost nothing."""
    place = (day - past.first_day).days
    if place < MIN_DAYS:
        return None
    first = max(0, (since - past.first_day).days)
    spend = past.history.spend
    spent = sum(spend[first:place], _ZERO)
    actual = spent + sum(spend[place : (end - past.first_day).days], _ZERO)
    if not actual:
        return None
    history = past.history.before(place)
    today, _ = history.days_ahead(day, day + DAY, skipped=0)
    later, _ = history.days_ahead(day + DAY, end, skipped=1)
    steps = [*today, *later]
    return _Said(
        spent + sum((step.low for step in steps), _ZERO),
        spent + sum((step.expected for step in steps), _ZERO),
        spent + sum((step.high for step in steps), _ZERO),
        actual,
    )
