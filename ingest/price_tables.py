"""Price rows compiled for look-up: by time, time of day and context length. Plain values, no database, immutable."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from itertools import groupby
from typing import NamedTuple
from uuid import UUID

from opsmeter_site.lib.money import EXACT, to_ledger

_ZERO = Decimal(0)
_PER_MILLION = -6
_PER_THOUSAND = -3


class UnitPrices(NamedTuple):
    """What is charged: USD per 1M tokens, and per 1,000 calls. None: not sold separately (see `Rates`)."""

    input: Decimal | None = None
    output: Decimal | None = None
    cached_input: Decimal | None = None
    cache_write: Decimal | None = None
    request: Decimal | None = None


class PriceKey(NamedTuple):
    """What a price row is for; revisions of one key replace each other."""

    service_tier: str
    effective_from: datetime
    context_above: int = 0
    window_start: time | None = None
    window_end: time | None = None


@dataclass(frozen=True, slots=True)
class Price:
    """A price row as it is in force; the fields are those of `ModelPrice`."""

    id: int
    workspace_id: UUID | None
    provider: str
    model: str
    key: PriceKey
    unit_prices: UnitPrices
    is_withdrawn: bool
    revision: int
    source: str
    source_url: str
    checked_on: date


class Rates:
    """What each token bucket of a call costs under one price row, in USD per single token and call, exact.

    As in genai-prices: cached input and cache writes without a price of their own are input and pay the input price; a
    bucket without any price (the output of an embedding) costs nothing.
    """

    __slots__ = ("cache_read", "cache_write", "input", "is_override", "output", "price", "request")

    def __init__(self, price: Price) -> None:
        units = price.unit_prices
        self.price = price
        self.is_override = price.workspace_id is not None
        self.input = _scaled(units.input, _PER_MILLION)
        self.output = _scaled(units.output, _PER_MILLION)
        self.cache_read = self.input if units.cached_input is None else _scaled(units.cached_input, _PER_MILLION)
        self.cache_write = self.input if units.cache_write is None else _scaled(units.cache_write, _PER_MILLION)
        self.request = _scaled(units.request, _PER_THOUSAND)

    def cost(self, uncached_input: int, cache_read: int, cache_write: int, output: int) -> Decimal:
        """What one call with these disjoint token counts costs, in USD at the ledger's 12 decimals, rounded once."""
        fma = EXACT.fma
        total = fma(self.output, output, fma(self.input, uncached_input, self.request))
        if cache_read:
            total = fma(self.cache_read, cache_read, total)
        if cache_write:
            total = fma(self.cache_write, cache_write, total)
        return to_ledger(total)


def _scaled(unit_price: Decimal | None, exponent: int) -> Decimal:
    return _ZERO if unit_price is None else unit_price.scaleb(exponent, EXACT).normalize(EXACT)


_Bands = tuple[tuple[int, Rates], ...]


class _Sheet:
    """Everything that is in force at one time: context bands, all day and within windows of the day."""

    __slots__ = ("_bands", "_only", "_windows")

    def __init__(self, rows: Iterable[Rates]) -> None:
        bands: dict[tuple[time | None, time | None], list[Rates]] = defaultdict(list)
        for rates in rows:
            bands[rates.price.key.window_start, rates.price.key.window_end].append(rates)
        self._bands = _bands(bands.pop((None, None), []))
        # Should an operator's windows overlap, the youngest row decides.
        windows = sorted(bands.items(), key=lambda item: -max(rates.price.id for rates in item[1]))
        self._windows = tuple((start, end, _bands(of_window)) for (start, end), of_window in windows)
        plain = len(self._bands) == 1 and self._bands[0][0] == 0 and not self._windows
        self._only = self._bands[0][1] if plain else None

    def rates(self, moment: datetime, input_tokens: int) -> Rates | None:
        """The rates for a call at `moment` with so many input tokens in all; None if no row covers it."""
        if self._only is not None:
            return self._only
        if self._windows:
            time_of_day = moment.astimezone(UTC).time()
            for start, end, bands in self._windows:
                if _within(time_of_day, start, end) and (rates := _pick(bands, input_tokens)) is not None:
                    return rates
        return _pick(self._bands, input_tokens)


def _bands(rows: Iterable[Rates]) -> _Bands:
    """The context bands, the highest first."""
    ordered = sorted(rows, key=lambda rates: -rates.price.key.context_above)
    return tuple((rates.price.key.context_above, rates) for rates in ordered)


def _pick(bands: _Bands, input_tokens: int) -> Rates | None:
    for above, rates in bands:
        if input_tokens > above or above == 0:
            return rates
    return None


def _within(moment: time, start: time | None, end: time | None) -> bool:
    if start is None or end is None:
        return True
    return start <= moment < end if start < end else moment >= start or moment < end


class Timeline:
    """The prices of one model in one service tier (and of one workspace, or of the catalogue) along time."""

    __slots__ = ("_last", "_last_start", "_sheets", "_starts")

    def __init__(self, prices: Iterable[Price]) -> None:
        """Compile `prices` (active rows, at least one)."""
        ordered = sorted(prices, key=lambda price: (price.key.effective_from, price.revision))
        in_force: dict[tuple[int, time | None, time | None], Rates | None] = {}
        starts: list[datetime] = []
        sheets: list[_Sheet] = []
        for start, rows in groupby(ordered, key=lambda price: price.key.effective_from):
            for price in rows:
                slot = (price.key.context_above, price.key.window_start, price.key.window_end)
                in_force[slot] = None if price.is_withdrawn else Rates(price)
            starts.append(start)
            sheets.append(_Sheet(rates for rates in in_force.values() if rates is not None))
        self._starts, self._sheets = tuple(starts), tuple(sheets)
        self._last_start, self._last = starts[-1], sheets[-1]

    def rates(self, moment: datetime, input_tokens: int) -> Rates | None:
        """The rates in force at `moment` (aware); None before the first price, or if no row covers the call."""
        if moment >= self._last_start:
            return self._last.rates(moment, input_tokens)
        index = bisect_right(self._starts, moment) - 1
        return None if index < 0 else self._sheets[index].rates(moment, input_tokens)

    def rates_or_oldest(self, moment: datetime, input_tokens: int) -> Rates | None:
        """Like `rates`, with the oldest price for every moment before the first: what genai-prices does, too."""
        if moment < self._starts[0]:
            return self._sheets[0].rates(moment, input_tokens)
        return self.rates(moment, input_tokens)


Timelines = Mapping[str, Timeline]


def timelines_of(prices: Iterable[Price]) -> dict[tuple[str, str], dict[str, Timeline]]:
    """`prices` (active rows of one workspace, or of the catalogue) by (provider, model), then by service tier."""
    rows: dict[tuple[str, str], dict[str, list[Price]]] = defaultdict(lambda: defaultdict(list))
    for price in prices:
        rows[price.provider, price.model][price.key.service_tier].append(price)
    return {pair: {tier: Timeline(of_tier) for tier, of_tier in tiers.items()} for pair, tiers in rows.items()}
