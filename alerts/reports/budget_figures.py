"""Budgets in a summary: what their UTC days and month have cost, and where the running month will end."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID

from alerts.reports.figures import BudgetDay, DailyBudget, MonthForecast, MonthlyBudget
from budgets.forecast import forecast
from budgets.selectors import BudgetValues
from ingest.models import Measure, Meter
from ingest.ranges import DayRange
from opsmeter_site.lib.periods import Period, day_of, month_of

_DAY = timedelta(days=1)
_ZERO = Decimal(0)


def daily_budget(workspace_id: UUID, budget: BudgetValues, days: DayRange, now: datetime) -> DailyBudget | None:
    """The UTC days with the dates of the window, whatever its zone: those are what the budget is about."""
    if budget.daily_limit_usd is None:
        return None
    dates = [days.first_day + number * _DAY for number in range(days.days)]
    spent = _meters(workspace_id, Period.DAY, [_midnight(each) for each in dates])
    return DailyBudget(
        limit_usd=budget.daily_limit_usd,
        warning_ratio=budget.warning_threshold_ratio,
        days=tuple(
            BudgetDay(
                day=each,
                spend_usd=spent.get(_midnight(each), _ZERO),
                is_running=now < day_of(_midnight(each)).end,
            )
            for each in dates
        ),
    )


def monthly_budget(workspace_id: UUID, budget: BudgetValues, last_day: date, now: datetime) -> MonthlyBudget:
    """The UTC month of `last_day`, with or without a limit."""
    month = month_of(_midnight(last_day))
    spent = _meters(workspace_id, Period.MONTH, [month.start])
    return MonthlyBudget(
        month=month.start.date(),
        spend_usd=spent.get(month.start, _ZERO),
        limit_usd=budget.monthly_limit_usd,
        warning_ratio=budget.warning_threshold_ratio,
        is_running=now < month.end,
    )


def month_forecast(workspace_id: UUID, now: datetime) -> MonthForecast | None:
    """That of the running UTC month; None with too few days to learn from."""
    ahead = forecast(workspace_id, Period.MONTH, now)
    if ahead is None:
        return None
    return MonthForecast(
        month=ahead.window.start.date(),
        spend_usd=ahead.spend_usd,
        expected_usd=ahead.expected_usd,
        low_usd=ahead.low_usd,
        high_usd=ahead.high_usd,
        limit_usd=ahead.limit_usd,
        is_exceeded=ahead.is_exceeded,
        expected_at=ahead.expected_at,
        earliest_at=ahead.earliest_at,
    )


def _meters(workspace_id: UUID, period: Period, starts: list[datetime]) -> dict[datetime, Decimal]:
    rows = Meter.objects.filter(
        workspace_id=workspace_id, measure=Measure.USD, scope_kind="", period=period.value, period_start__in=starts
    )
    return dict(rows.values_list("period_start", "value"))


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), tzinfo=UTC)
