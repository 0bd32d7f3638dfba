"""Estimates side by side: means as dots, confidence intervals as whiskers."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from django.utils.safestring import SafeString

from opsmeter_site.lib.charts.markup import Frame, colour, grid_lines, link, row_bar
from opsmeter_site.lib.charts.scale import Axis, Format, Number, exact, label_steps, round_axis
from opsmeter_site.lib.formats import NOTHING

# Widths of the axis (pixels) at which more labels appear under it; `charts.css` has the same step.
_LABEL_WIDTHS = (260, 540)
_LABEL_CLASSES = ("", ' class="from-widest"')


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its confidence interval. None: `mean` without any data, `low` and `high` with too few samples."""

    name: str
    mean: Number | None
    low: Number | None
    high: Number | None
    samples: int
    href: str = ""
    note: str = ""


def dot_range(
    *,
    chart_id: str,
    title: str,
    estimates: Sequence[Estimate],
    axis_format: Format,
    value_format: Format,
    confidence: str = "95%",
    empty: str = "No data for this comparison.",
    shows_title: bool = True,
) -> SafeString:
    """Means as dots with their confidence intervals as whiskers, one row each on a common axis that need not have 0."""
    frame = Frame(chart_id, title, shows_title)
    values = [exact(value) for one in estimates for value in (one.mean, one.low, one.high) if value is not None]
    if not values:
        return frame.nothing("dots", empty)
    axis = round_axis(min(values), max(values), axis_format, intervals=4)
    items = "".join(_dot_item(one, colour(index), axis, value_format) for index, one in enumerate(estimates))
    scale = f'<li class="row-axis" aria-hidden="true"><svg width="100%" height="20">{_axis_texts(axis)}</svg></li>'
    about = f"Dots are means, lines are {confidence} confidence intervals."
    table = frame.table(
        ("Compared", "Mean", f"{confidence} interval", "Samples"),
        (_estimate_row(one, value_format) for one in estimates),
    )
    note = f'<p class="chart-note">{escape(about)}</p>'
    return frame.figure("dots", about, f'<ul class="chart-rows">{items}{scale}</ul>{note}{table}')


def _estimate_row(one: Estimate, write: Format) -> str:
    cells = (_written(one.mean, write), escape(_interval(one, write)) or NOTHING, f"{one.samples:,}")
    numbers = "".join(f'<td class="number">{cell}</td>' for cell in cells)
    return f'<tr><th scope="row">{escape(one.name)}</th>{numbers}</tr>'


def _written(value: Number | None, write: Format) -> str:
    return NOTHING if value is None else escape(write(exact(value)))


def _interval(one: Estimate, write: Format) -> str:
    return "" if one.low is None or one.high is None else f"{write(exact(one.low))} to {write(exact(one.high))}"


def _dot_item(one: Estimate, name: str, axis: Axis, write: Format) -> str:
    parts = [grid_lines(axis, is_horizontal=False)]
    if one.low is not None and one.high is not None:
        low, high = axis.percent(one.low), axis.percent(one.high)
        parts.append(f'<line class="whisker {name}" x1="{low}" x2="{high}" y1="50%" y2="50%"/>')
        parts += [f'<line class="whisker-end {name}" x1="{x}" x2="{x}" y1="35%" y2="65%"/>' for x in (low, high)]
    if one.mean is not None:
        look = "dot" if one.low is not None else "dot dot-unsure"
        parts.append(f'<circle class="{look} {name}" cx="{axis.percent(one.mean)}" cy="50%" r="6"/>')
    interval = _interval(one, write)
    lines = [interval, f"{one.samples:,} sample{'' if one.samples == 1 else 's'}", one.note]
    small = "".join(f"<small>{escape(line)}</small>" for line in lines if line)
    return (
        f'<li><span class="row-name">{link(one.name, one.href)}</span>'
        f"{row_bar(''.join(parts))}"
        f'<span class="row-value">{_written(one.mean, write)}{small}</span></li>'
    )


def _axis_texts(axis: Axis) -> str:
    steps = label_steps(len(axis.ticks), max(len(label) for _, label in axis.ticks), _LABEL_WIDTHS)
    last, texts = len(axis.ticks) - 1, []
    for index, (value, label) in enumerate(axis.ticks):
        level = next((level for level, step in enumerate(steps) if index % step == 0), None)
        if level is not None:
            anchor = "start" if index == 0 else "end" if index == last else "middle"
            where = f'x="{axis.percent(value)}" y="14" text-anchor="{anchor}"'
            texts.append(f"<text{_LABEL_CLASSES[level]} {where}>{escape(label)}</text>")
    return "".join(texts)
