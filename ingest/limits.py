"""The one rule for "near" and "over", used by ingest, the status answer and every alert.

USD: over means spend *above* the amount; the event that crosses is stored, the next one is not.
Requests: the amount is what the plan includes, so nothing is left once the meter has reached it.
"""

from decimal import Decimal

from ingest.models import Measure

OVER = Decimal(1)


def is_over(measure: str, amount: Decimal, value: Decimal) -> bool:
    """Whether a meter at `value` is over a limit of `amount` (both USD, or both requests)."""
    return value >= amount if measure == Measure.REQUESTS else value > amount


def has_reached(amount: Decimal, share: Decimal, value: Decimal) -> bool:
    """Whether a meter at `value` has reached `share` of a limit of `amount`: the rule for a warning."""
    return value >= share * amount


def has_crossed(measure: str, amount: Decimal, threshold: Decimal, value: Decimal) -> bool:
    """Whether a meter at `value` has crossed `threshold`, a share of `amount`; a share of 1 means over the limit."""
    return is_over(measure, amount, value) if threshold >= OVER else has_reached(amount, threshold, value)


def utilization(amount: Decimal, value: Decimal) -> Decimal:
    """`value` as a share of `amount`; a limit of nothing is used up by anything."""
    return value / amount if amount else OVER
