"""What the editor says beside the form: what a budget would have done in the last days."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from budgets.gauges import moment_in_words
from budgets.models import BudgetPeriod, Enforcement
from budgets.scoped.drafts import BudgetDraft
from budgets.scoped.replays import BudgetReplay, ReplayedCrossing, ReplayedPeriod, replay_budget
from ingest.limits import OVER
from ingest.scope_words import value_in_words
from opsmeter_site.lib.formats import usd
from workspaces.models import Workspace

MOST_ROWS = 12
MOST_VALUES = 10
_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Row:
    """One period of one value in which something would have happened. Times are UTC, as the periods are."""

    label: str
    value: str
    period: ReplayedPeriod
    crossings: Sequence[str]


@dataclass(frozen=True, slots=True)
class ValueSum:
    """What one value would have caused."""

    name: str
    alerts: int
    refused_requests: int
    refused_usd: Decimal


@dataclass(frozen=True, slots=True)
class Simulated:
    """A replay made ready for the page."""

    replay: BudgetReplay
    days: int
    warnings: int
    exceeded: int
    rows: Sequence[Row]
    more_rows: int
    values: Sequence[ValueSum]
    more_values: int
    exactness: str

    @property
    def is_hard(self) -> bool:
        """Whether it would have refused anything."""
        return self.replay.draft.enforcement == Enforcement.HARD


def simulated(workspace: Workspace, draft: BudgetDraft, days: int, keys: Mapping[str, str], now: datetime) -> Simulated:
    """The last `days` UTC days under `draft`."""
    replay = replay_budget(workspace.pk, draft, now, days)
    periods = [each for each in replay.periods if each.crossings or each.refused_requests]
    periods.sort(key=lambda each: (each.window.start, each.refused_usd, each.sent_usd), reverse=True)
    crossings = [crossing for each in periods for crossing in each.told if crossing.crossed_at >= replay.start]
    sums = _by_value(draft, periods, keys) if draft.is_each_value else []
    exceeded = sum(crossing.share >= OVER for crossing in crossings)
    return Simulated(
        replay=replay,
        days=days,
        warnings=len(crossings) - exceeded,
        exceeded=exceeded,
        rows=[_row(draft, each, keys) for each in periods[:MOST_ROWS]],
        more_rows=max(0, len(periods) - MOST_ROWS),
        values=sums[:MOST_VALUES],
        more_values=max(0, len(sums) - MOST_VALUES),
        exactness=_exactness(replay, workspace),
    )


def _row(draft: BudgetDraft, period: ReplayedPeriod, keys: Mapping[str, str]) -> Row:
    is_day = draft.period == BudgetPeriod.DAY
    return Row(
        label=f"{period.window.start:%a %-d %b}" if is_day else f"{period.window.start:%b %Y}",
        value=value_in_words(draft.scope_kind, period.scope_value, keys) if draft.is_each_value else "",
        period=period,
        crossings=_crossings(period),
    )


def _crossings(period: ReplayedPeriod) -> list[str]:
    """Of those within one minute the highest: events may be sent all at once."""
    highest = {each.crossed_at.replace(second=0, microsecond=0): each for each in period.crossings}
    return [_crossing(each, period) for each in highest.values()]


def _crossing(crossing: ReplayedCrossing, period: ReplayedPeriod) -> str:
    """With its day, unless that is the period: events may be sent days after they occurred."""
    what = "Exceeded" if crossing.share >= OVER else f"{usd(crossing.level_usd)} reached"
    is_same_day = crossing.crossed_at.astimezone(UTC).date() == period.window.start.date()
    return f"{what} {crossing.crossed_at.astimezone(UTC):{'%H:%M' if is_same_day else '%-d %b, %H:%M'}}"


def _by_value(draft: BudgetDraft, periods: Sequence[ReplayedPeriod], keys: Mapping[str, str]) -> list[ValueSum]:
    """The values that would have caused most, first."""
    grouped: dict[str, list[ReplayedPeriod]] = {}
    for each in periods:
        grouped.setdefault(each.scope_value, []).append(each)
    sums = [
        ValueSum(
            name=value_in_words(draft.scope_kind, value, keys),
            alerts=sum(len(each.told) for each in found),
            refused_requests=sum(each.refused_requests for each in found),
            refused_usd=sum((each.refused_usd for each in found), _ZERO),
        )
        for value, found in grouped.items()
    ]
    return sorted(sums, key=lambda each: (-each.refused_usd, -each.alerts, each.name))


def _exactness(replay: BudgetReplay, workspace: Workspace) -> str:
    if replay.exact_from is None:
        return "Exact: every stored request was replayed in the order in which it was taken."
    exact = f"Exact from {moment_in_words(replay.exact_from, workspace.timezone)} on"
    if replay.known_from == replay.exact_from:
        return f"{exact}; what came before is no longer stored."
    sums = f"{exact}; before that, from the sums of quarter hours, each taken as one request."
    if replay.known_from is None:
        return sums
    return f"{sums} These are stored from {moment_in_words(replay.known_from, workspace.timezone)} on."
