"""Budgets and the plan's quota as gauges: two different things, drawn apart."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from django.urls import reverse
from django.utils.safestring import SafeString

from budgets.forecast import Forecast
from budgets.selectors import BudgetStatus, WorkspaceStatus
from opsmeter_site.lib import charts, formats
from opsmeter_site.lib.periods import Period
from workspaces.access import WorkspaceAccess

_PERIODS = {"daily": (Period.DAY, "Today"), "monthly": (Period.MONTH, "This month")}


@dataclass(frozen=True, slots=True)
class BudgetGauge:
    """One budget: the drawing, or only the spend where there is no limit."""

    title: str
    status: BudgetStatus
    drawing: SafeString | None
    forecast: Forecast | None
    resets_at: datetime


def budget_gauges(
    access: WorkspaceAccess, status: WorkspaceStatus, ahead: Mapping[Period, Forecast]
) -> list[BudgetGauge]:
    """The daily and the monthly budget."""
    return [_budget_gauge(access, status, budget, ahead) for budget in (status.daily, status.monthly)]


def _budget_gauge(
    access: WorkspaceAccess, status: WorkspaceStatus, budget: BudgetStatus, ahead: Mapping[Period, Forecast]
) -> BudgetGauge:
    period, when = _PERIODS[budget.period]
    forecast = ahead.get(period)
    drawing = None
    if budget.limit_usd is not None:
        drawing = charts.gauge(
            chart_id=f"budget-{budget.period}",
            title=f"{when} (UTC)",
            spent=budget.spend_usd,
            limit=budget.limit_usd,
            state=_state(budget.is_warning, budget.is_exceeded),
            value_format=formats.usd,
            warn_at=budget.limit_usd * status.warning_threshold_ratio,
            forecast=_band(access, forecast),
            href=reverse("settings-budgets", args=[access.workspace.slug]),
        )
    return BudgetGauge(f"{when} (UTC)", budget, drawing, forecast, budget.window.end)


def _state(is_warning: bool, is_exceeded: bool) -> charts.GaugeState:
    if is_exceeded:
        return charts.GaugeState.EXCEEDED
    return charts.GaugeState.WARNING if is_warning else charts.GaugeState.NORMAL


def _band(access: WorkspaceAccess, forecast: Forecast | None) -> charts.Forecast | None:
    return None if forecast is None else charts.Forecast(forecast.low_usd, forecast.high_usd, _words(access, forecast))


def _words(access: WorkspaceAccess, forecast: Forecast) -> str:
    """The forecast in one or two sentences, times in the workspace's zone."""
    text = (
        f"Forecast for the end: {formats.usd(forecast.expected_usd)}, "
        f"probably {formats.usd(forecast.low_usd)} to {formats.usd(forecast.high_usd)}."
    )
    if forecast.exceeded_since is not None:
        return f"{text} Above the limit since {_local(access, forecast.exceeded_since)}."
    if forecast.expected_at is not None:
        return f"{text} At this pace the limit is reached {_local(access, forecast.expected_at)}."
    if forecast.earliest_at is not None:
        return f"{text} The limit could be reached {_local(access, forecast.earliest_at)} at the earliest."
    return text


def _local(access: WorkspaceAccess, moment: datetime) -> str:
    return f"{moment.astimezone(access.workspace.timezone):%-d %b, %H:%M}"


def plan_gauge(access: WorkspaceAccess, status: WorkspaceStatus) -> SafeString | None:
    """Requests of the UTC month against the plan; None without a limit."""
    plan = status.plan
    if plan.request_limit is None:
        return None
    warn_at = Decimal(plan.request_limit) * Decimal("0.8")
    return charts.gauge(
        chart_id="plan",
        title=f"{plan.name} plan, this month (UTC)",
        spent=plan.request_count,
        limit=plan.request_limit,
        state=_state(plan.request_count >= warn_at, plan.is_limit_reached),
        value_format=lambda number: f"{int(number):,} requests",
        warn_at=warn_at,
        note=f"{plan.remaining:,} left. Starts again on {plan.window.end:%-d %B} at 00:00 UTC.",
    )
