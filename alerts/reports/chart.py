"""The chart of a summary as a picture: most mail clients show no SVG. Drawn from stored content alone.

The background is transparent and every colour is one that reads on white and on dark alike. What it shows is also in
the alternative text and in the tables around it.
"""

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from functools import cache, lru_cache
from io import BytesIO

from PIL import Image, ImageDraw, ImageFont

from alerts.reports import sentences
from alerts.reports.figures import Bar, ReportContent
from opsmeter_site.lib.charts import short_usd
from opsmeter_site.lib.formats import usd

Number = Decimal | int
Colour = tuple[int, int, int, int]

# As the mail shows it, in CSS pixels; it is drawn twice as large, for sharp screens.
WIDTH, HEIGHT = 552, 190
_DENSITY = 2
_FONT_SIZE = 16
_LEFT, _TOP, _BOTTOM = 64, 12, 28
# Between the light and the dark variants of --accent, --border-strong and --warn in static/css/base.css.
_NOW = (59, 139, 214, 255)
_BEFORE = (222, 108, 12, 255)
_QUIET = (110, 120, 138, 255)
_GRID = (128, 139, 158, 80)
_STEPS = (Decimal(1), Decimal(2), Decimal(5), Decimal(10))
_COLOURS = 64  # steps of transparency included
# At most so many labels fit under the bars on a telephone.
_MOST_LABELS = 8


def alternative_text(content: ReportContent) -> str:
    """What the picture shows, in words."""
    if not content.bars:
        return "No spend."
    highest = max(content.bars, key=lambda bar: bar.cost_usd)
    unit = "hour" if content.days == 1 else "day"
    return (
        f"Bars: spend by {unit}, {sentences.window_short(content)}, {sentences.spend(content.now)} in all. "
        f"Highest: {_when(content, highest)} with {usd(highest.cost_usd)}. "
        f"Marks: {sentences.before_words(content)}, {usd(content.before.cost_usd)} in all."
    )


# The mails of one summary's recipients are composed one after the other.
@lru_cache(maxsize=8)
def draw(content: ReportContent) -> bytes:
    """The picture as PNG: a bar for each day or hour, and a mark where the matching one before was."""
    image = Image.new("RGBA", (WIDTH * _DENSITY, HEIGHT * _DENSITY), (0, 0, 0, 0))
    _Drawing(ImageDraw.Draw(image), content).draw()
    file = BytesIO()
    # A palette halves both the time and the size, and nobody sees a difference.
    image.quantize(_COLOURS, method=Image.Quantize.FASTOCTREE).save(file, "PNG")
    return file.getvalue()


def _when(content: ReportContent, bar: Bar) -> str:
    local = bar.start.astimezone(content.time_zone)
    return f"{local:%H:%M}" if content.days == 1 else f"{local:%A}"


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(_FONT_SIZE * _DENSITY)


def _ticks(highest: Decimal) -> list[Decimal]:
    """Zero and two to five round amounts; the last one is not below `highest`."""
    if not highest:
        return [Decimal(0), Decimal(1)]
    size = Decimal(1).scaleb((highest / 4).adjusted())
    step = next(size * each for each in _STEPS if size * each * 4 >= highest)
    number = int((highest / step).to_integral_value(ROUND_CEILING))
    return [step * each for each in range(number + 1)]


@dataclass(frozen=True, slots=True)
class _Drawing:
    canvas: ImageDraw.ImageDraw
    content: ReportContent

    def draw(self) -> None:
        bars = self.content.bars
        ticks = _ticks(max((max(bar.cost_usd, bar.before_usd) for bar in bars), default=Decimal(0)))
        for tick in ticks:
            self._grid_line(tick, ticks[-1])
        slot = Decimal(WIDTH - _LEFT) / max(1, len(bars))
        for number, bar in enumerate(bars):
            self._bar(_LEFT + slot * number, slot, bar, ticks[-1])
        every = -(-len(bars) // _MOST_LABELS)
        for number, bar in list(enumerate(bars))[::every]:
            self._label(_LEFT + slot * number + slot / 2, bar)

    def _grid_line(self, amount: Decimal, highest: Decimal) -> None:
        y = _y(amount, highest)
        self._box(_LEFT, y, WIDTH, y + Decimal("0.5"), _GRID if amount else _QUIET)
        self._text(_LEFT - 8, y, short_usd(amount), "rm")

    def _bar(self, left: Decimal, slot: Decimal, bar: Bar, highest: Decimal) -> None:
        width = min(slot * Decimal("0.7"), Decimal(40))
        start = left + (slot - width) / 2
        if bar.cost_usd:
            self._box(start, _y(bar.cost_usd, highest), start + width, _y(Decimal(0), highest), _NOW)
        if bar.before_usd:
            y, beyond = _y(bar.before_usd, highest), slot * Decimal("0.08")
            self._box(start - beyond, y - 1, start + width + beyond, y + 1, _BEFORE)

    def _label(self, middle: Decimal, bar: Bar) -> None:
        local = bar.start.astimezone(self.content.time_zone)
        text = f"{local:%-H}" if self.content.days == 1 else f"{local:%a}"
        self._text(middle, HEIGHT - _BOTTOM // 2 + 2, text, "mm")

    def _text(self, x: Number, y: Number, text: str, anchor: str) -> None:
        self.canvas.text((float(x * _DENSITY), float(y * _DENSITY)), text, fill=_QUIET, font=_font(), anchor=anchor)

    def _box(self, left: Number, top: Number, right: Number, bottom: Number, colour: Colour) -> None:
        self.canvas.rectangle([round(each * _DENSITY) for each in (left, top, right, bottom)], fill=colour)


def _y(amount: Decimal, highest: Decimal) -> Decimal:
    return _TOP + (HEIGHT - _TOP - _BOTTOM) * (1 - amount / highest)
