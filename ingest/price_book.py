"""What a call costs: an immutable snapshot of all prices. Nothing here asks the database, or takes a lock.

A cost is decided in this order, and `PriceBook.resolve` shows every step of it:

1. The host: `price_names.canonical_provider`.
2. The model: a price of the workspace's own under the name as sent; then the steps of `price_names` in the catalogue;
   then the same steps among the workspace's own prices.
3. The price list: the workspace's own for the call's service tier, the catalogue's for that tier, the workspace's own
   standard list, the catalogue's standard list. A tier without prices costs what standard costs, as in genai-prices;
   the catalogue's price of a tier goes before the workspace's own of another tier, because it is nearer to the bill.
4. The row: in force at the time of the call, within its window of the day, above its context threshold. Before the
   first dated price of the catalogue's standard list the oldest applies, as in genai-prices; other lists just begin.
5. The rates: see `price_tables.Rates`.

"No price" is an answer (`cost_usd` None), and never zero.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from ingest.models import ServiceTier
from ingest.price_names import NameIndex, Rule, Step, canonical_provider, clean
from ingest.price_tables import Price, Rates, Timeline, timelines_of

# How many different names stay resolved; a flood of made-up names must not fill the memory.
_REMEMBERED_NAMES = 10_000

_Pair = tuple[str, str]  # provider, model
_Tiers = dict[str, Timeline]


@dataclass(frozen=True, slots=True)
class Quote:
    """What one call costs, and why."""

    cost_usd: Decimal | None  # USD, 12 decimals; None: unpriced
    price_id: int | None  # the ModelPrice row
    rule: str  # how the name was resolved: a `price_names.Rule`


UNPRICED = Quote(None, None, Rule.UNPRICED)


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a call costs what it costs, or why it has no price."""

    provider: str  # the host, as the catalogue calls it
    model: str | None  # the model that the name was found to mean
    rule: Rule
    steps: tuple[Step, ...]  # every name that was looked up, in order
    lists: tuple[str, ...]  # the price lists that were asked, in order; the last one answered, if `price` is set
    rates: Rates | None  # per token, with the row in force: its unit prices, date, source and address
    cost_usd: Decimal | None

    @property
    def price(self) -> Price | None:
        """The row in force."""
        return None if self.rates is None else self.rates.price


class _PriceList(NamedTuple):
    """One place to look for a row: its name for people, and the look-up by moment and input tokens."""

    name: str
    find: Callable[[datetime, int], Rates | None]


class Line:
    """All price lists of one model, for one workspace or for everyone."""

    __slots__ = ("_by_tier", "_standard")

    def __init__(self, own: _Tiers, catalogue: _Tiers) -> None:
        self._standard = tuple(_lists(ServiceTier.STANDARD.value, own, catalogue))
        self._by_tier = {
            tier: (*_lists(tier, own, catalogue), *self._standard)
            for tier in (own.keys() | catalogue.keys()) - {ServiceTier.STANDARD.value}
        }

    def lists(self, service_tier: str) -> tuple[_PriceList, ...]:
        """The lists to ask for a call of `service_tier`, in order."""
        return self._by_tier.get(service_tier, self._standard)

    def rates(self, service_tier: str, moment: datetime, input_tokens: int) -> Rates | None:
        """What the first list that has a row for the call says."""
        for price_list in self._by_tier.get(service_tier, self._standard):
            rates = price_list.find(moment, input_tokens)
            if rates is not None:
                return rates
        return None


def _lists(tier: str, own: _Tiers, catalogue: _Tiers) -> Iterator[_PriceList]:
    if tier in own:
        yield _PriceList(f"the workspace's own, {tier}", own[tier].rates)
    if tier in catalogue:
        timeline = catalogue[tier]
        find = timeline.rates_or_oldest if tier == ServiceTier.STANDARD else timeline.rates
        yield _PriceList(f"the catalogue's, {tier}", find)


class _Prices:
    """The models and names of the catalogue, or of one workspace's own prices, and what has been resolved lately."""

    __slots__ = ("indexes", "lines", "memo")

    def __init__(self, lines: dict[_Pair, Line], aliases: Iterable[tuple[str, str, str]]) -> None:
        models: dict[str, list[str]] = {}
        names: dict[str, dict[str, str]] = {}
        for provider, model in lines:
            models.setdefault(provider, []).append(model)
        for provider, alias, model in aliases:
            names.setdefault(provider, {})[alias] = model
        self.lines = lines
        self.indexes = {provider: NameIndex(ids, names.get(provider, {})) for provider, ids in models.items()}
        self.memo: dict[_Pair, _Found] = {}

    def found(self, host: str, name: str) -> "_Found":
        """Look a name up among these prices' models on that host."""
        index = self.indexes.get(host)
        steps = () if index is None else tuple(index.steps(name))
        model = steps[-1].found if steps else None
        if model is None:
            return _Found(steps, None, None, Rule.UNPRICED)
        return _Found(steps, model, self.lines[host, model], steps[-1].rule)


class _Found(NamedTuple):
    """What a name was found to mean: the look-ups, the model, its price lists, and the rule that found it."""

    steps: tuple[Step, ...]
    model: str | None
    line: Line | None
    rule: Rule


