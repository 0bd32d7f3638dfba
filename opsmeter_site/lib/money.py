"""The one rule by which money becomes a ledger value: USD, 12 decimals, half to even. Nothing else rounds money."""

from decimal import ROUND_HALF_EVEN, Context, Decimal

LEDGER_STEP = Decimal("1E-12")
# Wide enough that no sum of token counts times unit prices (18 decimals) is rounded before the ledger's own rounding.
EXACT = Context(prec=100, rounding=ROUND_HALF_EVEN)


def to_ledger(amount: Decimal) -> Decimal:
    """`amount` in USD at the ledger's 12 decimals; raises `decimal.InvalidOperation` for NaN and infinity."""
    return amount.quantize(LEDGER_STEP, ROUND_HALF_EVEN, EXACT)
