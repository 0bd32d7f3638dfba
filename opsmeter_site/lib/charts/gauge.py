"""A horizontal meter for a limit: what is spent, what may come, and where the marks are."""

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from html import escape

from django.utils.safestring import SafeString

from opsmeter_site.lib.charts.markup import link
from opsmeter_site.lib.charts.scale import ZERO, Format, Number, exact, percent


class GaugeState(StrEnum):
    """How a limit stands; who counts decides, not the drawing."""

    NORMAL = "normal"
    WARNING = "warning"
    EXCEEDED = "exceeded"


_STATE_WORDS = {
    GaugeState.NORMAL: "Within the limit",
    GaugeState.WARNING: "Near the limit",
    GaugeState.EXCEEDED: "Limit reached",
}
_STATE_SIGNS = {GaugeState.NORMAL: "✓", GaugeState.WARNING: "!", GaugeState.EXCEEDED: "✕"}


@dataclass(frozen=True, slots=True)
class Forecast:
    """Between which totals the period will probably end; `text` says so, with dates if there are any."""

    low: Number
    high: Number
    text: str


def gauge(
    *,
    chart_id: str,
    title: str,
    spent: Number,
    limit: Number,
    state: GaugeState,
    value_format: Format,
    warn_at: Number | None = None,
    forecast: Forecast | None = None,
    note: str = "",
    href: str = "",
) -> SafeString:
    """`spent` of `limit`, both of zero or more and in one unit, with a mark at `warn_at`.

    The scale grows with what is spent, so that twice the limit looks like it. A forecast is drawn up to twice the
    larger of both; its text has the numbers.
    """
    meter = _Meter(exact(spent), exact(limit), None if warn_at is None else exact(warn_at), forecast, value_format)
    name = escape(chart_id)
    used = f"{_STATE_WORDS[state]}{meter.used}"
    warning = "" if meter.warn_at is None else f"warning at {value_format(meter.warn_at)}"
    notes = [text for text in (forecast.text if forecast else "", note) if text]
    amount, of_limit = value_format(meter.spent), f" of {value_format(meter.limit)}"
    spoken = ". ".join(text.rstrip(".") for text in (amount + of_limit, used, warning, *notes) if text)
    below = "".join(f'<p class="chart-note">{escape(text)}</p>' for text in notes)
    key = f'<span class="gauge-key">{escape(warning)}</span>' if warning else ""
    return SafeString(
        f'<figure class="chart chart-gauge gauge-{state}" id="{name}">'
        f'<figcaption><span class="chart-title" id="{name}-title">{link(title, href)}</span>'
        f'<span class="gauge-figures"><strong>{escape(amount)}</strong>{escape(of_limit)}</span>'
        f'</figcaption><div class="gauge-meter" role="meter" aria-labelledby="{name}-title" aria-valuemin="0"'
        f' aria-valuemax="{meter.end:f}" aria-valuenow="{meter.spent:f}" aria-valuetext="{escape(spoken)}">'
        f"{meter.drawing(name)}</div>"
        f'<p class="gauge-state"><span class="gauge-sign" aria-hidden="true">{_STATE_SIGNS[state]}</span>'
        f"<span>{escape(used)}</span>{key}</p>"
        f"{below}</figure>"
    )


@dataclass(frozen=True)
class _Meter:
    spent: Decimal
    limit: Decimal
    warn_at: Decimal | None
    forecast: Forecast | None
    write: Format

    @property
    def end(self) -> Decimal:
        """The value at the right end of the scale."""
        largest = max(self.spent, self.limit)
        if self.forecast:
            largest = max(largest, min(exact(self.forecast.high), 2 * largest))
        return largest or Decimal(1)

    @property
    def used(self) -> str:
        """Rounded down, so that 100% means reached."""
        return f", {int(self.spent * 100 / self.limit):,}% used" if self.limit else ""

    def drawing(self, chart_id: str) -> str:
        """`chart_id` is safe HTML."""
        limit = self.limit / self.end
        return (
            '<svg class="gauge-track" width="100%" height="12" aria-hidden="true">'
            f"{piece('gauge-beyond', limit, Decimal(1))}{self._forecast(chart_id)}"
            f"{piece('gauge-spent', ZERO, self.spent / self.end)}"
            f"{piece('gauge-excess', limit, max(limit, self.spent / self.end))}</svg>"
            f'<svg class="gauge-marks" width="100%" height="36" aria-hidden="true">{self._marks()}</svg>'
        )

    def _forecast(self, chart_id: str) -> str:
        """From what is spent to the low end a plain band, from there to the high end a striped one."""
        if not self.forecast:
            return ""
        spent = self.spent / self.end
        ends = (exact(self.forecast.low), exact(self.forecast.high))
        low, high = (min(max(end / self.end, spent), Decimal(1)) for end in ends)
        return (
            f"{stripes(f'{chart_id}-forecast')}"
            f"{piece('gauge-sure', spent, low)}"
            f"{piece('gauge-maybe', low, high, fill=f'url(#{chart_id}-forecast)')}"
        )

    def _marks(self) -> str:
        share = self.limit / self.end
        anchor = "end" if share > Decimal("0.7") else "start" if share < Decimal("0.3") else "middle"
        text = f'<text x="{percent(share)}" y="32" text-anchor="{anchor}">limit {escape(self.write(self.limit))}</text>'
        warn = "" if self.warn_at is None else mark("gauge-warn", min(self.warn_at / self.end, Decimal(1)))
        return warn + mark("gauge-limit", share) + text


def stripes(pattern_id: str) -> str:
    """The pattern of what is not spent yet; a piece of the track is filled with it by its id."""
    return (
        f'<pattern id="{pattern_id}" width="6" height="6" patternUnits="userSpaceOnUse"'
        ' patternTransform="rotate(45)"><rect class="gauge-stripe" width="2.5" height="6"/></pattern>'
    )


def piece(name: str, start: Decimal, end: Decimal, fill: str = "") -> str:
    """A stretch of the track; both ends are shares of it."""
    paint = f' fill="{fill}"' if fill else ""
    where = f'x="{percent(start)}" y="0" width="{percent(end - start)}" height="12"'
    return f'<rect class="{name}" {where}{paint}/>' if end > start else ""


def mark(name: str, share: Decimal) -> str:
    """A line across the track, at a share of it."""
    x = percent(share)
    return f'<line class="{name}" x1="{x}" x2="{x}" y1="0" y2="18"/>'
