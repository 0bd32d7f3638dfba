"""Reading budgets, and the one answer to "where does this workspace stand?"."""

from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any
from uuid import UUID

from django.db.models import F, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce

from budgets.models import Budget, BudgetPeriod, BudgetSettings, Enforcement
from ingest.limits import has_reached, is_over, utilization
from ingest.models import DataMode, Limit, Measure, Meter, WorkspacePolicy
from ingest.standings import with_standing
from opsmeter_site.lib.errors import NotFound
from opsmeter_site.lib.periods import Period, Window, window_of

DEFAULT_WARNING_THRESHOLD = Decimal("0.8")
_RATIO_STEP = Decimal("0.0001")
_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class BudgetValues:
    """All that can be set about a workspace's budgets, with what holds when nobody set anything."""

    daily_limit_usd: Decimal | None = None
    monthly_limit_usd: Decimal | None = None
    warning_threshold_ratio: Decimal = DEFAULT_WARNING_THRESHOLD
    enforcement: str = Enforcement.SOFT.value
    observe_mode: bool = False
    counted_data_modes: tuple[str, ...] = (DataMode.REAL.value,)


@dataclass(frozen=True, slots=True)
class PlanStatus:
    """Requests of the UTC month against the plan; `limit` and `remaining` are None without a limit."""

    tier: str
    name: str
    request_count: int
    request_limit: int | None
    remaining: int | None
    is_limit_reached: bool
    is_telemetry_paused: bool
    window: Window


@dataclass(frozen=True, slots=True)
class BudgetStatus:
    """Spend of one window against its limit, in USD; without a limit nothing is near or over."""

    limit_usd: Decimal | None
    spend_usd: Decimal
    utilization_ratio: Decimal
    is_warning: bool
    is_exceeded: bool
    period: str
    window: Window


@dataclass(frozen=True, slots=True)
class WorkspaceStatus:
    """Where a workspace stands at one moment. Opsmeter is never in the path of a provider call: those always go on."""

    workspace_id: UUID
    plan: PlanStatus
    warning_threshold_ratio: Decimal
    daily: BudgetStatus
    monthly: BudgetStatus
    provider_calls_continue: bool = True

    @property
    def is_budget_warning(self) -> bool:
        """Whether any budget has reached the warning threshold."""
        return self.daily.is_warning or self.monthly.is_warning

    @property
    def is_budget_exceeded(self) -> bool:
        """Whether any budget is exceeded."""
        return self.daily.is_exceeded or self.monthly.is_exceeded

    @property
    def severity(self) -> str:
        """`normal`, `warning` or `critical`."""
        if self.is_budget_exceeded or self.plan.is_limit_reached:
            return "critical"
        return "warning" if self.is_budget_warning else "normal"


def budget_values(workspace_id: UUID) -> BudgetValues:
    """The workspace's budgets as they are set. Raises `NotFound` for a workspace without a policy."""
    row = (
        WorkspacePolicy.objects.filter(workspace_id=workspace_id)
        .annotate(
            daily_limit_usd=_budget_limit(BudgetPeriod.DAY),
            monthly_limit_usd=_budget_limit(BudgetPeriod.MONTH),
            threshold=_setting("warning_threshold_ratio"),
            enforcement=_setting("enforcement"),
        )
        .values()
        .first()
    )
    if row is None:
        raise NotFound("There is no such workspace.")
    return BudgetValues(
        daily_limit_usd=row["daily_limit_usd"],
        monthly_limit_usd=row["monthly_limit_usd"],
        warning_threshold_ratio=row["threshold"] or DEFAULT_WARNING_THRESHOLD,
        enforcement=row["enforcement"] or Enforcement.SOFT.value,
        observe_mode=row["observe_mode"],
        counted_data_modes=tuple(sorted(row["counted_data_modes"])),
    )


