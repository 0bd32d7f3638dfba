"""The one rule for "near" and "over", used by ingest, the status answer, the simulator and every alert.

Near means at or above the lowest threshold, also when it is over.
USD: over means spend *above* the amount; the event that crosses is stored, the next one is not.
Requests: the amount is what the plan includes, so nothing is left once the meter has reached it.
"""

from collections.abc import Iterable
from decimal import Decimal
from typing import NamedTuple

from ingest.models import Measure

OVER = Decimal(1)
_MILLION = Decimal(1_000_000)
_SHARE_STEP = Decimal("1E-12")


class Level(NamedTuple):
    """One threshold of a limit: its share of the amount, and the amount itself at which it is reached.

    `usd` is set if it was set in USD: such a threshold stays the same one when the limit's amount changes.
    """

    share: Decimal
    amount: Decimal
    usd: Decimal | None = None

    def is_crossed(self, measure: str, value: Decimal) -> bool:
        """Whether a meter at `value` has crossed it; a share of 1 means over the limit."""
        return is_over(measure, self.amount, value) if self.share >= OVER else value >= self.amount


def levels_of(amount: Decimal, shares: Iterable[Decimal], usd: Iterable[Decimal] = ()) -> tuple[Level, ...]:
    """The thresholds of a limit of `amount`, the lowest first: `shares` of it, and of `usd` those below it."""
    levels = {Level(share, share * amount) for share in shares}
    for threshold in usd:
        if threshold < amount:
            share = min((threshold / amount).quantize(_SHARE_STEP), OVER - _SHARE_STEP)
            levels.add(Level(share, threshold, threshold))
    return tuple(sorted(levels, key=lambda level: (level.amount, level.share, level.usd is None)))


def is_over(measure: str, amount: Decimal, value: Decimal) -> bool:
    """Whether a meter at `value` is over a limit of `amount` (both USD, or both requests)."""
    return value >= amount if measure == Measure.REQUESTS else value > amount


def has_reached(amount: Decimal, share: Decimal, value: Decimal) -> bool:
    """Whether a meter at `value` has reached `share` of a limit of `amount`: the rule for a warning."""
    # By multiplication: the quotient of two decimals is rounded, and a rounded 0.8 is not 0.8.
    return value >= share * amount


def utilization(amount: Decimal, value: Decimal) -> Decimal:
    """`value` as a share of `amount`; a limit of nothing is used up by anything."""
    return value / amount if amount else OVER


def estimated_usd(unpriced_tokens: int, usd_per_1m: Decimal) -> Decimal:
    """What a limit that estimates counts for events without a price, in USD."""
    return unpriced_tokens * usd_per_1m / _MILLION
