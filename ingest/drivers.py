"""Why spend differs between two ranges: the difference, split without a remainder into what moved it.

The order of the steps, from what is sent to what it costs: which endpoints exist, how often each is called, which model
answers, which prompt version asks, how many tokens that takes, what a token costs. Each step keeps all earlier ones as
they are now and all later ones as they were before, so the steps add up to the difference exactly.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, localcontext
from enum import StrEnum
from typing import NamedTuple, TypeVar

from ingest.models import ModelPrice
from ingest.price_tables import Price, PriceKey, Rates
from ingest.pricing import price_rows
from ingest.report_rows import UsageCell

_ZERO = Decimal(0)
# Averages are divisions; rounding at this precision is far below the ledger's own 12 decimals.
_PRECISION = 60


class Driver(StrEnum):
    """What can move spend."""

    NEW_ENDPOINTS = "new_endpoints"
    GONE_ENDPOINTS = "gone_endpoints"
    VOLUME = "volume"
    ENDPOINT_MIX = "endpoint_mix"
    MODEL_MIX = "model_mix"
    PROMPT_VERSIONS = "prompt_versions"
    TOKENS = "tokens"
    PRICE = "price"


LABELS: Mapping[Driver, str] = {
    Driver.NEW_ENDPOINTS: "New endpoints",
    Driver.GONE_ENDPOINTS: "Gone endpoints",
    Driver.VOLUME: "Volume",
    Driver.ENDPOINT_MIX: "Endpoint mix",
    Driver.MODEL_MIX: "Model mix",
    Driver.PROMPT_VERSIONS: "Prompt versions",
    Driver.TOKENS: "Tokens per request",
    Driver.PRICE: "Price",
}
MEANINGS: Mapping[Driver, str] = {
    Driver.NEW_ENDPOINTS: "Endpoints that were not called before.",
    Driver.GONE_ENDPOINTS: "Endpoints that are not called any more.",
    Driver.VOLUME: "More or fewer requests, at the average cost that a request had before.",
    Driver.ENDPOINT_MIX: "Requests moved between cheaper and dearer endpoints.",
    Driver.MODEL_MIX: "Within an endpoint, requests moved between cheaper and dearer models.",
    Driver.PROMPT_VERSIONS: "Within an endpoint and model, another prompt version is used.",
    Driver.TOKENS: "The same endpoint, model and version takes more or fewer tokens, or caches differently.",
    Driver.PRICE: "The same tokens cost more or less, or have got a price.",
}

Effects = dict[Driver, Decimal]


@dataclass(frozen=True, slots=True)
class EndpointChange:
    """One endpoint's cost before and now in USD, and what moved it (volume and endpoint mix together as volume)."""

    endpoint_tag: str
    before_usd: Decimal
    now_usd: Decimal
    effects: Effects

    @property
    def difference(self) -> Decimal:
        """USD."""
        return self.now_usd - self.before_usd

    @property
    def main_driver(self) -> Driver | None:
        """What moved it most; None if nothing did."""
        driver = max(self.effects, key=lambda each: abs(self.effects[each]), default=None)
        return driver if driver is not None and self.effects[driver] else None


@dataclass(frozen=True, slots=True)
class Change:
    """Cost before and now in USD, the effects that add up to the difference, and the same by endpoint."""

    before_usd: Decimal
    now_usd: Decimal
    effects: Effects
    endpoints: list[EndpointChange]

    @property
    def difference(self) -> Decimal:
        """USD."""
        return self.now_usd - self.before_usd

    @property
    def main_driver(self) -> Driver | None:
        """What moved the total most; None if nothing did."""
        driver = max(self.effects, key=lambda each: abs(self.effects[each]))
        return driver if self.effects[driver] else None


class _Part(NamedTuple):
    """Requests and cost of some cells, and the price rows that their cost came from."""

    requests: int = 0
    cost: Decimal = _ZERO
    cells: tuple[UsageCell, ...] = ()

    @property
    def unit_cost(self) -> Decimal:
        return self.cost / self.requests if self.requests else _ZERO


_NOTHING = _Part()
_Name = TypeVar("_Name")


def explain_change(before: Iterable[UsageCell], now: Iterable[UsageCell]) -> Change:
    """Split the difference between two ranges' cells. Reads the price rows that only one of them knows."""
    before, now = list(before), list(now)
    with localcontext(prec=_PRECISION):
        return _explain(before, now, _price_effects(before, now))


def _explain(before: list[UsageCell], now: list[UsageCell], price_effect: "_PriceEffect") -> Change:
    was, is_ = _by(before, lambda cell: cell.endpoint_tag), _by(now, lambda cell: cell.endpoint_tag)
    endpoints = [_endpoint(tag, was.get(tag, _NOTHING), is_.get(tag, _NOTHING), price_effect) for tag in {**was, **is_}]
    endpoints.sort(key=lambda each: (-abs(each.difference), each.endpoint_tag))
    effects: Effects = {
        driver: sum((each.effects.get(driver, _ZERO) for each in endpoints), _ZERO) for driver in Driver
    }
    # Seen from above, an endpoint's own volume is the growth of all and its share of that.
    volume = _overall_volume(was, is_)
    effects[Driver.ENDPOINT_MIX] = effects[Driver.VOLUME] - volume
    effects[Driver.VOLUME] = volume
    return Change(_cost(before), _cost(now), effects, endpoints)


