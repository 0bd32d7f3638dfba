"""What an import would do: compares what a source says with what is stored. Values in, values out; no database.

The catalogue is append-only, so a plan consists of new rows. Where a stored row of the catalogue's is no longer in the
source, a new revision of the same key restates what the source now says about that date.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from ingest.models import ServiceTier
from ingest.models.prices import OPERATOR, PriceState
from ingest.price_book import Line
from ingest.price_tables import Price, PriceKey, Rates, UnitPrices, timelines_of

# A unit price that moves further than this waits for an operator: most such moves are slips of a unit, or of a host.
LARGEST_CHANGE = Decimal("0.30")
LARGEST_UNIT_PRICE = Decimal(1_000_000)
MOST_DECIMALS = 18
_MOST_PROBLEMS_SHOWN = 20

Pair = tuple[str, str]  # provider, model


class InvalidCatalogueError(ValueError):
    """The source cannot be imported; the message lists what is wrong. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class PriceSpec:
    """One row that a source says the catalogue should have."""

    provider: str
    model: str
    key: PriceKey
    unit_prices: UnitPrices | None  # None: nothing of its own from then on
    source_url: str


@dataclass(frozen=True, slots=True)
class AliasSpec:
    """One other name that a source knows a model by."""

    provider: str
    alias: str
    model: str


@dataclass(frozen=True, slots=True)
class SourceCatalogue:
    """All that a source says; `without_token_prices` are the models left out because they have none."""

    name: str
    prices: tuple[PriceSpec, ...]
    aliases: tuple[AliasSpec, ...]
    without_token_prices: tuple[tuple[str, str], ...]


class StoredPrice(NamedTuple):
    """A row of the catalogue with its state."""

    price: Price
    state: str

    @property
    def says(self) -> UnitPrices | None:
        """Its unit prices; None if it says that there is no price of its own."""
        return None if self.price.is_withdrawn else self.price.unit_prices


class StoredAlias(NamedTuple):
    """An alias with where it is from."""

    model: str
    source: str


@dataclass(frozen=True, slots=True)
class NewPrice:
    """A row to be added."""

    spec: PriceSpec
    revision: int
    state: str


@dataclass(slots=True)
class Plan:
    """Everything that one import changes. Empty lists: nothing to do but to note that it ran."""

    prices: list[NewPrice] = field(default_factory=list)
    superseded: list[int] = field(default_factory=list)  # rows that waited, and are overtaken
    confirmed: list[int] = field(default_factory=list)  # rows that the source still says, not yet checked on this day
    unchanged: int = 0
    new_models: list[Pair] = field(default_factory=list)
    changed_models: list[Pair] = field(default_factory=list)
    waiting_models: list[Pair] = field(default_factory=list)  # changed, but not before an operator says so
    unlisted_models: list[Pair] = field(default_factory=list)  # stored, no longer in the source: they keep their prices
    new_aliases: list[AliasSpec] = field(default_factory=list)
    moved_aliases: list[AliasSpec] = field(default_factory=list)
    held_aliases: list[AliasSpec] = field(default_factory=list)  # would move to another price: an operator decides

    @property
    def changes_anything(self) -> bool:
        """Whether stored rows change, so that price books have to be loaded again."""
        return bool(self.prices or self.superseded or self.confirmed or self.new_aliases or self.moved_aliases)


def validate(catalogue: SourceCatalogue) -> None:
    """Raise `InvalidCatalogueError` unless every row could be stored and charged."""
    problems = list(_problems(catalogue))
    if problems:
        shown = "\n".join(problems[:_MOST_PROBLEMS_SHOWN])
        raise InvalidCatalogueError(f"{catalogue.name} has {len(problems)} problems:\n{shown}")


def _problems(catalogue: SourceCatalogue) -> Iterator[str]:
    if not catalogue.prices:
        yield "there are no prices in it"
    seen: set[tuple[str, str, PriceKey]] = set()
    for spec in catalogue.prices:
        identity = (spec.provider, spec.model, spec.key)
        if identity in seen:
            yield f"{spec.provider}/{spec.model}: two prices for {spec.key}"
        seen.add(identity)
        if not (0 < len(spec.provider) <= 100 and 0 < len(spec.model) <= 200 and len(spec.source_url) <= 500):
            yield f"{spec.provider}/{spec.model}: a name or address is empty or too long"
        for name, unit_price in (spec.unit_prices or UnitPrices())._asdict().items():
            if problem := unit_price_problem(unit_price):
                yield f"{spec.provider}/{spec.model}: {name}: {problem}"
    models = {(spec.provider, spec.model) for spec in catalogue.prices}
    for alias in catalogue.aliases:
        if (alias.provider, alias.model) not in models or not 0 < len(alias.alias) <= 200:
            yield f"{alias.provider}/{alias.alias}: not an alias of a model with prices, or too long"