def workspace_status(workspace_id: UUID, now: datetime) -> WorkspaceStatus:
    """Plan, budgets and meters at `now` (aware), read in one statement and therefore from one snapshot.

    Raises `NotFound` for a workspace without a policy.
    """
    row = _snapshot(workspace_id, now)
    if row is None:
        raise NotFound("There is no such workspace.")
    threshold = row["threshold"] or DEFAULT_WARNING_THRESHOLD
    return WorkspaceStatus(
        workspace_id=workspace_id,
        plan=_plan_status(row, window_of(Period.MONTH, now)),
        warning_threshold_ratio=threshold,
        daily=_budget_status(row, "daily", threshold, window_of(Period.DAY, now)),
        monthly=_budget_status(row, "monthly", threshold, window_of(Period.MONTH, now)),
    )


def _snapshot(workspace_id: UUID, now: datetime) -> dict[str, Any] | None:
    plan_limit = _limits(Measure.REQUESTS, Period.MONTH)
    # As they are enforced: raises, estimates and adjustments included.
    daily: Any = with_standing(_limits(Measure.USD, Period.DAY), now)
    monthly: Any = with_standing(_limits(Measure.USD, Period.MONTH), now)
    rows = (
        WorkspacePolicy.objects.filter(workspace_id=workspace_id)
        .annotate(
            threshold=_setting("warning_threshold_ratio"),
            plan_limit=Subquery(plan_limit.values("amount")[:1]),
            plan_is_enforced=Subquery(plan_limit.values("enforce")[:1]),
            request_count=_meter(Measure.REQUESTS, Period.MONTH, now),
            daily_limit=Subquery(daily.values("amount_now")[:1]),
            daily_spend=Coalesce(Subquery(daily.values("used")[:1]), _meter(Measure.USD, Period.DAY, now)),
            monthly_limit=Subquery(monthly.values("amount_now")[:1]),
            monthly_spend=Coalesce(Subquery(monthly.values("used")[:1]), _meter(Measure.USD, Period.MONTH, now)),
        )
        .values()
    )
    row = rows.first()
    return None if row is None else dict(row)


def _limits(measure: Measure, period: Period) -> QuerySet[Limit]:
    """The workspace's limits of one kind, the tightest first."""
    return Limit.objects.filter(
        workspace_id=OuterRef("workspace_id"), measure=measure.value, period=period.value, scope_kind=""
    ).order_by("amount")


def _meter(measure: Measure, period: Period, now: datetime) -> Subquery:
    meters = Meter.objects.filter(
        workspace_id=OuterRef("workspace_id"),
        measure=measure.value,
        period=period.value,
        scope_kind="",
        period_start=window_of(period, now).start,
    )
    return Subquery(meters.values("value")[:1])


def _budget_limit(period: BudgetPeriod) -> Subquery:
    budgets = Budget.objects.filter(workspace_id=OuterRef("workspace_id"), scope_kind="", period=period.value)
    return Subquery(budgets.values("limit_usd")[:1])


def _setting(name: str) -> Subquery:
    settings = BudgetSettings.objects.filter(workspace_id=OuterRef("workspace_id"))
    return Subquery(settings.values(value=F(name))[:1])


def _plan_status(row: dict[str, Any], window: Window) -> PlanStatus:
    limit: Decimal | None = row["plan_limit"]
    count: Decimal = row["request_count"] or _ZERO
    is_reached = limit is not None and is_over(Measure.REQUESTS, limit, count)
    return PlanStatus(
        tier=row["plan_tier"],
        name=row["plan_name"],
        request_count=int(count),
        request_limit=None if limit is None else int(limit),
        remaining=None if limit is None else max(0, int(limit - count)),
        is_limit_reached=is_reached,
        is_telemetry_paused=is_reached and row["plan_is_enforced"],
        window=window,
    )


def _budget_status(row: dict[str, Any], period: str, threshold: Decimal, window: Window) -> BudgetStatus:
    limit: Decimal | None = row[f"{period}_limit"]
    spend: Decimal = row[f"{period}_spend"] or _ZERO
    return BudgetStatus(
        limit_usd=limit,
        spend_usd=spend,
        utilization_ratio=(_ZERO if limit is None else utilization(limit, spend).quantize(_RATIO_STEP, ROUND_HALF_UP)),
        is_warning=limit is not None and has_reached(limit, threshold, spend),
        is_exceeded=limit is not None and is_over(Measure.USD, limit, spend),
        period=period,
        window=window,
    )
