"""What stacked bars are made from: records, and the numbers that drawing, legend and table share."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from math import ceil

from opsmeter_site.lib.charts.scale import ZERO, Axis, Format, Number, exact, round_axis


@dataclass(frozen=True, slots=True)
class Series:
    """One part of every bar. `key` finds its value in `Bar.parts`; "other" takes the quiet colour and comes last."""

    key: str
    name: str
    href: str = ""
    is_other: bool = False


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar. `label` stands under the axis ("" for none), `title` and `when` ("00:00 to 24:00") describe it in full.

    `parts` are values of zero or more by series key; a missing one is zero. `href` is where a click on the bar leads.
    """

    label: str
    title: str
    when: str = ""
    parts: Mapping[str, Number] = field(default_factory=dict)
    href: str = ""
    is_running: bool = False


@dataclass(frozen=True, slots=True)
class Shade:
    """A stretch of the time axis that needs explaining, in bars from the left: 3.25 is a quarter into the fourth.

    `place` gives such positions. Shades of one `reason` look alike and share a legend entry; `detail` is said where
    the stretch touches a bar.
    """

    start: float
    end: float
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Reference:
    """A value to compare the bars with, such as a daily budget."""

    value: Number
    label: str


def place(moment: datetime, edges: Sequence[datetime]) -> float:
    """Where `moment` lies on the time axis, in bars from the left; outside of it, the nearer end.

    `edges` are the bars' starts and the end of the last one, all aware; the bars may differ in length.
    """
    index = bisect_right(edges, moment) - 1
    if index < 0:
        return 0.0
    if index >= len(edges) - 1:
        return float(len(edges) - 1)
    return index + (moment - edges[index]) / (edges[index + 1] - edges[index])


class Stack:
    """The bars in exact numbers: `columns[series][bar]`, their `totals`, the `peak` of these, and the value `axis`."""

    def __init__(
        self, series: Sequence[Series], bars: Sequence[Bar], reference: Reference | None, axis_format: Format
    ) -> None:
        self.columns = _columns(series, bars)
        self.totals = [sum((values[index] for values in self.columns), ZERO) for index in range(len(bars))]
        self.sums = [sum(values, ZERO) for values in self.columns]
        self.total = sum(self.totals, ZERO)
        self.peak = max(self.totals)
        self.reference = exact(reference.value) if reference else None
        # A line far above the bars would flatten them; then the legend alone names it.
        self.draws_reference = self.reference is not None and (not self.peak or self.reference <= 2 * self.peak)
        self.axis = self._axis(axis_format)

    def _axis(self, write: Format) -> Axis:
        top = max(self.peak, self.reference) if self.draws_reference and self.reference is not None else self.peak
        return round_axis(ZERO, top, write, is_whole=all(value % 1 == 0 for value in (*self.totals, top)))


def _columns(series: Sequence[Series], bars: Sequence[Bar]) -> list[list[Decimal]]:
    keys = {one.key for one in series}
    for bar in bars:
        if not keys.issuperset(bar.parts):
            raise ValueError(f"No series names these parts: {sorted(bar.parts.keys() - keys)}.")
    columns = [[exact(bar.parts.get(one.key, ZERO)) for bar in bars] for one in series]
    if any(value < 0 for values in columns for value in values):
        raise ValueError("A stacked bar cannot hold a negative value.")
    return columns


def remarks(bars: Sequence[Bar], shades: Sequence[Shade]) -> list[str]:
    """What there is to say about each bar beside its values; "" for most."""
    lines: list[list[str]] = [["so far"] if bar.is_running else [] for bar in bars]
    for shade in shades:
        text = f"{shade.reason} ({shade.detail})" if shade.detail else shade.reason
        for index in range(max(0, int(shade.start)), min(len(bars), ceil(shade.end))):
            lines[index].append(text)
    return ["; ".join(dict.fromkeys(of_bar)) for of_bar in lines]