def unit_price_problem(unit_price: Decimal | None) -> str | None:
    """What is wrong with a unit price (USD per 1M tokens or 1,000 calls), in words; None if nothing is."""
    if unit_price is None:
        return None
    exponent = unit_price.as_tuple().exponent
    if not isinstance(exponent, int):
        return "must be a number"
    if unit_price < 0:
        return "must not be negative"
    if unit_price > LARGEST_UNIT_PRICE:
        return f"must not be above {LARGEST_UNIT_PRICE:,} USD"
    return f"must not have more than {MOST_DECIMALS} decimals" if exponent < -MOST_DECIMALS else None


def make_plan(
    catalogue: SourceCatalogue,
    stored: Iterable[StoredPrice],
    aliases: Mapping[Pair, StoredAlias],
    today: date,
    now: datetime,
) -> Plan:
    """What importing `catalogue` (validated) would do to the catalogue's `stored` rows of all states, and `aliases`."""
    wanted: dict[Pair, dict[PriceKey, PriceSpec]] = defaultdict(dict)
    for spec in catalogue.prices:
        wanted[spec.provider, spec.model][spec.key] = spec
    rows: dict[Pair, list[StoredPrice]] = defaultdict(list)
    for row in stored:
        rows[row.price.provider, row.price.model].append(row)
    plan = Plan(unlisted_models=sorted(rows.keys() - wanted.keys()))
    for pair, specs in wanted.items():
        _plan_model(plan, pair, specs, rows.get(pair, []), today)
    for alias in catalogue.aliases:
        known = aliases.get((alias.provider, alias.alias))
        if known is None:
            plan.new_aliases.append(alias)
        elif known.model != alias.model and known.source != OPERATOR:
            old, new = (rows.get((alias.provider, model), []) for model in (known.model, alias.model))
            (plan.moved_aliases if _cost_alike(old, new, now) else plan.held_aliases).append(alias)
    return plan


# --- Prices of one model --------------------------------------------------------------------------------------------


def _plan_model(
    plan: Plan, pair: Pair, specs: dict[PriceKey, PriceSpec], stored: list[StoredPrice], today: date
) -> None:
    if not stored:
        plan.new_models.append(pair)
        plan.prices += (NewPrice(spec, 1, PriceState.ACTIVE) for spec in specs.values())
        return
    by_key: dict[PriceKey, list[StoredPrice]] = defaultdict(list)
    for row in sorted(stored, key=lambda row: row.price.revision):
        by_key[row.price.key].append(row)
    fresh: list[NewPrice] = []
    for spec in (*specs.values(), *_restated(specs, by_key)):
        new = _plan_row(plan, spec, by_key.get(spec.key, []), today)
        if new is not None:
            fresh.append(new)
    if not fresh:
        return
    waiting = _starts_that_wait(fresh, [row.price for row in stored if row.state == PriceState.ACTIVE])
    for new in fresh:
        waits = new.spec.key.effective_from in waiting
        plan.prices.append(replace(new, state=PriceState.PENDING) if waits else new)
    if waiting:
        plan.waiting_models.append(pair)
    if any(new.state == PriceState.ACTIVE for new in plan.prices[-len(fresh) :]):
        plan.changed_models.append(pair)


def _restated(specs: dict[PriceKey, PriceSpec], stored: Mapping[PriceKey, list[StoredPrice]]) -> Iterator[PriceSpec]:
    """For every stored row of a source that this source does not list: what it says about that date instead."""
    any_spec = next(iter(specs.values()))
    for key, rows in stored.items():
        if key in specs or all(row.price.source == OPERATOR for row in rows):
            continue
        same_slot = sorted(k.effective_from for k in specs if k._replace(effective_from=key.effective_from) == key)
        earlier = [start for start in same_slot if start < key.effective_from]
        if not earlier and key.service_tier == ServiceTier.STANDARD:
            earlier = same_slot[:1]  # the oldest standard price reaches back
        units = specs[key._replace(effective_from=earlier[-1])].unit_prices if earlier else None
        yield PriceSpec(any_spec.provider, any_spec.model, key, units, any_spec.source_url)


