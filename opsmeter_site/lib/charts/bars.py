"""Bars over time, stacked by a dimension."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from html import escape

from django.utils.safestring import SafeString

from opsmeter_site.lib.charts.markup import Frame, colour, grid_lines, link
from opsmeter_site.lib.charts.scale import ZERO, Format, label_steps, percent
from opsmeter_site.lib.charts.stack import Bar, Reference, Series, Shade, Stack, remarks
from opsmeter_site.lib.formats import NOTHING

# The drawing's own units: a bar's slot is 100 wide, the plot is 10,000 high. Only the browser knows pixels.
_SLOT = 100
_HEIGHT = 10_000
# Widths of the plot (pixels) at which more labels appear under it; `charts.css` has the same steps.
_LABEL_WIDTHS = (280, 560, 860)
_LABEL_CLASSES = ("", ' class="from-wide"', ' class="from-widest"')
_SHADE_LOOKS = ("shade-1", "shade-2")


def stacked_bars(
    *,
    chart_id: str,
    title: str,
    series: Sequence[Series],
    bars: Sequence[Bar],
    axis_format: Format,
    value_format: Format,
    shades: Sequence[Shade] = (),
    reference: Reference | None = None,
    empty: str = "Nothing in this range.",
    note: str = "",
    shows_title: bool = True,
) -> SafeString:
    """Bars from left to right, each stacked in the order of `series`.

    `axis_format` writes the round values at the axis, `value_format` those in legend, tooltip and table. `empty` is
    said where there are no bars or all are zero, `note` below the legend. Raises `ValueError` for a negative value and
    for a part that no series names.
    """
    frame = Frame(chart_id, title, shows_title)
    if not bars:
        return frame.nothing("bars", empty)
    stack = Stack(series, bars, reference, axis_format)
    chart = _Chart(frame, series, bars, shades, reference, stack, value_format)
    is_empty = not stack.peak
    over = f'<p class="chart-over" aria-hidden="true">{escape(empty)}</p>' if is_empty else ""
    below = f'<p class="chart-note">{escape(note)}</p>' if note else ""
    return frame.figure(
        "bars",
        empty if is_empty else chart.in_words(),
        f'<div class="chart-frame"><div class="chart-y" aria-hidden="true">{chart.axis_labels()}</div>'
        f'<div class="chart-area">{chart.drawing()}{over}</div>{chart.bar_labels()}</div>'
        f"{chart.legend()}{below}{chart.table()}",
    )


@dataclass(frozen=True)
class _Chart:
    """The pieces of one chart."""

    frame: Frame
    series: Sequence[Series]
    bars: Sequence[Bar]
    shades: Sequence[Shade]
    reference: Reference | None
    stack: Stack
    write: Format

    @cached_property
    def colours(self) -> list[str]:
        return [colour(index, is_other=one.is_other) for index, one in enumerate(self.series)]

    @cached_property
    def looks(self) -> dict[str, str]:
        """The class of each reason for shading, in order of appearance."""
        reasons = dict.fromkeys(shade.reason for shade in self.shades)
        return {reason: _SHADE_LOOKS[index % len(_SHADE_LOOKS)] for index, reason in enumerate(reasons)}

    @cached_property
    def bar_width(self) -> int:
        # Few bars would be slabs, and very many would be hairlines between hairline gaps.
        count = len(self.bars)
        return _SLOT if count > 120 else min(76, 8 * count)

    @cached_property
    def is_running(self) -> bool:
        return any(bar.is_running for bar in self.bars)

    def in_words(self) -> str:
        highest = self.bars[self.stack.totals.index(self.stack.peak)]
        return (
            f"{len(self.bars)} bar{'' if len(self.bars) == 1 else 's'}, in total {self.write(self.stack.total)}. "
            f"Highest: {highest.title}, {self.write(self.stack.peak)}. "
            "The left and right arrow keys read the bars one by one."
        )

    def axis_labels(self) -> str:
        return "".join(f"<span>{escape(label)}</span>" for _, label in self.stack.axis.ticks)

    def bar_labels(self) -> str:
        """Texts under the axis, thinned out so that they do not collide on a phone, a tablet or a wide screen."""
        shown = [index for index, bar in enumerate(self.bars) if bar.label]
        longest = max((len(self.bars[index].label) for index in shown), default=0)
        steps = label_steps(len(shown), longest, _LABEL_WIDTHS)
        texts = []
        for rank, index in enumerate(shown):
            level = next((level for level, step in enumerate(steps) if rank % step == 0), None)
            if level is not None:
                texts.append(self._bar_label(index, level, longest))
        return f'<svg class="chart-x" width="100%" height="22" aria-hidden="true">{"".join(texts)}</svg>'

    def _bar_label(self, index: int, level: int, longest: int) -> str:
        count, text = len(self.bars), escape(self.bars[index].label)
        room_right = (count - index - 0.5) / count * _LABEL_WIDTHS[level]
        # Centred at the right edge it would leave the chart.
        is_last = room_right < longest * 3.3
        x, anchor = (index + 1, "end") if is_last else (index + 0.5, "middle")
        return f'<text{_LABEL_CLASSES[level]} x="{percent(x / count)}" y="17" text-anchor="{anchor}">{text}</text>'

    def drawing(self) -> str:
        count = len(self.bars)
        return (
            f'<svg class="chart-plot" role="img" tabindex="0" {self.frame.named} data-bars="{count}"'
            f' width="100%" height="100%">{self._patterns()}{grid_lines(self.stack.axis, is_horizontal=True)}'
            f'{self._bands()}<rect class="chart-cursor" x="0" y="0" width="{percent(1 / count)}" height="100%"/>'
            f'<svg viewBox="0 0 {count * _SLOT} {_HEIGHT}" preserveAspectRatio="none" width="100%" height="100%">'
            f"{self._stacks()}</svg>{self._stripes()}{self._reference_line()}"
            '<line class="chart-base" x1="0" x2="100%" y1="100%" y2="100%"/></svg>'
        )

    def _stacks(self) -> str:
        """One path for each series: a rectangle for each bar, standing on the series before it."""
        width, scale = self.bar_width, _HEIGHT / self.stack.axis.high
        lefts = [index * _SLOT + (_SLOT - width) // 2 for index in range(len(self.bars))]
        paths = []
        bottoms, sums = [0] * len(self.bars), [ZERO] * len(self.bars)
        for name, values in zip(self.colours, self.stack.columns, strict=True):
            sums = [total + value for total, value in zip(sums, values, strict=True)]
            # Sums are rounded, not parts, so that a bar is as high as its total.
            tops = [round(total * scale) for total in sums]
            outline = "".join(
                f"M{left} {_HEIGHT - top}h{width}v{top - bottom}h-{width}z"
                for left, top, bottom in zip(lefts, tops, bottoms, strict=True)
                if top > bottom
            )
            if outline:
                paths.append(f'<path class="{name}" d="{outline}"/>')
            bottoms = tops
        return "".join(paths)

    def _stripes(self) -> str:
        """Stripes over bars whose time is not over."""
        count, width, high = len(self.bars), self.bar_width / _SLOT, self.stack.axis.high
        return "".join(
            f'<rect x="{percent((index + (1 - width) / 2) / count)}" y="{percent(1 - total / high)}"'
            f' width="{percent(width / count)}" height="{percent(total / high)}"'
            f' fill="url(#{escape(self.frame.chart_id)}-running)"/>'
            for index, (bar, total) in enumerate(zip(self.bars, self.stack.totals, strict=True))
            if bar.is_running and total
        )

    def _bands(self) -> str:
        count, parts = len(self.bars), []
        for shade in self.shades:
            look = self.looks[shade.reason]
            where = f'x="{percent(shade.start / count)}" y="0" width="{percent((shade.end - shade.start) / count)}"'
            pattern = f"{escape(self.frame.chart_id)}-{look}"
            parts.append(
                f'<rect class="{look}" {where} height="100%" fill="url(#{pattern})"/>'
                f'<rect class="{look} shade-cap" {where} height="3"/>'
            )
        return "".join(parts)

    def _patterns(self) -> str:
        names = [*dict.fromkeys(self.looks.values()), *(["running"] if self.is_running else [])]
        return "".join(
            f'<pattern id="{escape(self.frame.chart_id)}-{name}" width="6" height="6" patternUnits="userSpaceOnUse"'
            f' patternTransform="rotate({-45 if name == "shade-2" else 45})">'
            f'<rect class="{name}-stripe" width="2.5" height="6"/></pattern>'
            for name in names
        )

    def _reference_line(self) -> str:
        if not self.stack.draws_reference or self.stack.reference is None:
            return ""
        y = percent(1 - self.stack.reference / self.stack.axis.high)
        return f'<line class="chart-reference" x1="0" x2="100%" y1="{y}" y2="{y}"/>'

    def legend(self) -> str:
        items = [
            _legend_item(name, one.name, self.write(total), one.href)
            for one, name, total in zip(self.series, self.colours, self.stack.sums, strict=True)
        ]
        if self.reference and self.stack.reference is not None:
            far = "" if self.stack.draws_reference else ", above this chart"
            value = self.write(self.stack.reference) + far
            items.append(_legend_item("swatch-reference", self.reference.label, value))
        items += [_legend_item(f"swatch-{look}", reason) for reason, look in self.looks.items()]
        if self.is_running:
            items.append(_legend_item("swatch-running", "Still running"))
        return f'<ul class="chart-legend">{"".join(items)}</ul>'

    def table(self) -> str:
        """A row for each bar in order: `chart.js` shows the row that belongs to the bar under the pointer."""
        columns = [[self._cell(value) for value in values] for values in self.stack.columns]
        heads, sums = ["Time", *(one.name for one in self.series)], [*self.stack.sums]
        if len(self.series) > 1:
            columns.append([self._cell(total, "number total") for total in self.stack.totals])
            heads.append("Total")
            sums.append(self.stack.total)
        rows = (
            f'<tr><th scope="row">{_row_head(bar, remark)}</th>{"".join(cells)}</tr>'
            for bar, remark, *cells in zip(self.bars, remarks(self.bars, self.shades), *columns, strict=True)
        )
        foot = "".join(self._cell(value) for value in sums)
        return self.frame.table(heads, rows, f'<tr><th scope="row">Total</th>{foot}</tr>')

    def _cell(self, value: Decimal, name: str = "number") -> str:
        if not value:
            return f'<td class="{name} nil">{NOTHING}</td>'
        return f'<td class="{name}">{escape(self.write(value))}</td>'


def _row_head(bar: Bar, remark: str) -> str:
    when = f' <small class="when">{escape(bar.when)}</small>' if bar.when else ""
    told = f' <small class="remark">{escape(remark)}</small>' if remark else ""
    return f"{link(bar.title, bar.href)}{when}{told}"


def _legend_item(swatch: str, name: str, amount: str = "", href: str = "") -> str:
    tag, target = ("a", f' href="{escape(href)}"') if href else ("span", "")
    text = escape(name)
    value = f' <span class="amount">{escape(amount)}</span>' if amount else ""
    named = f'<{tag} class="name"{target} title="{text}">{text}</{tag}>'
    return f'<li><span class="swatch {swatch}"></span>{named}{value}</li>'
