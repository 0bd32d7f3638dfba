"""One budget as a bar: what is spent, what leases hold, where the thresholds and the limit are."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from html import escape

from django.utils.safestring import SafeString

from budgets.scoped.selectors import BudgetStanding
from ingest.limits import Level
from opsmeter_site.lib.charts.gauge import GaugeState, mark, piece, stripes
from opsmeter_site.lib.charts.scale import ZERO
from opsmeter_site.lib.formats import usd, usd_exact

_SIGNS = {GaugeState.NORMAL: "✓", GaugeState.WARNING: "!", GaugeState.EXCEEDED: "✕"}
_WHOLE = Decimal(1)


def state_of(standing: BudgetStanding) -> GaugeState:
    """How a budget stands; the ledger's rules decide."""
    if standing.is_exceeded:
        return GaugeState.EXCEEDED
    return GaugeState.WARNING if standing.is_warning else GaugeState.NORMAL


def budget_gauge(gauge_id: str, name: str, standing: BudgetStanding, levels: Sequence[Level]) -> SafeString:
    """The gauge of a budget. `gauge_id` is unique on its page: letters, digits and hyphens.

    `levels` are its thresholds at the limit in force. The scale grows with spend, so that twice the limit looks so.
    """
    state = state_of(standing)
    bar = _Bar(max(standing.spend_usd, ZERO), standing.held_usd, standing.limit_usd)
    amount, of_limit = usd(standing.spend_usd), f"of {usd_exact(standing.limit_usd)}"
    held = f"{usd(bar.held)} held by leases" if bar.held else ""
    more = f" <span>+ {escape(held)}</span>" if held else ""
    marks = sorted({level.amount for level in levels if level.amount < standing.limit_usd})
    alerts = f"alerts at {', '.join(usd_exact(each) for each in marks)}" if marks else ""
    used = f"{_state_in_words(state, standing.spend_usd, marks)}, {bar.used} used"
    key = f'<span class="gauge-key">{escape(alerts)}</span>' if alerts else ""
    spoken = ". ".join(text for text in (f"{amount} {of_limit}", held, used, alerts) if text)
    return SafeString(
        f'<div class="chart-gauge budget-gauge gauge-{state}"><p class="gauge-figures">'
        f"<strong>{escape(amount)}</strong> {escape(of_limit)}{more}</p>"
        f'<div class="gauge-meter" role="meter" aria-label="{escape(name)}" aria-valuemin="0"'
        f' aria-valuemax="{bar.end:f}" aria-valuenow="{bar.spent:f}" aria-valuetext="{escape(spoken)}">'
        f"{bar.drawing(gauge_id, marks)}</div>"
        f'<p class="gauge-state"><span class="gauge-sign" aria-hidden="true">{_SIGNS[state]}</span>'
        f"<span>{used}</span>{key}</p></div>"
    )


def _state_in_words(state: GaugeState, spent: Decimal, marks: Sequence[Decimal]) -> str:
    """A budget is near its limit once the last threshold below it is passed."""
    if state != GaugeState.WARNING:
        return "Exceeded" if state == GaugeState.EXCEEDED else "Within the limit"
    passed = sum(spent >= each for each in marks)
    return "Near the limit" if passed == len(marks) else f"{passed} of {len(marks)} thresholds passed"


@dataclass(frozen=True)
class _Bar:
    spent: Decimal
    held: Decimal
    limit: Decimal

    @property
    def end(self) -> Decimal:
        """The value at the right end."""
        return max(self.spent + self.held, self.limit)

    @property
    def used(self) -> str:
        """Rounded down, so that 100% means reached, and 0% that nothing is spent."""
        whole = int(self.spent * 100 / self.limit)
        return f"{whole:,}%" if whole or not self.spent else "under 1%"

    def drawing(self, gauge_id: str, marks: Sequence[Decimal]) -> str:
        limit, spent = self.limit / self.end, self.spent / self.end
        lines = "".join(mark("gauge-warn", each / self.end) for each in marks)
        return (
            '<svg class="gauge-track" width="100%" height="12" aria-hidden="true">'
            f"{stripes(f'{gauge_id}-held')}"
            f"{piece('gauge-beyond', limit, _WHOLE)}"
            f"{piece('gauge-held', spent, spent + self.held / self.end, fill=f'url(#{gauge_id}-held)')}"
            f"{piece('gauge-spent', ZERO, spent)}{piece('gauge-excess', limit, max(limit, spent))}</svg>"
            '<svg class="gauge-marks" width="100%" height="18" aria-hidden="true">'
            f"{lines}{mark('gauge-limit', limit)}</svg>"
        )