def _overall_volume(was: Mapping[str, _Part], is_: Mapping[str, _Part]) -> Decimal:
    """What more requests to the endpoints of both ranges would cost at their common average."""
    common = was.keys() & is_.keys()
    requests_before = sum(was[tag].requests for tag in common)
    if not requests_before:
        return _ZERO
    average = sum((was[tag].cost for tag in common), _ZERO) / requests_before
    return (sum(is_[tag].requests for tag in common) - requests_before) * average


def _endpoint(tag: str, was: _Part, is_: _Part, price_effect: "_PriceEffect") -> EndpointChange:
    if not was.requests:
        effects = {Driver.NEW_ENDPOINTS: is_.cost}
    elif not is_.requests:
        effects = {Driver.GONE_ENDPOINTS: -was.cost}
    else:
        effects = _effects_within(was, is_, price_effect)
    return EndpointChange(tag, was.cost, is_.cost, effects)


def _effects_within(was: _Part, is_: _Part, price_effect: "_PriceEffect") -> Effects:
    """The steps of an endpoint that both ranges call."""
    volume = (is_.requests - was.requests) * was.unit_cost
    versions = price = _ZERO
    models_before, models_now = (_by(part.cells, lambda cell: (cell.provider, cell.model)) for part in (was, is_))
    model_mix = _mix(models_before, models_now) - is_.requests * was.unit_cost
    for name, model_now in models_now.items():
        model_before = models_before.get(name)
        if model_before is None:
            continue
        old, new = (_by(part.cells, lambda cell: cell.prompt_version) for part in (model_before, model_now))
        versions += _mix(old, new) - model_now.requests * model_before.unit_cost
        price += sum((price_effect(old[tag].cells, new[tag].cells) for tag in old.keys() & new.keys()), _ZERO)
    tokens = is_.cost - was.cost - volume - model_mix - versions - price
    return {
        Driver.VOLUME: volume,
        Driver.MODEL_MIX: model_mix,
        Driver.PROMPT_VERSIONS: versions,
        Driver.TOKENS: tokens,
        Driver.PRICE: price,
    }


def _mix(was: Mapping[_Name, _Part], is_: Mapping[_Name, _Part]) -> Decimal:
    """What the requests of now would have cost at what each part's requests cost before; a new part at its own cost."""
    return sum(
        (part.requests * (was[name].unit_cost if name in was else part.unit_cost) for name, part in is_.items()), _ZERO
    )


def _by(cells: Iterable[UsageCell], key: Callable[[UsageCell], _Name]) -> dict[_Name, _Part]:
    groups: dict[_Name, list[UsageCell]] = defaultdict(list)
    for cell in cells:
        groups[key(cell)].append(cell)
    return {
        name: _Part(sum(cell.figures.requests for cell in group), _cost(group), tuple(group))
        for name, group in groups.items()
    }


def _cost(cells: Iterable[UsageCell]) -> Decimal:
    return sum((cell.figures.cost_usd for cell in cells), _ZERO)


# --- Prices -----------------------------------------------------------------------------------------------------------

_PriceEffect = Callable[[Iterable[UsageCell], Iterable[UsageCell]], Decimal]


def _price_effects(before: list[UsageCell], now: list[UsageCell]) -> _PriceEffect:
    """A function from one cell's parts before and now to the part of its difference that prices explain."""
    before_ids, now_ids = ({cell.price_id for cell in cells if cell.price_id is not None} for cells in (before, now))
    if before_ids >= now_ids and not _has_unpriced(before):
        return lambda _old, _new: _ZERO
    prices = {price.id: price for price, _ in price_rows(ModelPrice.objects.filter(id__in=before_ids | now_ids))}

    def effect(old: Iterable[UsageCell], new: Iterable[UsageCell]) -> Decimal:
        old = list(old)
        was_priced = any(cell.price_id is not None for cell in old)
        known = [prices[cell.price_id] for cell in old if cell.price_id in prices]
        return sum((_effect(cell, known, prices, was_priced=was_priced) for cell in new), _ZERO)

    return effect


def _has_unpriced(cells: Iterable[UsageCell]) -> bool:
    return any(cell.price_id is None for cell in cells)


def _effect(cell: UsageCell, known: list[Price], prices: Mapping[int, Price], *, was_priced: bool) -> Decimal:
    """What of this cell's cost is due to its price being another one than before."""
    if cell.price_id is None:
        return _ZERO
    if not was_priced:
        return cell.figures.cost_usd
    price = prices.get(cell.price_id)
    if price is None or price in known:
        return _ZERO
    # Another tier, context band or time of day is no change of price; only a later row of the same kind is.
    earlier = next((each for each in known if _kind(each.key) == _kind(price.key)), None)
    return _ZERO if earlier is None else _charge(cell, Rates(price)) - _charge(cell, Rates(earlier))


def _kind(key: PriceKey) -> PriceKey:
    return key._replace(effective_from=None)  # type: ignore[arg-type]


def _charge(cell: UsageCell, rates: Rates) -> Decimal:
    used = cell.figures
    return (
        rates.input * used.uncached_input_tokens
        + rates.cache_read * used.cache_read_tokens
        + rates.cache_write * used.cache_write_tokens
        + rates.output * used.output_tokens
        + rates.request * used.requests
    )
