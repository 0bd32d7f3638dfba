"""What led from one total to another, line by line."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from html import escape

from django.utils.safestring import SafeString

from opsmeter_site.lib.charts.markup import Frame, link, row_bar
from opsmeter_site.lib.charts.scale import ZERO, Axis, Format, Number, exact, percent, round_axis

# Effects that were rounded one by one miss the difference by less than this share of the totals.
_ROUNDING = Decimal("1E-9")


@dataclass(frozen=True, slots=True)
class Effect:
    """One cause of a difference: `amount` is what it added, or took if negative. `about` explains it in a few words."""

    name: str
    amount: Number
    href: str = ""
    about: str = ""


@dataclass(frozen=True, slots=True)
class _Row:
    kind: str
    name: str
    href: str
    about: str
    start: Decimal
    end: Decimal
    text: str


def waterfall(
    *,
    chart_id: str,
    title: str,
    before: tuple[str, Number],
    effects: Sequence[Effect],
    after: tuple[str, Number],
    value_format: Format,
    empty: str = "Nothing in either range.",
    shows_title: bool = True,
) -> SafeString:
    """From the total `before` (name, amount) through `effects` to the total `after`, one row each, from top to bottom.

    What the effects leave over, beyond rounding, is shown as "Not explained". `value_format` writes sizes; signs are
    added here.
    """
    frame = Frame(chart_id, title, shows_title)
    first, last = exact(before[1]), exact(after[1])
    steps = [*effects, *_rest(first, last, effects)]
    if not first and not last and not steps:
        return frame.nothing("waterfall", empty)
    rows = _rows(before[0], first, steps, after[0], last, value_format)
    axis, is_cut = _axis(rows, value_format)
    about = (
        f"{before[0]}: {value_format(first)}. {after[0]}: {value_format(last)}. The rows say what made the difference."
    )
    cut = f"The scale starts at {value_format(axis.low)}, not at zero."
    note = f'<p class="chart-note">{escape(cut)}</p>' if is_cut else ""
    items = "".join(
        _item(row, axis, came_from, goes_on=row is not rows[-1], is_cut=is_cut)
        for row, came_from in zip(rows, [None, *(row.end for row in rows[:-1])], strict=True)
    )
    table = frame.table(
        ("Step", "Amount", "Total after it"),
        (
            f'<tr><th scope="row">{escape(row.name)}</th><td class="number">{escape(row.text)}</td>'
            f'<td class="number">{escape(value_format(row.end))}</td></tr>'
            for row in rows
        ),
    )
    return frame.figure("waterfall", about, f'<ul class="chart-rows">{items}</ul>{note}{table}')


def _rest(first: Decimal, last: Decimal, effects: Sequence[Effect]) -> list[Effect]:
    rest = last - first - sum((exact(effect.amount) for effect in effects), ZERO)
    return [Effect("Not explained", rest)] if abs(rest) > _ROUNDING * max(first, last) else []


def _rows(
    before: str, first: Decimal, effects: Sequence[Effect], after: str, last: Decimal, write: Format
) -> list[_Row]:
    rows, total = [_Row("total", before, "", "", ZERO, first, write(first))], first
    for effect in effects:
        amount = exact(effect.amount)
        kind, sign = ("more", "+") if amount > 0 else ("less", "−") if amount < 0 else ("none", "")
        rows.append(
            _Row(kind, effect.name, effect.href, effect.about, total, total + amount, sign + write(abs(amount)))
        )
        total += amount
    return [*rows, _Row("total", after, "", "", ZERO, last, write(last))]


def _axis(rows: Sequence[_Row], write: Format) -> tuple[Axis, bool]:
    """From zero, unless the steps are so small beside the totals that nobody would see them; then cut, and True."""
    ends = [row.end for row in rows]
    low, high = min(ends), max(ends)
    spread = high - low
    if low > 0 and spread and spread < high / 4:
        start = round_axis(max(ZERO, low - spread), high, write).low
        return Axis(start, high, ()), start > 0
    return Axis(min(ZERO, low), max(high, ZERO) or Decimal(1), ()), False


def _item(row: _Row, axis: Axis, came_from: Decimal | None, *, goes_on: bool, is_cut: bool) -> str:
    start, end = (min(max(value, axis.low), axis.high) for value in sorted((row.start, row.end)))
    parts = []
    if came_from is not None:
        parts.append(_link_line(axis.percent(came_from), "0", "50%"))
    if goes_on:
        parts.append(_link_line(axis.percent(row.end), "50%", "100%"))
    width = percent((end - start) / (axis.high - axis.low))
    parts.append(f'<rect class="step-{row.kind}" x="{axis.percent(start)}" y="50%" width="{width}" height="18"/>')
    if is_cut and row.kind == "total":
        parts.append('<svg y="50%"><path class="chart-torn" d="M10 -12l4 4-4 4 4 4-4 4 4 4-4 4"/></svg>')
    about = f"<small>{escape(row.about)}</small>" if row.about else ""
    return (
        f'<li class="row-{row.kind}"><span class="row-name">{link(row.name, row.href)}{about}</span>'
        f"{row_bar(''.join(parts))}"
        f'<span class="row-value">{escape(row.text)}</span></li>'
    )


def _link_line(x: str, top: str, bottom: str) -> str:
    return f'<line class="chart-link" x1="{x}" x2="{x}" y1="{top}" y2="{bottom}"/>'
