"""A budget as pages show it: the gauge, when its period ends, and the forecast in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from django.utils.safestring import SafeString

from budgets.day_rule import MIN_DAYS
from budgets.forecast import Forecast
from budgets.selectors import BudgetStatus, WorkspaceStatus
from opsmeter_site.lib import charts
from opsmeter_site.lib.formats import usd
from opsmeter_site.lib.periods import Period

_TITLES = {Period.DAY: "Daily budget", Period.MONTH: "Monthly budget"}


@dataclass(frozen=True, slots=True)
class BudgetGauge:
    """One budget for a page. `drawing` is None without a limit; the words are there in any case."""

    period: Period
    title: str
    status: BudgetStatus
    forecast: Forecast | None
    drawing: SafeString | None
    forecast_text: str
    ends_text: str


def budget_gauges(
    status: WorkspaceStatus, ahead: Mapping[Period, Forecast], zone: ZoneInfo, now: datetime, *, href: str = ""
) -> list[BudgetGauge]:
    """The gauges of the running UTC day and month, with the forecasts `ahead`; `href` is where their titles lead."""
    both = {Period.DAY: status.daily, Period.MONTH: status.monthly}
    return [_gauge(period, budget, ahead.get(period), status, zone, now, href) for period, budget in both.items()]


def moment_in_words(moment: datetime, zone: ZoneInfo, *, with_year: bool = False) -> str:
    """`moment` in UTC and, where that differs, in `zone`: "00:00 UTC on 1 December (01:00 in Europe/Berlin)"."""
    utc, there = moment.astimezone(UTC), moment.astimezone(zone)
    day_format = "%-d %B %Y" if with_year else "%-d %B"
    text = f"{utc:%H:%M} UTC on {utc:{day_format}}"
    if there.utcoffset() == utc.utcoffset():
        return text
    day = "" if there.date() == utc.date() else f" on {there:{day_format}}"
    return f"{text} ({there:%H:%M}{day} in {zone.key})"


def _gauge(
    period: Period,
    budget: BudgetStatus,
    forecast: Forecast | None,
    status: WorkspaceStatus,
    zone: ZoneInfo,
    now: datetime,
    href: str,
) -> BudgetGauge:
    text = _in_words(forecast, zone, now) if forecast else f"No forecast yet: it needs {MIN_DAYS} whole UTC days."
    ends = f"A new {period} begins at {moment_in_words(budget.window.end, zone)}."
    drawing = None
    if budget.limit_usd is not None:
        drawing = charts.gauge(
            chart_id=f"budget-{period}",
            title=_TITLES[period],
            spent=budget.spend_usd,
            limit=budget.limit_usd,
            state=_state(budget),
            value_format=usd,
            warn_at=budget.limit_usd * status.warning_threshold_ratio,
            forecast=charts.Forecast(forecast.low_usd, forecast.high_usd, text) if forecast else None,
            note=ends if forecast else f"{text} {ends}",
            href=href,
        )
    return BudgetGauge(period, _TITLES[period], budget, forecast, drawing, text, ends)


def _state(budget: BudgetStatus) -> charts.GaugeState:
    if budget.is_exceeded:
        return charts.GaugeState.EXCEEDED
    return charts.GaugeState.WARNING if budget.is_warning else charts.GaugeState.NORMAL


def _in_words(forecast: Forecast, zone: ZoneInfo, now: datetime) -> str:
    text = (
        f"By the end of the {forecast.period}: {usd(forecast.expected_usd)} expected, "
        f"between {usd(forecast.low_usd)} and {usd(forecast.high_usd)}."
    )
    if forecast.limit_usd is None:
        return text
    return f"{text} {_about_the_limit(forecast, zone, now)}"


def _about_the_limit(forecast: Forecast, zone: ZoneInfo, now: datetime) -> str:
    if forecast.is_exceeded:
        since = forecast.exceeded_since
        return f"Above the limit since {moment_in_words(since, zone)}." if since else "Above the limit."
    if forecast.earliest_at is None:
        return "The limit is not expected to be reached."
    earliest = _about(forecast.earliest_at, zone, now)
    if forecast.expected_at is None:
        return f"The limit may be reached, at the earliest {earliest}."
    expected = _about(forecast.expected_at, zone, now)
    more = "" if expected == earliest else f", at the earliest {earliest}"
    return f"The limit is expected to be reached {expected}{more}."


def _about(moment: datetime, zone: ZoneInfo, now: datetime) -> str:
    """A time of day for today; for later days the day, since more would be made up."""
    if moment.astimezone(UTC).date() == now.astimezone(UTC).date():
        return f"at about {moment_in_words(moment, zone)}"
    return f"on about {moment.astimezone(UTC):%-d %B}"
