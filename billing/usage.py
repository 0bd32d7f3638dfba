"""What a workspace uses of its plan now."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from django.utils.safestring import SafeString

from billing.entitlements import LIMIT_SOURCE, LIMIT_THRESHOLDS
from ingest.limits import has_reached, is_over
from ingest.models import Limit, Measure, Meter, WorkspacePolicy
from opsmeter_site.lib import charts
from opsmeter_site.lib.periods import Period, Window, window_of
from workspaces.invitations import Places, places_of
from workspaces.models import Workspace


@dataclass(frozen=True, slots=True)
class PlanUsage:
    """Requests of the UTC month and people against the plan, and how long rows and sums are kept now."""

    requests: int
    request_limit: int | None
    window: Window
    places: Places
    requests_per_minute: int
    raw_retention_days: int
    rollup_retention_days: int

    @property
    def is_paused(self) -> bool:
        """Whether nothing is left of the month's requests."""
        limit = self.request_limit
        return limit is not None and is_over(Measure.REQUESTS, Decimal(limit), Decimal(self.requests))

    @property
    def gauge(self) -> SafeString | None:
        """The month's requests as a drawing; None without a limit."""
        return requests_gauge("Requests this month (UTC)", self.requests, self.request_limit, self.window)


def requests_gauge(
    title: str, requests: int, limit: int | None, window: Window, *, unit: str = ""
) -> SafeString | None:
    """Requests of the UTC month in `window` against the plan, as a drawing; None without a limit."""
    if limit is None:
        return None
    warn_share, _ = LIMIT_THRESHOLDS
    if is_over(Measure.REQUESTS, Decimal(limit), Decimal(requests)):
        state = charts.GaugeState.EXCEEDED
    elif has_reached(Decimal(limit), warn_share, Decimal(requests)):
        state = charts.GaugeState.WARNING
    else:
        state = charts.GaugeState.NORMAL
    return charts.gauge(
        chart_id="plan",
        title=title,
        spent=requests,
        limit=limit,
        state=state,
        value_format=lambda number: f"{int(number):,}{unit}",
        warn_at=warn_share * limit,
        note=f"{max(0, limit - requests):,} left. Starts again on {window.end:%-d %B} at 00:00 UTC.",
    )


def plan_usage(workspace: Workspace, now: datetime) -> PlanUsage:
    """What the workspace uses at `now`."""
    window = window_of(Period.MONTH, now)
    of_month = {"workspace": workspace, "measure": Measure.REQUESTS, "period": Period.MONTH}
    limit = Limit.objects.filter(**of_month, source=LIMIT_SOURCE).values_list("amount", flat=True).first()
    meters = Meter.objects.filter(**of_month, scope_kind="", period_start=window.start).values_list("value", flat=True)
    policy = WorkspacePolicy.objects.get(workspace=workspace)
    return PlanUsage(
        requests=int(meters.first() or 0),
        request_limit=None if limit is None else int(limit),
        window=window,
        places=places_of(workspace),
        requests_per_minute=policy.requests_per_minute,
        raw_retention_days=policy.raw_retention_days,
        rollup_retention_days=policy.rollup_retention_days,
    )