_NO_TIERS: _Tiers = {}


class PriceBook:
    """All prices at one version of the catalogue. Immutable but for its memory of names; safe in any thread."""

    def __init__(self, *, version: int, prices: Iterable[Price], aliases: Iterable[tuple[str, str, str]]) -> None:
        """Compile `prices` (active rows) and `aliases` (provider, alias, model)."""
        by_workspace: dict[UUID | None, list[Price]] = {None: []}
        for price in prices:
            by_workspace.setdefault(price.workspace_id, []).append(price)
        catalogue = dict(sorted(timelines_of(by_workspace.pop(None)).items()))
        self.version = version
        named = tuple(aliases)
        self._names: dict[_Pair, list[str]] = {}
        for provider, alias, model in sorted(named):
            self._names.setdefault((provider, model), []).append(alias)
        self._catalogue = _Prices({pair: Line(_NO_TIERS, tiers) for pair, tiers in catalogue.items()}, named)
        self._own = {
            workspace_id: self._prices_of_workspace(rows, catalogue) for workspace_id, rows in by_workspace.items()
        }

    def _prices_of_workspace(self, rows: list[Price], catalogue: dict[_Pair, _Tiers]) -> _Prices:
        lines: dict[_Pair, Line] = {}
        for (host, name), own in timelines_of(rows).items():
            # Its own price may be under an alias; the catalogue's then still are under the model's id.
            model = self._catalogue.found(host, name).model or name
            lines[host, name] = Line(own, catalogue.get((host, model), _NO_TIERS))
        return _Prices(lines, ())

    def quote(
        self,
        *,
        workspace_id: UUID,
        provider: str,
        model: str,
        service_tier: str,
        occurred_at: datetime,
        uncached_input_tokens: int,
        cache_read_tokens: int,
        cache_write_tokens: int,
        output_tokens: int,
    ) -> Quote:
        """What a call at `occurred_at` (aware) costs; the four token counts are disjoint and not negative."""
        own = self._own.get(workspace_id) if self._own else None
        memo = self._catalogue.memo if own is None else own.memo
        found = memo.get((provider, model))
        if found is None:
            # Without the steps, which only `resolve` shows: they are most of the memory.
            found = self._find(own, canonical_provider(provider), clean(model))._replace(steps=())
            if len(memo) >= _REMEMBERED_NAMES:
                memo.clear()
            memo[provider, model] = found
        if found.line is None:
            return UNPRICED
        input_tokens = uncached_input_tokens + cache_read_tokens + cache_write_tokens
        rates = found.line.rates(service_tier, occurred_at, input_tokens)
        if rates is None:
            return UNPRICED
        cost = rates.cost(uncached_input_tokens, cache_read_tokens, cache_write_tokens, output_tokens)
        return Quote(cost, rates.price.id, Rule.WORKSPACE_OVERRIDE if rates.is_override else found.rule)

    def resolve(
        self,
        *,
        workspace_id: UUID | None,
        provider: str,
        model: str,
        service_tier: str,
        occurred_at: datetime,
        uncached_input_tokens: int = 0,
        cache_read_tokens: int = 0,
        cache_write_tokens: int = 0,
        output_tokens: int = 0,
    ) -> Explanation:
        """The decision behind `quote` for the same call, step by step; without a workspace, the catalogue's."""
        own = None if workspace_id is None else self._own.get(workspace_id)
        host = canonical_provider(provider)
        found = self._find(own, host, clean(model))
        input_tokens = uncached_input_tokens + cache_read_tokens + cache_write_tokens
        asked: list[str] = []
        for price_list in found.line.lists(service_tier) if found.line is not None else ():
            asked.append(price_list.name)
            rates = price_list.find(occurred_at, input_tokens)
            if rates is not None:
                cost = rates.cost(uncached_input_tokens, cache_read_tokens, cache_write_tokens, output_tokens)
                rule = Rule.WORKSPACE_OVERRIDE if rates.is_override else found.rule
                return Explanation(host, rates.price.model, rule, found.steps, tuple(asked), rates, cost)
        return Explanation(host, found.model, Rule.UNPRICED, found.steps, tuple(asked), None, None)

    def listed(self, moment: datetime) -> Iterator[tuple[_Pair, Price, list[str]]]:
        """The catalogue's models in order, with the standard base price in force at `moment`, and the other names."""
        for pair, line in self._catalogue.lines.items():
            if (rates := line.rates(ServiceTier.STANDARD.value, moment, 0)) is not None:
                yield pair, rates.price, self._names.get(pair, [])

    def _find(self, own: _Prices | None, host: str, name: str) -> _Found:
        """What a name (cleaned) means for a workspace with these prices of its own, or for everyone."""
        found = self._catalogue.found(host, name)
        if own is None:
            return found
        line = own.lines.get((host, name))
        steps = (Step(Rule.WORKSPACE_OVERRIDE, name, name if line is not None else None), *found.steps)
        if line is not None:
            return _Found(steps, found.model or name, line, found.rule)
        if found.model is not None:
            return _Found(steps, found.model, own.lines.get((host, found.model), found.line), found.rule)
        theirs = own.found(host, name)
        return theirs._replace(steps=(*steps, *theirs.steps))
