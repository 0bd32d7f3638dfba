"""The frame that every chart shares: figure, caption, legend, table. Everything that comes from outside is escaped."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from django.utils.safestring import SafeString

from opsmeter_site.lib.charts.scale import Axis, percent

SERIES_COLOURS = 8


def link(text: str, href: str) -> str:
    """`text` escaped, as a link if there is somewhere to go."""
    return f'<a href="{escape(href)}">{escape(text)}</a>' if href else escape(text)


def colour(position: int, *, is_other: bool = False) -> str:
    """The class of the series at `position` (from 0). What comes after the last colour looks like "other"."""
    return "series-other" if is_other or position >= SERIES_COLOURS else f"series-{position + 1}"


@dataclass(frozen=True, slots=True)
class Frame:
    """What stands around a drawing. `chart_id` is unique on its page: letters, digits and hyphens."""

    chart_id: str
    title: str
    shows_title: bool = True

    def figure(self, kind: str, about: str, body: str) -> SafeString:
        """The whole chart. `about` says in words what a drawing cannot say to everybody; `body` is safe HTML."""
        chart_id, hidden = escape(self.chart_id), "" if self.shows_title else ' class="visually-hidden"'
        return SafeString(
            f'<figure class="chart chart-{kind}" id="{chart_id}">'
            f'<figcaption{hidden}><span class="chart-title" id="{chart_id}-title">{escape(self.title)}</span>'
            f'<span class="visually-hidden" id="{chart_id}-about">{escape(about)}</span></figcaption>'
            f"{body}</figure>"
        )

    @property
    def named(self) -> str:
        """The attribute that names a drawing after the caption."""
        chart_id = escape(self.chart_id)
        return f'aria-labelledby="{chart_id}-title {chart_id}-about"'

    def nothing(self, kind: str, words: str) -> SafeString:
        """The chart without a drawing, since there is nothing to draw."""
        return self.figure(kind, words, f'<p class="chart-empty" aria-hidden="true">{escape(words)}</p>')

    def table(self, columns: Sequence[str], rows: Iterable[str], foot: str = "") -> str:
        """The exact values behind the drawing. `columns` are texts; `rows` and the last row, `foot`, are safe HTML."""
        title = escape(self.title)
        head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
        return (
            '<details class="chart-table"><summary>Show as table'
            f'<span class="visually-hidden">: {title}</span></summary>'
            f'<div class="table-scroll" tabindex="0" role="region" aria-label="{title}, as a table">'
            f'<table class="table"><caption class="visually-hidden">{title}</caption>'
            f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody><tfoot>{foot}</tfoot></table></div></details>"
        )


def grid_lines(axis: Axis, *, is_horizontal: bool) -> str:
    """A line at every tick; those of a value axis that points up are horizontal."""
    if is_horizontal:
        return "".join(
            f'<line class="chart-grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>'
            for y in (percent(1 - (value - axis.low) / (axis.high - axis.low)) for value, _ in axis.ticks)
        )
    return "".join(
        f'<line class="chart-grid" x1="{x}" x2="{x}" y1="0" y2="100%"/>'
        for x in (axis.percent(value) for value, _ in axis.ticks)
    )


def row_bar(drawing: str) -> str:
    """The drawing of one row; it is as wide as there is room, and as high as the row's texts."""
    return f'<div class="row-bar"><svg width="100%" height="100%" aria-hidden="true">{drawing}</svg></div>'
