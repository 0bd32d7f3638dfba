"""A second look at a price before it is stored: against the catalogue, or against the neighbours of a new name."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from ingest.catalog import USUAL_AT_LEAST, USUAL_AT_MOST, plain, times, unusual_unit_prices
from ingest.models.prices import UNIT_PRICE_FIELDS
from ingest.name_suggestions import Suggester
from ingest.price_book import PriceBook
from ingest.price_names import canonical_provider, clean
from ingest.price_selectors import decide, listed_prices, models_of
from ingest.price_tables import Price, PriceKey, Rates, UnitPrices


class _Neighbours(NamedTuple):
    """What an unknown name's prices are held against: a description for people, and unit prices."""

    name: str
    units: list[UnitPrices]


def doubts(
    book: PriceBook, *, provider: str, model: str, service_tier: str, moment: datetime, unit_prices: UnitPrices
) -> Mapping[str, str]:
    """Warnings by column about what looks like a slip of a unit or of a name; empty if nothing does."""
    if decide(book, provider, model, None, moment).rates is not None:
        return unusual_unit_prices(
            provider=provider, model=model, service_tier=service_tier, moment=moment, unit_prices=unit_prices
        )
    neighbours = _neighbours(book, canonical_provider(provider), clean(model), moment)
    warnings = {
        column: warning
        for column, new, known in zip(UNIT_PRICE_FIELDS, unit_prices, zip(*neighbours.units, strict=True), strict=True)
        if new and (warning := _far_away(new, [price for price in known if price], neighbours.name))
    }
    if unit_prices.cached_input is not None and unit_prices.cached_input > (unit_prices.input or 0):
        warnings.setdefault("cached_input_usd_per_1m", "Dearer than uncached input. Are the two mixed up?")
    return warnings


def _neighbours(book: PriceBook, host: str, model: str, moment: datetime) -> _Neighbours:
    """The model with the nearest name; else all models of the host; else, for an unknown host, all there are."""
    prices = listed_prices(book, moment)
    nearest = Suggester(models_of(book, host, moment)).suggest(model)
    if nearest is not None:
        return _Neighbours(f"{host}/{nearest}", [prices[host, nearest].unit_prices])
    of_host = [price.unit_prices for (provider, _), price in prices.items() if provider == host]
    if of_host:
        return _Neighbours(f"any model of {host}", of_host)
    return _Neighbours("any model of the catalogue", [UnitPrices(), *(price.unit_prices for price in prices.values())])


def _far_away(new: Decimal, known: list[Decimal], name: str) -> str | None:
    if not known:
        return None
    lowest, highest = min(known), max(known)
    if new < USUAL_AT_LEAST * lowest:
        return f"{times(new / lowest)} what {name} costs at least ({plain(lowest)} USD). Is the unit right?"
    if new > USUAL_AT_MOST * highest:
        return f"{times(new / highest)} what {name} costs at most ({plain(highest)} USD). Is the unit right?"
    return None


def draft_rates(
    provider: str, model: str, service_tier: str, effective_from: datetime, unit_prices: UnitPrices
) -> Rates:
    """The rates of a price that is not stored."""
    return Rates(
        Price(
            id=0,
            workspace_id=None,
            provider=provider,
            model=model,
            key=PriceKey(service_tier, effective_from),
            unit_prices=unit_prices,
            is_withdrawn=False,
            revision=0,
            source="",
            source_url="",
            checked_on=effective_from.date(),
        )
    )
