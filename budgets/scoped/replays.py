"""What a budget would have done: stored events replayed against it, in the order in which they were taken.

Events are replayed as they are stored now, with the costs that they have now. Telemetry that was refused is not
stored one by one, only counted for the whole workspace: what real budgets and plans have refused is not replayed.
The kill switch is left out, too: this is what the budget itself would do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from budgets.models import Enforcement
from budgets.scoped.drafts import BudgetDraft
from budgets.scoped.replay_sources import Source, Step, Walked
from ingest.limits import OVER, Level, levels_of
from ingest.models import LedgerCoverage, Measure, Rollup, UnpricedPolicy, WorkspacePolicy
from ingest.snapshots import snapshot
from opsmeter_site.lib.periods import DAY, Period, Window, day_of, window_of

_MILLION = Decimal(1_000_000)
_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class ReplayedCrossing:
    """A threshold that would have been crossed, by the event that was received then. `share` 1: over the limit.

    `threshold_usd` is set if the threshold is one in USD.
    """

    crossed_at: datetime
    share: Decimal
    threshold_usd: Decimal | None
    level_usd: Decimal
    spend_usd: Decimal


@dataclass(frozen=True, slots=True)
class ReplayedPeriod:
    """One UTC day or month of one scope value: what came, what would have been refused, which alerts. USD.

    Also of a month that began before the days of the replay it is all of it.
    """

    window: Window
    scope_value: str
    sent_requests: int
    sent_usd: Decimal
    refused_requests: int
    refused_usd: Decimal
    crossings: tuple[ReplayedCrossing, ...]

    @property
    def told(self) -> list[ReplayedCrossing]:
        """The crossings that people would have been told: of those at one moment, the highest."""
        return list({crossing.crossed_at: crossing for crossing in self.crossings}.values())


@dataclass(frozen=True, slots=True)
class BudgetReplay:
    """The answer: every period (and value) in which something would have happened, oldest first, and sums. USD.

    USD is as the budget counts it: with its estimates for events without a price. The sums are those of all events that
    occurred in `[start, end)`, and `alerts` is how often people would have been told of crossings in it.
    `exact_from` is set if events before it are no longer stored one by one: there only the sums of quarter hours are
    known, and a quarter hour is taken as one event. `known_from` is set if of the time before it nothing is known.
    """

    draft: BudgetDraft
    start: datetime
    end: datetime
    exact_from: datetime | None
    sent_requests: int
    sent_usd: Decimal
    refused_requests: int
    refused_usd: Decimal
    alerts: int
    periods: tuple[ReplayedPeriod, ...]
    known_from: datetime | None = None


def replay_budget(workspace_id: UUID, draft: BudgetDraft, now: datetime, days: int = 30) -> BudgetReplay:
    """Replay the last `days` UTC days, the running one included, up to `now` (aware).

    A month that began earlier is replayed from its own beginning.
    """
    period = Period(draft.period)
    start = day_of(now).start - (days - 1) * DAY
    levels = levels_of(draft.limit_usd, (*draft.thresholds, OVER), draft.thresholds_usd)
    with snapshot():
        coverage = LedgerCoverage.of(workspace_id)
        policy = WorkspacePolicy.objects.get(workspace_id=workspace_id)
        periods = _periods(period, start, now)
        source = _source(draft, policy, coverage, periods, start, levels)
        requests, usd, pairs = source.added_up()
        walked = list(source.one_by_one(pairs)) if pairs else []
        exact_from, known_from = _reach(source, coverage)
    found = [_replayed(period, each, levels) for each in walked]
    return BudgetReplay(
        draft=draft,
        start=start,
        end=now,
        exact_from=exact_from,
        sent_requests=requests,
        sent_usd=usd,
        refused_requests=sum(each.shown_refused for each in walked),
        refused_usd=sum((each.shown_refused_usd for each in walked), _ZERO),
        alerts=sum(crossing.crossed_at >= start for each in found for crossing in each.told),
        periods=tuple(found),
        known_from=known_from,
    )


def _periods(period: Period, start: datetime, now: datetime) -> list[Window]:
    periods = [window_of(period, start)]
    while periods[-1].end <= now:
        periods.append(window_of(period, periods[-1].end))
    return periods


def _source(
    draft: BudgetDraft,
    policy: WorkspacePolicy,
    coverage: LedgerCoverage,
    periods: Sequence[Window],
    start: datetime,
    levels: Sequence[Level],
) -> Source:
    refuses = draft.enforcement == Enforcement.HARD
    estimates = draft.unpriced == UnpricedPolicy.ESTIMATE
    return Source(
        workspace_id=policy.workspace_id,
        kind=draft.scope_kind,
        value=draft.scope_value,
        is_each_value=draft.is_each_value,
        counted_data_modes=policy.counted_data_modes,
        periods=periods,
        shown_from=start,
        events_from=max(coverage.raw_from or periods[0].start, periods[0].start),
        limit=draft.limit_usd,
        levels=[level.amount for level in levels if level.share < OVER],
        usd_per_token=(draft.estimate_usd_per_1m or _ZERO) / _MILLION if estimates else _ZERO,
        refuses=refuses,
        blocks=refuses and draft.unpriced == UnpricedPolicy.BLOCK,
    )


def _reach(source: Source, coverage: LedgerCoverage) -> tuple[datetime | None, datetime | None]:
    """From when on the replay is exact, and from when on anything is known; None: from its beginning."""
    first = source.periods[0].start
    earlier = Rollup.objects.filter(
        workspace_id=source.workspace_id,
        data_mode__in=source.counted_data_modes,
        bucket_start__gte=first,
        bucket_start__lt=source.events_from,
    )
    lost_from = coverage.rollups_from if coverage.rollups_from and coverage.rollups_from > first else None
    if not earlier.exists():
        return lost_from, lost_from
    return source.events_from, lost_from if source.has_quarter_hours else source.events_from


def _replayed(period: Period, walked: Walked, levels: Sequence[Level]) -> ReplayedPeriod:
    return ReplayedPeriod(
        window=window_of(period, walked.pair.starts_at),
        scope_value=walked.pair.value,
        sent_requests=walked.requests,
        sent_usd=walked.usd,
        refused_requests=walked.refused,
        refused_usd=walked.refused_usd,
        crossings=tuple(crossing for step in walked.steps for crossing in _crossings(step, levels)),
    )


def _crossings(step: Step, levels: Sequence[Level]) -> list[ReplayedCrossing]:
    return [
        ReplayedCrossing(step.at, level.share, level.usd, level.amount, step.after)
        for level in levels
        if level.is_crossed(Measure.USD, step.after) and not level.is_crossed(Measure.USD, step.before)
    ]