def _plan_row(plan: Plan, spec: PriceSpec, stored: list[StoredPrice], today: date) -> NewPrice | None:
    """The row that makes `stored` (revisions of one key, oldest first) say what `spec` says; None if they do."""
    sourced = [row for row in stored if row.price.source != OPERATOR and row.state != PriceState.SUPERSEDED]
    if sourced and sourced[-1].says == spec.unit_prices:
        plan.unchanged += 1
        if sourced[-1].price.checked_on != today and sourced[-1].state != PriceState.REJECTED:
            plan.confirmed.append(sourced[-1].price.id)
        return None
    plan.superseded += (row.price.id for row in stored if row.state == PriceState.PENDING)
    active = [row for row in stored if row.state == PriceState.ACTIVE]
    if (active and active[-1].says == spec.unit_prices) or (not stored and spec.unit_prices is None):
        plan.unchanged += 1
        return None
    return NewPrice(spec, stored[-1].price.revision + 1 if stored else 1, PriceState.ACTIVE)


# --- Changes that wait ----------------------------------------------------------------------------------------------


def _starts_that_wait(fresh: list[NewPrice], active: list[Price]) -> set[datetime]:
    """The dates whose new rows wait for an operator; the rows of one date are one decision.

    A row is held against the price now in force for the moment, size and tier at which it begins. A service tier that
    the model did not have is as new as a new model. A price that an operator has entered is never replaced unasked.
    """
    tiers = {price.key.service_tier for price in active}
    after = list(active)
    for number, row in enumerate(fresh, start=1):
        after.append(_as_price(row, number))
    old_line, new_line = _line(active), _line(after)
    waiting: set[datetime] = set()
    for row in fresh:
        key = row.spec.key
        if key.service_tier not in tiers:
            continue
        where = (key.service_tier, first_moment(key), key.context_above + 1 if key.context_above else 0)
        old, new = old_line.rates(*where), new_line.rates(*where)
        if old is not None and (old.price.source == OPERATOR or is_large_change(old, new)):
            waiting.add(key.effective_from)
    return waiting


def _line(prices: Iterable[Price]) -> Line:
    return Line({}, next(iter(timelines_of(prices).values()), {}))


def _as_price(row: NewPrice, number: int) -> Price:
    spec = row.spec
    return Price(
        id=-number,  # none yet
        workspace_id=None,
        provider=spec.provider,
        model=spec.model,
        key=spec.key,
        unit_prices=spec.unit_prices or UnitPrices(),
        is_withdrawn=spec.unit_prices is None,
        revision=row.revision,
        source="",
        source_url=spec.source_url,
        checked_on=date.min,
    )


def first_moment(key: PriceKey) -> datetime:
    """The first moment at which a row of this key could be in force."""
    if key.window_start is None:
        return key.effective_from
    moment = datetime.combine(key.effective_from.date(), key.window_start, key.effective_from.tzinfo)
    return moment if moment >= key.effective_from else moment + timedelta(days=1)


def is_large_change(old: Rates, new: Rates | None) -> bool:
    """Whether any token or call would cost more than 30 % more or less than before, or lose its price."""
    if new is None:
        return True
    pairs = (
        (old.input, new.input),
        (old.output, new.output),
        (old.cache_read, new.cache_read),
        (old.cache_write, new.cache_write),
        (old.request, new.request),
    )
    return any(abs(after - before) > LARGEST_CHANGE * before for before, after in pairs)


def _cost_alike(old: list[StoredPrice], new: list[StoredPrice], now: datetime) -> bool:
    """Whether a name may move from one model to the other without an operator: their prices now are not far apart."""
    before, after = (_line(row.price for row in rows if row.state == PriceState.ACTIVE) for rows in (old, new))
    rates = before.rates(ServiceTier.STANDARD, now, 0)
    return rates is None or not is_large_change(rates, after.rates(ServiceTier.STANDARD, now, 0))
