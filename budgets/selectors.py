"""Reading budgets, and the one answer to "where does this workspace stand?"."""

from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import F, OuterRef, Subquery

from budgets.models import Budget, BudgetPeriod, BudgetSettings, Enforcement
from ingest.limits import has_reached, is_over, utilization
from ingest.models import DataMode, Measure, WorkspacePolicy
from ingest.standings import USED_SQL
from opsmeter_site.lib.errors import NotFound
from opsmeter_site.lib.periods import Period, Window, window_of

DEFAULT_WARNING_THRESHOLD = Decimal("0.8")
_RATIO_STEP = Decimal("0.0001")
_ZERO = Decimal(0)


def _limit_sql(measure: Measure, period: Period) -> str:
    """The tightest limit of one kind, as it is enforced: raises, estimates and adjustments included."""
    return f"""
    LEFT JOIN LATERAL (
        SELECT CASE WHEN l.raised_until > %(now)s THEN l.raised_amount ELSE l.amount END AS amount, l.enforce,
            {USED_SQL} AS used
        FROM ingest_limit AS l
        WHERE l.workspace_id = policy.workspace_id AND l.measure = '{measure}' AND l.period = '{period}'
            AND l.scope_kind = ''
        ORDER BY l.amount LIMIT 1
    )"""  # noqa: S608 (only constants are put in, also below)


def _meter_sql(measure: Measure, period: Period) -> str:
    return f"""(
        SELECT value FROM ingest_meter
        WHERE workspace_id = policy.workspace_id AND measure = '{measure}' AND period = '{period}' AND scope_kind = ''
            AND period_start = %({period}_start)s
    )"""  # noqa: S608


# Written out: every page of the console asks it, and the ORM takes longer to build it than PostgreSQL to answer.
_SNAPSHOT = f"""
SELECT policy.plan_tier, policy.plan_name, settings.warning_threshold_ratio AS threshold,
    plan.amount AS plan_limit, plan.enforce AS plan_is_enforced,
    {_meter_sql(Measure.REQUESTS, Period.MONTH)} AS request_count,
    daily.amount AS daily_limit, coalesce(daily.used, {_meter_sql(Measure.USD, Period.DAY)}) AS daily_spend,
    monthly.amount AS monthly_limit, coalesce(monthly.used, {_meter_sql(Measure.USD, Period.MONTH)}) AS monthly_spend
FROM ingest_workspacepolicy AS policy
    LEFT JOIN budgets_budgetsettings AS settings ON settings.workspace_id = policy.workspace_id
    {_limit_sql(Measure.REQUESTS, Period.MONTH)} AS plan ON true
    {_limit_sql(Measure.USD, Period.DAY)} AS daily ON true
    {_limit_sql(Measure.USD, Period.MONTH)} AS monthly ON true
WHERE policy.workspace_id = %(workspace)s
"""  # noqa: S608


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
    day, month = (window_of(period, now).start for period in (Period.DAY, Period.MONTH))
    with connection.cursor() as cursor:
        cursor.execute(_SNAPSHOT, {"workspace": workspace_id, "now": now, "day_start": day, "month_start": month})
        row = cursor.fetchone()
        names = [column.name for column in cursor.description]
    return None if row is None else dict(zip(names, row, strict=True))


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
