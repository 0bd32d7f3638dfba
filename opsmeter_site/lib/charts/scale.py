"""Numbers, axes and positions. Values stay `Decimal`; only positions in the drawing are rounded."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

Number = Decimal | float | int
# How a value is written; what it returns is escaped.
Format = Callable[[Decimal], str]

ZERO = Decimal(0)
_ROUND_STEPS = (Decimal(1), Decimal(2), Decimal("2.5"), Decimal(5), Decimal(10))


def exact(value: Number) -> Decimal:
    """`value` as a Decimal; a float counts as what it prints, so that sums of what is shown add up."""
    return value if isinstance(value, Decimal) else Decimal(str(value))


@dataclass(frozen=True, slots=True)
class Axis:
    """A linear axis from `low` to `high` with a tick and its label at both ends and at round steps between."""

    low: Decimal
    high: Decimal
    ticks: tuple[tuple[Decimal, str], ...]

    def percent(self, value: Number) -> str:
        """Where `value` lies, in percent from the low end, for an SVG attribute."""
        return percent((exact(value) - self.low) / (self.high - self.low))


def percent(share: Decimal | float) -> str:
    """A share of the drawing as an SVG length: 0.125 → "12.5%"."""
    return f"{round(float(share) * 100, 3):g}%"


def round_axis(low: Decimal, high: Decimal, write: Format, *, intervals: int = 5, is_whole: bool = False) -> Axis:
    """An axis that holds `low` and `high`, in at most `intervals` + 1 round steps; `is_whole` allows whole steps only.

    Steps are 1, 2, 2.5 or 5 times a power of ten, and never so fine that `write` gives two ticks the same label.
    """
    if low == high:
        low, high = (low, low + 1) if low == 0 else (min(low * 2, ZERO), max(low * 2, ZERO))
    while True:
        step = _round_step((high - low) / intervals, is_whole=is_whole)
        first = (low / step).to_integral_value(ROUND_FLOOR)
        last = (high / step).to_integral_value(ROUND_CEILING)
        ticks = tuple(
            (value, write(value)) for value in (_plain(step * number) for number in range(int(first), int(last) + 1))
        )
        if intervals == 1 or len({label for _, label in ticks}) == len(ticks):
            return Axis(ticks[0][0], ticks[-1][0], ticks)
        intervals -= 1


def _round_step(rough: Decimal, *, is_whole: bool) -> Decimal:
    if is_whole:
        rough = max(rough, Decimal(1))
    power = Decimal(1).scaleb(rough.adjusted())
    return next(step * power for step in _ROUND_STEPS if step * power >= rough and not (is_whole and step * power % 1))


def _plain(value: Decimal) -> Decimal:
    """The same value without an exponent, since a formatter may print what it gets."""
    return Decimal(f"{value:f}")


def label_steps(count: int, longest: int, widths: Sequence[int]) -> list[int]:
    """Of `count` evenly spaced labels, every how many-th to show at each of `widths` (pixels, narrowest first).

    `longest` is in characters. Each step is a multiple of the next, so that a wider chart only adds labels.
    """
    room_needed = count * (longest * 6.6 + 12)
    step = 1
    steps: list[int] = []
    for width in reversed(widths):
        step *= max(1, math.ceil(room_needed / (width * step)))
        steps.insert(0, step)
    return steps


def short_usd(amount: Decimal) -> str:
    """A round USD amount for an axis, exact and as short as it gets: $0, $2.50, $0.000045, $1.25M."""
    scaled, suffix = _scaled(abs(amount))
    text = f"{scaled:f}"
    if not suffix and text[-2:-1] == ".":
        text += "0"
    return f"{'−' if amount < 0 else ''}${text}{suffix}"


def short_count(number: Decimal) -> str:
    """A round number for an axis, exact and as short as it gets: 0, 2.5, 250, 1.25M."""
    scaled, suffix = _scaled(abs(number))
    return f"{'−' if number < 0 else ''}{scaled:f}{suffix}"


def _scaled(size: Decimal) -> tuple[Decimal, str]:
    for power, suffix in ((12, "T"), (9, "B"), (6, "M"), (3, "k")):
        if size >= 10**power:
            return size.scaleb(-power).normalize(), suffix
    return size.normalize(), ""
