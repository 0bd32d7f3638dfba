"""How figures are written for people. Rounding happens here and nowhere else, and only for display."""

from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal

NOTHING = "–"
_CENT = Decimal("0.01")
_SUFFIXES = ((1_000_000_000_000, "T"), (1_000_000_000, "B"), (1_000_000, "M"), (1_000, "k"))
_SPANS = (("day", timedelta(days=1)), ("hour", timedelta(hours=1)), ("minute", timedelta(minutes=1)))


def usd(amount: Decimal | int | None) -> str:
    """`amount` in USD for reading: cents, or two significant digits below one cent; a dash for None."""
    if amount is None:
        return NOTHING
    sign, size = ("−" if amount < 0 else ""), abs(Decimal(amount))
    if size == 0 or size >= _CENT:
        return f"{sign}${size.quantize(_CENT, ROUND_HALF_UP):,}"
    return f"{sign}${_significant(size, 2):f}"


def usd_change(amount: Decimal | None) -> str:
    """`usd` with its sign, also a plus."""
    return ("+" if amount and amount > 0 else "") + usd(amount)


def usd_fine(amount: Decimal | int | None) -> str:
    """`usd` for an amount per request: three significant digits below one dollar."""
    size = abs(Decimal(amount or 0))
    if amount is None or not 0 < size < 1:
        return usd(amount)
    return f"{'−' if amount < 0 else ''}${_significant(size, 3):f}"


def usd_exact(amount: Decimal | None) -> str:
    """`amount` in USD with every digit that the ledger holds, without trailing zeros; a dash for None."""
    if amount is None:
        return NOTHING
    whole, _, digits = f"{abs(amount):,f}".partition(".")
    digits = digits.rstrip("0").ljust(2, "0")
    return f"{'−' if amount < 0 else ''}${whole}.{digits}"


def _significant(value: Decimal, digits: int) -> Decimal:
    return value.quantize(Decimal(1).scaleb(value.adjusted() - digits + 1), ROUND_HALF_UP)


def count(number: float | Decimal | None) -> str:
    """A whole number with separators."""
    return NOTHING if number is None else f"{round(number):,}"


def compact(number: float | Decimal | None) -> str:
    """A number in at most four characters and a suffix: 950, 1.2k, 34M."""
    if number is None:
        return NOTHING
    for size, suffix in _SUFFIXES:
        scaled = Decimal(number) / size
        if abs(scaled) >= 1:
            return f"{_significant(scaled, 2 if abs(scaled) < 10 else 3):f}{suffix}".replace(".0" + suffix, suffix)
    return f"{round(number):,}"


def share(ratio: float | Decimal | None) -> str:
    """A ratio as a percentage with one decimal: 0.1234 is 12.3%."""
    if ratio is None:
        return NOTHING
    percent = (Decimal(ratio) * 100).quantize(Decimal("0.1"), ROUND_HALF_UP)
    if percent == 0 and ratio > 0:
        return "<0.1%"
    return f"{percent:,f}%"


def change(ratio: float | Decimal | None) -> str:
    """A relative change with its sign: 0.12 is +12%; a dash where there is nothing to compare with."""
    if ratio is None:
        return NOTHING
    percent = Decimal(ratio) * 100
    rounded = percent.quantize(Decimal(1) if abs(percent) >= 10 else Decimal("0.1"), ROUND_HALF_UP)
    if rounded == 0:
        return "±0%"
    return f"{'+' if rounded > 0 else '−'}{abs(rounded):,f}%"


def milliseconds(duration: float | Decimal | None) -> str:
    """A duration in milliseconds: 640 ms, 1.24 s, 2.1 min."""
    if duration is None:
        return NOTHING
    value = Decimal(duration)
    if value < 1_000:
        return f"{round(value)} ms"
    if value < 60_000:
        return f"{_significant(value / 1_000, 3):f} s"
    return f"{(value / 60_000).quantize(Decimal('0.1')):,f} min"


def ago(moment: datetime, now: datetime) -> str:
    """How long `moment` is past, in its largest unit: "3 hours ago"; "in 3 hours" for the future."""
    distance = abs(now - moment)
    for name, span in _SPANS:
        number = int(distance / span)
        if number:
            text = f"{number} {name}{'' if number == 1 else 's'}"
            return f"{text} ago" if moment <= now else f"in {text}"
    return "just now" if moment <= now else "in a moment"
