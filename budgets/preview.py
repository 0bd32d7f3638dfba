"""What proposed budgets would have done in the last 30 days, as the settings page shows it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from statistics import quantiles
from uuid import UUID

from django.utils.safestring import SafeString

from budgets.selectors import BudgetValues
from budgets.simulator import Replay, Replayed, Simulation, Tally, simulate
from opsmeter_site.lib import charts
from opsmeter_site.lib.formats import usd

# Room above what was usual: a limit should stop the unusual.
_ROOM = Decimal("1.3")
_MIN_DAYS = 3
_DAYS_OF_MONTH = 30
_DAY = timedelta(days=1)
_NOTHING = Tally()


@dataclass(frozen=True, slots=True)
class PreviewRow:
    """A UTC day or month in which something would have happened. Times are text; `refused` is that of a hard stop."""

    label: str
    sent_usd: Decimal
    warned: str
    exceeded: str
    refused: Tally


@dataclass(frozen=True, slots=True)
class Preview:
    """The replay of a proposal, made ready for the page. USD; suggestions only where there is no limit."""

    simulation: Simulation
    rows: list[PreviewRow]
    chart: SafeString
    daily_suggestion: Decimal | None
    monthly_suggestion: Decimal | None

    @property
    def replay(self) -> Replay:
        """The proposal as it stands."""
        return self.simulation.replay

    @property
    def refused(self) -> Tally:
        """What a hard stop would have refused."""
        return self.simulation.with_hard_stop.refused

    @property
    def unsure(self) -> Tally:
        """What a hard stop may have refused besides."""
        return self.simulation.with_hard_stop.unsure

    @property
    def days(self) -> str:
        """The first and the last day, in words."""
        return f"{self.replay.start:%-d %B} to {self.replay.end:%-d %B}"

    @property
    def has_limit(self) -> bool:
        """Whether there is anything to exceed."""
        proposal = self.simulation.proposal
        return proposal.daily_limit_usd is not None or proposal.monthly_limit_usd is not None


def preview(workspace_id: UUID, proposal: BudgetValues, now: datetime) -> Preview:
    """The last 30 UTC days, the running one included, under `proposal`."""
    simulation = simulate(workspace_id, proposal, now)
    days = _whole_days(simulation.replay)
    return Preview(
        simulation=simulation,
        rows=_rows(simulation),
        chart=_chart(simulation, now),
        daily_suggestion=_daily_suggestion(days) if proposal.daily_limit_usd is None else None,
        monthly_suggestion=_monthly_suggestion(days) if proposal.monthly_limit_usd is None else None,
    )


def _rows(simulation: Simulation) -> list[PreviewRow]:
    """The newest first, months before days."""
    replay, hard = simulation.replay, simulation.with_hard_stop
    months = _alerted(replay.months, hard.months, "%b %Y", "%-d %b, %H:%M")
    return [*months, *_alerted(replay.days, hard.days, "%a %-d %b", "%H:%M")]


def _alerted(
    replayed: Sequence[Replayed], under_hard_stop: Sequence[Replayed], label_format: str, time_format: str
) -> list[PreviewRow]:
    rows = [
        PreviewRow(
            label=f"{each.window.start:{label_format}}",
            sent_usd=each.sent.usd,
            warned=f"{each.warned_at:{time_format}}" if each.warned_at else "",
            exceeded=f"{each.exceeded_at:{time_format}}" if each.exceeded_at else "",
            refused=hard.refused,
        )
        for each, hard in zip(replayed, under_hard_stop, strict=True)
        if each.warned_at or each.exceeded_at or hard.refused != _NOTHING
    ]
    return rows[::-1]


def _chart(simulation: Simulation, now: datetime) -> SafeString:
    replay, limit = simulation.replay, simulation.proposal.daily_limit_usd
    series = [charts.Series("stored", "Counted spend")]
    if replay.is_enforced:
        series.append(charts.Series("refused", "Refused by the hard stop", is_other=True))
    # A part needs its series, and without a hard stop there is none for what is refused.
    keys = [one.key for one in series]
    bars = [
        charts.Bar(
            label=f"{day.window.start:%-d %b}",
            title=f"{day.window.start:%a %-d %b %Y}",
            parts=dict(zip(keys, (day.sent.usd - day.refused.usd, day.refused.usd), strict=False)),
            is_running=now < day.window.end,
        )
        for day in replay.days
    ]
    return charts.stacked_bars(
        chart_id="preview-days",
        title="Spend of each UTC day",
        series=series,
        bars=bars,
        axis_format=charts.short_usd,
        value_format=usd,
        reference=None if limit is None else charts.Reference(limit, "Daily limit"),
        empty="No spend that counts in these days.",
    )


def _whole_days(replay: Replay) -> list[Decimal]:
    """What was sent on each whole day since the first one with spend."""
    days = [day.sent.usd for day in replay.days if day.window.end <= replay.end]
    first = next((place for place, amount in enumerate(days) if amount), len(days))
    return days[first:]


def _daily_suggestion(days: Sequence[Decimal]) -> Decimal | None:
    """Above a busy day (the 90th percentile)."""
    return _rounded(quantiles(days, n=10, method="inclusive")[-1] * _ROOM) if len(days) >= _MIN_DAYS else None


def _monthly_suggestion(days: Sequence[Decimal]) -> Decimal | None:
    """Above 30 average days."""
    return _rounded(sum(days, Decimal(0)) / len(days) * _DAYS_OF_MONTH * _ROOM) if len(days) >= _MIN_DAYS else None


def _rounded(amount: Decimal) -> Decimal | None:
    """Up to two digits that say something, and to whole cents."""
    if not amount:
        return None
    step = max(Decimal(1).scaleb(amount.adjusted() - 1), Decimal("0.01"))
    return Decimal(f"{(amount / step).to_integral_value(ROUND_CEILING) * step:f}")
