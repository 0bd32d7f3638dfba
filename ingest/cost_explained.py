"""Why a stored request costs what it costs: quantities and rates of the price row that was charged, and their sum.

The row that the event names is the truth. What the catalogue says today is shown beside it and changes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from ingest.models import Event, ModelPrice, Repricing
from ingest.price_book import Explanation
from ingest.price_names import Rule
from ingest.price_tables import Price, Rates
from ingest.pricing import current_book, price_rows
from opsmeter_site.lib.formats import count
from opsmeter_site.lib.money import EXACT, to_ledger

RULE_WORDS: Mapping[Rule, str] = {
    Rule.WORKSPACE_OVERRIDE: "the workspace’s own price of this name",
    Rule.EXACT: "the name as it was sent",
    Rule.ALIAS: "another name of the model",
    Rule.DATE_SPELLING: "its date, written differently",
    Rule.DATE_REMOVED: "without its date",
    Rule.PUNCTUATION: "hyphens for dots",
    Rule.UNPRICED: "no price",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One bucket of the sum. `unit_price` in USD per `unit`; None: the row has no such price, so it costs nothing."""

    label: str
    quantity: int
    unit_price: Decimal | None
    unit: str
    amount: Decimal
    note: str = ""


@dataclass(frozen=True, slots=True)
class Charge:
    """What a priced event was charged by: the price row, its lines, and their sum before and after rounding."""

    price: Price
    lines: list[Line]
    exact_sum: Decimal
    ledger_sum: Decimal


def charge_of(event: Event) -> Charge | None:
    """The sum behind the event's cost, from the price row that it names; None if it is unpriced or the row is gone."""
    price = _price_of(event.price_id)
    if price is None:
        return None
    lines = _lines(event, price)
    exact_sum = Decimal(0)
    for line in lines:
        exact_sum = EXACT.add(exact_sum, line.amount)
    return Charge(price, lines, exact_sum, to_ledger(exact_sum))


def _price_of(price_id: int | None) -> Price | None:
    rows = ModelPrice.objects.filter(pk=price_id) if price_id else ModelPrice.objects.none()
    return next((price for price, _ in price_rows(rows)), None)


def _lines(event: Event, price: Price) -> list[Line]:
    rates, units = Rates(price), price.unit_prices
    reasoning = f"{count(event.reasoning_tokens)} of them reasoning" if event.reasoning_tokens else ""
    lines = [_tokens("Input, not cached", event.uncached_input_tokens, units.input, rates.input)]
    for label, tokens, own, rate in (
        ("Input, read from the cache", event.cache_read_tokens, units.cached_input, rates.cache_read),
        ("Input, written to the cache", event.cache_write_tokens, units.cache_write, rates.cache_write),
    ):
        if tokens and own is None:
            lines.append(_tokens(label, tokens, units.input, rate, "at the input price: it has none of its own"))
        elif tokens:
            lines.append(_tokens(label, tokens, own, rate))
    lines.append(_tokens("Output", event.output_tokens, units.output, rates.output, reasoning))
    if units.request is not None:
        lines.append(Line("The call itself", 1, units.request, "1,000 calls", rates.request))
    return lines


def _tokens(label: str, tokens: int, unit_price: Decimal | None, rate: Decimal, note: str = "") -> Line:
    return Line(label, tokens, unit_price, "1M tokens", EXACT.multiply(rate, Decimal(tokens)), note)


def resolved_now(event: Event) -> Explanation:
    """What the same call would cost by the catalogue of today, and how its name is resolved. Raises like the book."""
    return current_book().resolve(
        workspace_id=event.workspace_id,
        provider=event.provider,
        model=event.model,
        service_tier=event.service_tier,
        occurred_at=event.occurred_at,
        uncached_input_tokens=event.uncached_input_tokens,
        cache_read_tokens=event.cache_read_tokens,
        cache_write_tokens=event.cache_write_tokens,
        output_tokens=event.output_tokens,
    )


@dataclass(frozen=True, slots=True)
class AsCharged:
    """What an event cost when it was stored: USD (None: it had no price), by which row; and what changed that last."""

    cost_usd: Decimal | None
    price: Price | None
    repricing: Repricing | None


def as_charged(event: Event) -> AsCharged | None:
    """The cost and price before the first re-pricing; None if the event still costs what it was charged at first."""
    if event.repricing_id is None:
        return None
    repricing = Repricing.objects.filter(pk=event.repricing_id).select_related("created_by").first()
    return AsCharged(event.charged_cost_usd, _price_of(event.charged_price_id), repricing)
