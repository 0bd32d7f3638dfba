"""A tiny trend beside a figure. It repeats what the page says elsewhere, so it is hidden from screen readers."""

from collections.abc import Sequence
from decimal import Decimal

from django.utils.safestring import SafeString

from opsmeter_site.lib.charts.scale import Number, exact

_WIDTH = 1_000
_HEIGHT = 100


def sparkline(values: Sequence[Number | None]) -> SafeString:
    """An area from zero over evenly spaced `values` of zero or more; None leaves a gap. Nothing below two values."""
    numbers = [None if value is None else exact(value) for value in values]
    known = [number for number in numbers if number is not None]
    if len(known) < 2:
        return SafeString("")
    scale = _HEIGHT / (max(known) or Decimal(1))
    points = [
        None if number is None else f"{round(_WIDTH * index / (len(numbers) - 1))} {round(_HEIGHT - number * scale)}"
        for index, number in enumerate(numbers)
    ]
    runs = _runs(points)
    # "h0" makes a run of one point a dot.
    line = "".join(f"M{'L'.join(run)}h0" for run in runs)
    area = "".join(f"M{_x(run[0])} {_HEIGHT}L{'L'.join(run)}V{_HEIGHT}z" for run in runs)
    return SafeString(
        f'<svg class="sparkline" viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" aria-hidden="true">'
        f'<path class="sparkline-area" d="{area}"/><path class="sparkline-line" d="{line}"/>'
        f'<path class="sparkline-end" d="M{runs[-1][-1]}h0"/></svg>'
    )


def _x(point: str) -> str:
    return point.split(" ")[0]


def _runs(points: Sequence[str | None]) -> list[list[str]]:
    """The stretches without a gap."""
    runs: list[list[str]] = [[]]
    for point in points:
        if point is not None:
            runs[-1].append(point)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]
