"""What other budgets would have done: the last days replayed against a proposal, quarter hour by quarter hour.

Within a quarter hour the order of events is not known. The replay accepts the whole quarter hour in which a limit is
crossed, and refuses from the next one on; what may have been refused of the crossing one is kept apart, as unsure.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import chain
from typing import NamedTuple
from uuid import UUID

from django.db.models import Sum

from budgets.models import Enforcement
from budgets.selectors import BudgetValues
from ingest.limits import OVER, Level
from ingest.models import Measure, Refusal, RefusalReason, Rollup
from opsmeter_site.lib.periods import Period, Window, window_of

DAYS = 30
_DAY = timedelta(days=1)
_ZERO = Decimal(0)


class Tally(NamedTuple):
    """Some events: how many, and their cost in USD (unpriced ones cost nothing)."""

    requests: int = 0
    usd: Decimal = _ZERO

    def plus(self, other: "Tally") -> "Tally":
        """Both together."""
        return Tally(self.requests + other.requests, self.usd + other.usd)


_NOTHING = Tally()


class QuarterHour(NamedTuple):
    """What a workspace sent in one UTC quarter hour, counted data modes only."""

    start: datetime
    sent: Tally


@dataclass(slots=True)
class Replayed:
    """One UTC day or month under the proposal.

    `sent` is what came, `accepted_usd` what the meter would show. `warned_at` and `exceeded_at` are the quarter hours
    in which alerts would have been raised. `refused` is what would have been turned away, `unsure` what may have been
    besides, in the quarter hour of the crossing; both only in a replay that enforces.
    """

    window: Window
    limit_usd: Decimal | None
    warning_threshold_ratio: Decimal
    sent: Tally = _NOTHING
    accepted_usd: Decimal = _ZERO
    warned_at: datetime | None = None
    exceeded_at: datetime | None = None
    refused: Tally = _NOTHING
    unsure: Tally = _NOTHING

    @property
    def is_exceeded(self) -> bool:
        """Whether spend is above the limit by now."""
        return self.exceeded_at is not None

    def accept(self, quarter: QuarterHour) -> Decimal:
        """Count a whole quarter hour; answers by how much it went above the limit, 0 unless it crossed it."""
        self.accepted_usd += quarter.sent.usd
        if self.limit_usd is None or self.exceeded_at is not None:
            return _ZERO
        threshold = self.warning_threshold_ratio
        # A threshold of 1 is no warning of its own: the one alert is that the limit is exceeded.
        if self.warned_at is None and threshold < OVER and self._has_crossed(threshold):
            self.warned_at = quarter.start
        if not self._has_crossed(OVER):
            return _ZERO
        self.exceeded_at = quarter.start
        return self.accepted_usd - self.limit_usd

    def _has_crossed(self, threshold: Decimal) -> bool:
        if self.limit_usd is None:
            return False
        return Level(threshold, threshold * self.limit_usd).is_crossed(Measure.USD, self.accepted_usd)


@dataclass(frozen=True, slots=True)
class Replay:
    """The days of `[start, end)` and the months that they belong to, oldest first.

    There are months only where they have a limit; each is replayed from its own beginning, also where that is before
    `start`.
    """

    start: datetime
    end: datetime
    is_enforced: bool
    days: list[Replayed]
    months: list[Replayed]

    @property
    def warned(self) -> list[Replayed]:
        """The days and months whose warning would have come in these days."""
        return [each for each in self._periods() if each.warned_at is not None and each.warned_at >= self.start]

    @property
    def exceeded(self) -> list[Replayed]:
        """The days and months whose limit would have been exceeded in these days."""
        return [each for each in self._periods() if each.exceeded_at is not None and each.exceeded_at >= self.start]

    @property
    def sent(self) -> Tally:
        """All that came in these days."""
        return _sum(day.sent for day in self.days)

    @property
    def refused(self) -> Tally:
        """What would have been turned away for certain."""
        return _sum(day.refused for day in self.days)

    @property
    def unsure(self) -> Tally:
        """What may have been turned away besides."""
        return _sum(day.unsure for day in self.days)

    def _periods(self) -> Iterator[Replayed]:
        return chain(self.days, self.months)


@dataclass(frozen=True, slots=True)
class Simulation:
    """The proposal as it stands, and the same limits with a hard stop: one and the same if it has one already."""

    proposal: BudgetValues
    replay: Replay
    with_hard_stop: Replay


def simulate(workspace_id: UUID, proposal: BudgetValues, now: datetime, days: int = DAYS) -> Simulation:
    """Replay the last `days` UTC days, the running one included, up to `now` (aware) against `proposal`.

    What budgets refused in reality is replayed too; what the plan's limit refused is not, since no budget changes that.
    """
    start = window_of(Period.DAY, now).start - (days - 1) * _DAY
    # A month that began earlier has to be replayed from its own beginning, if it has a limit.
    first = start if proposal.monthly_limit_usd is None else window_of(Period.MONTH, start).start
    quarters = _quarter_hours(workspace_id, proposal.counted_data_modes, first, now)
    with_hard_stop = replay(quarters, proposal, start, now, is_enforced=True)
    as_it_stands = with_hard_stop
    if not refuses_telemetry(proposal):
        as_it_stands = replay(quarters, proposal, start, now, is_enforced=False)
    return Simulation(proposal, as_it_stands, with_hard_stop)


def refuses_telemetry(values: BudgetValues) -> bool:
    """Whether budgets with these values are enforced."""
    return values.enforcement == Enforcement.HARD and not values.observe_mode


def replay(
    quarters: Sequence[QuarterHour], proposal: BudgetValues, start: datetime, now: datetime, *, is_enforced: bool
) -> Replay:
    """Count `quarters`, which are in order, one after the other. Pure."""
    days = _opened(Period.DAY, proposal.daily_limit_usd, proposal, start, now)
    months = {}
    if proposal.monthly_limit_usd is not None:
        months = _opened(Period.MONTH, proposal.monthly_limit_usd, proposal, start, now)
    for quarter in quarters:
        day = days[window_of(Period.DAY, quarter.start).start]
        month = months.get(window_of(Period.MONTH, quarter.start).start)
        _count(quarter, [day, month] if month else [day], is_enforced=is_enforced)
    return Replay(
        start=start,
        end=now,
        is_enforced=is_enforced,
        days=[day for begin, day in days.items() if begin >= start],
        months=list(months.values()),
    )


def _count(quarter: QuarterHour, periods: Sequence[Replayed], *, is_enforced: bool) -> None:
    is_refused = is_enforced and any(period.is_exceeded for period in periods)
    above = _ZERO if is_refused else max(period.accept(quarter) for period in periods)
    others = quarter.sent.requests - 1  # The event that crosses is taken.
    for period in periods:
        period.sent = period.sent.plus(quarter.sent)
        if is_refused:
            period.refused = period.refused.plus(quarter.sent)
        elif above and is_enforced and others:
            period.unsure = period.unsure.plus(Tally(others, above))


def _opened(
    period: Period, limit_usd: Decimal | None, proposal: BudgetValues, start: datetime, now: datetime
) -> dict[datetime, Replayed]:
    """Every `period` from the month of `start` to `now`, by its beginning, with nothing counted yet."""
    opened = {}
    moment = window_of(Period.MONTH, start).start
    while moment <= now:
        window = window_of(period, moment)
        opened[window.start] = Replayed(window, limit_usd, proposal.warning_threshold_ratio)
        moment = window.end
    return opened


def _quarter_hours(workspace_id: UUID, data_modes: Sequence[str], first: datetime, now: datetime) -> list[QuarterHour]:
    """What came from `first` to `now`: counted roll-ups, and what budgets refused (which is not split by data mode)."""
    when = {"workspace_id": workspace_id, "bucket_start__gte": first, "bucket_start__lte": now}
    sent: dict[datetime, Tally] = {}
    for rows in (
        Rollup.objects.filter(**when, data_mode__in=data_modes),
        Refusal.objects.filter(**when, reason=RefusalReason.BUDGET_EXCEEDED),
    ):
        sums = rows.values_list("bucket_start").annotate(Sum("requests"), Sum("cost_usd")).order_by()
        for start, requests, usd in sums:
            sent[start] = sent.get(start, _NOTHING).plus(Tally(int(requests), usd))
    return [QuarterHour(start, sent[start]) for start in sorted(sent)]


def _sum(tallies: Iterable[Tally]) -> Tally:
    total = _NOTHING
    for tally in tallies:
        total = total.plus(tally)
    return total
