"""Reads the price data that ships inside the genai-prices package. No network, no database.

genai-prices describes a model by a list of conditional prices (from a date on, within a window of the day; the last one
that applies wins), by tiers inside each unit price and by variants per request. Here the same becomes plain rows: the
source's own rule (`ModelInfo.get_prices`) is asked at every moment at which its answer can change, so that nothing of
it is re-implemented.

What has no place in a row, because a call of ours never reports it, is left out: audio, image and video tokens,
searches, pages, reasoning tokens at a rate of their own (two models), one-hour cache writes, and variants other than
the contract's service tiers (`UNUSED_VARIANTS`). genai-prices prices a call that does not report these the same way.
"""

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from importlib.metadata import version

from genai_prices import types as source
from genai_prices.data import providers as bundled_providers

from ingest.catalog_plan import AliasSpec, PriceSpec, SourceCatalogue
from ingest.models import ServiceTier
from ingest.models.prices import SINCE_EVER
from ingest.price_names import clean
from ingest.price_tables import PriceKey, UnitPrices

SOURCE_NAME = f"genai-prices {version('genai-prices')}"

# Which request context of the source each of our service tiers is.
CONTEXTS: dict[str, dict[str, str]] = {
    ServiceTier.STANDARD.value: {},
    ServiceTier.BATCH.value: {"processing": "batch"},
    ServiceTier.FLEX.value: {"service_tier": "flex"},
    ServiceTier.PRIORITY.value: {"service_tier": "priority"},
}
# Request contexts that the contract's `serviceTier` cannot say. "default" is OpenAI's standard tier and has no price.
UNUSED_VARIANTS = frozenset(
    {
        ("service_tier", "default"),
        ("service_tier", "fast"),
        ("speed", "fast"),
        ("route", "mistral/eu"),
        ("search_type", "fast"),
        ("search_type", "web"),
    }
)

# Names that the vendors document and that the source matches by a pattern only; which model each is, the source says.
DOCUMENTED_NAMES: dict[str, tuple[str, ...]] = {
    "anthropic": (
        "claude-2.0",
        "claude-2.1",
        "claude-3-5-haiku-latest",
        "claude-3-5-sonnet-latest",
        "claude-3-7-sonnet-latest",
        "claude-3-opus-latest",
    ),
    "google": (
        "claude-3-5-sonnet-v2",
        "claude-opus-4",
        "claude-opus-4-1",
        "claude-sonnet-4",
        "gemini-1.5-flash-001",
        "gemini-1.5-flash-002",
        "gemini-1.5-flash-8b-001",
        "gemini-1.5-flash-latest",
        "gemini-1.5-pro-001",
        "gemini-1.5-pro-002",
        "gemini-1.5-pro-latest",
        "gemini-2.0-flash-001",
        "gemini-2.0-flash-lite-001",
        "gemini-2.5-pro-preview-03-25",
        "gemini-2.5-pro-preview-05-06",
        "gemini-2.5-pro-preview-06-05",
    ),
    "typesafe": ("jev-1.13", "jev-1.14"),
}
# Bedrock's inference profiles: a geography before the model's id. Models whose patterns name their geographies get
# those; other models of the vendors below get the three that all of them began with.
_GEOGRAPHY = re.compile(r"^/?([a-z]{2,4}(?:-gov)?)\.(?=[a-z]+\.)")
_ANY_PROFILE = re.compile(r"^(?:regional|global)\.")
_FIRST_GEOGRAPHIES = ("us", "eu", "apac")
_SOLD_BY_GEOGRAPHY = ("amazon.nova", "anthropic.", "deepseek.", "meta.", "writer.")
# A literal that stops inside a date is a prefix, not a name.
_CUT_DATE = re.compile(r"-20\d\d$")


def read_bundled() -> SourceCatalogue:
    """Everything in the installed genai-prices. Raises `ValueError` for what cannot be expressed in rows."""
    return read(SOURCE_NAME, bundled_providers)


def read(name: str, providers: Iterable[source.Provider]) -> SourceCatalogue:
    """What `providers` say, as rows. Raises `ValueError` for what cannot be expressed in rows."""
    prices: list[PriceSpec] = []
    aliases: list[AliasSpec] = []
    skipped: list[tuple[str, str]] = []
    for provider in providers:
        host, url = clean(provider.id), (provider.pricing_urls or [""])[0]
        priced: set[str] = set()
        for model in provider.models:
            rows = [PriceSpec(host, clean(model.id), key, units, url) for key, units in _rows(model)]
            if rows:
                priced.add(clean(model.id))
                prices += rows
            else:
                skipped.append((host, clean(model.id)))
        aliases += [AliasSpec(host, alias, target) for alias, target in _names(provider).items() if target in priced]
    return SourceCatalogue(name, tuple(prices), tuple(aliases), tuple(skipped))


# --- Prices ---------------------------------------------------------------------------------------------------------

# A row's place within one tier and date: context threshold, start and end of its window of the day.
_Slot = tuple[int, time | None, time | None]


def _rows(model: source.ModelInfo) -> Iterator[tuple[PriceKey, UnitPrices | None]]:
    """Every row of a model: for each tier and date, what differs from the date before; None ends what was there."""
    constraints = [item.constraint for item in _conditional_prices(model)]
    constraints += [variant.constraint for variant in model.price_variants or ()]
    dates = {c.start_date for c in constraints if isinstance(c, source.StartDateConstraint)}
    windows = [c for c in constraints if isinstance(c, source.TimeOfDateConstraint)]
    for tier, context in CONTEXTS.items():
        before: dict[_Slot, UnitPrices] = {}
        for start in (SINCE_EVER, *(datetime.combine(day, time(), UTC) for day in sorted(dates))):
            if context and not _has_variant(model, context, start):
                continue
            now = _slots(model, context, start.date(), windows)
            for slot, units in now.items():
                if before.get(slot) != units:
                    yield PriceKey(tier, start, *slot), units
            for slot in before.keys() - now.keys():
                yield PriceKey(tier, start, *slot), None
            before = now


def _conditional_prices(model: source.ModelInfo) -> list[source.ConditionalPrice]:
    if isinstance(model.prices, source.ModelPrice):
        return [source.ConditionalPrice(prices=model.prices)]
    return model.prices


def _has_variant(model: source.ModelInfo, context: dict[str, str], start: datetime) -> bool:
    """Whether the source has prices of its own for `context` on that day; raises for contexts it has never had."""
    for variant in model.price_variants or ():
        wanted = variant.when.items()
        if wanted <= context.items():
            by_the_clock = isinstance(variant.constraint, source.TimeOfDateConstraint)
            active = variant.constraint is None or by_the_clock or variant.constraint.active(start)
            if active and any(_price(variant.prices, name) is not None for name in _UNITS):
                return True
        elif not (wanted <= UNUSED_VARIANTS or any(wanted <= known.items() for known in CONTEXTS.values())):
            raise ValueError(f"{model.id}: the source prices {variant.when}, which is new; decide what it is")
    return False


def _slots(
    model: source.ModelInfo, context: dict[str, str], day: date, windows: list[source.TimeOfDateConstraint]
) -> dict[_Slot, UnitPrices]:
    """The rows in force on `day`: an all-day price, and each part of the day that has another."""
    edges = sorted({_utc_time(edge) for window in windows for edge in (window.start_time, window.end_time)}) or [time()]
    parts = [_bands(model, model.get_prices(datetime.combine(day, edge, UTC), context)) for edge in edges]
    outside = [not any(w.active(datetime.combine(day, edge, UTC)) for w in windows) for edge in edges]
    all_day = parts[outside.index(True) if True in outside else 0]
    slots: dict[_Slot, UnitPrices] = {(above, None, None): units for above, units in all_day.items()}
    for index, part in enumerate(parts):
        if part != all_day:
            end = edges[(index + 1) % len(edges)]
            slots |= {(above, edges[index], end): units for above, units in part.items()}
    return slots


def _utc_time(moment: time) -> time:
    """A time of day in UTC without a zone; the source means UTC by a time without one, too."""
    if moment.tzinfo is None:
        return moment
    return datetime.combine(SINCE_EVER.date(), moment).astimezone(UTC).time()


_UNITS = ("input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok", "requests_kcount")


def _price(prices: source.ModelPrice, name: str) -> Decimal | source.TieredPrices | None:
    found: Decimal | source.TieredPrices | None = getattr(prices, name)
    return found


def _bands(model: source.ModelInfo, prices: source.ModelPrice) -> dict[int, UnitPrices]:
    """Unit prices by the number of input tokens above which they hold; empty if tokens have no price."""
    units = [_price(prices, name) for name in _UNITS]
    if units[0] is None and units[1] is None:
        return {}
    thresholds = {tier.start for unit in units if isinstance(unit, source.TieredPrices) for tier in unit.tiers}
    if any(threshold < 1 for threshold in thresholds):
        raise ValueError(f"{model.id}: a context tier starts at {min(thresholds)} tokens")
    return {above: UnitPrices(*(_at(unit, above) for unit in units)) for above in (0, *sorted(thresholds))}


def _at(unit: Decimal | source.TieredPrices | None, above: int) -> Decimal | None:
    """The unit price for just more than `above` input tokens; the highest tier whose start is passed holds for all."""
    if not isinstance(unit, source.TieredPrices):
        return unit
    passed = [tier.price for tier in unit.tiers if tier.start <= above]
    return passed[-1] if passed else unit.base


# --- Names ----------------------------------------------------------------------------------------------------------


def _names(provider: source.Provider) -> dict[str, str]:
    """Other exact names of the provider's models: each is a string that the source, or its vendor, writes out."""
    ids = {clean(model.id) for model in provider.models}
    names: dict[str, str] = {}
    for model in provider.models:
        for clause in _clauses(model.match):
            if isinstance(clause, source.ClauseEquals):
                names.setdefault(clean(clause.equals), clean(model.id))
    for model in provider.models:
        candidates = [*_literals(model), *(_inference_profiles(model) if provider.id == "aws" else ())]
        for name in candidates:
            # The source's own order of matching decides, so a literal can never be taken from the model it belongs to.
            if name not in names and provider.find_model(name) is model:
                names[name] = clean(model.id)
    for name in DOCUMENTED_NAMES.get(provider.id, ()):
        if name not in names and (found := provider.find_model(name)) is not None:
            names[name] = clean(found.id)
    return {name: model for name, model in names.items() if name not in ids}


def _clauses(clause: source.MatchLogic) -> Iterator[source.MatchLogic]:
    """The single conditions of a clause."""
    if isinstance(clause, source.ClauseOr | source.ClauseAnd):
        for part in clause.or_ if isinstance(clause, source.ClauseOr) else clause.and_:
            yield from _clauses(part)
    else:
        yield clause


def _texts(model: source.ModelInfo) -> Iterator[str]:
    """What the model's "starts with", "ends with" and "contains" conditions say."""
    for clause in _clauses(model.match):
        if isinstance(clause, source.ClauseStartsWith):
            yield clause.starts_with.lower()
        elif isinstance(clause, source.ClauseEndsWith):
            yield clause.ends_with.lower()
        elif isinstance(clause, source.ClauseContains):
            yield clause.contains.lower()


def _literals(model: source.ModelInfo) -> Iterator[str]:
    """The names inside the model's patterns: "starts with claude-3-opus" also names claude-3-opus."""
    for text in _texts(model):
        name = text.strip("-@:/. ")
        if not _CUT_DATE.search(name):
            yield name


def _inference_profiles(model: source.ModelInfo) -> Iterator[str]:
    """The model's full ids on Bedrock: plain, and behind each geography in which it is sold."""
    plain = _ANY_PROFILE.sub("", model.id.lower())
    geographies = [match[1] for text in _texts(model) if (match := _GEOGRAPHY.match(text))]
    if not geographies and plain.startswith(_SOLD_BY_GEOGRAPHY):
        geographies = list(_FIRST_GEOGRAPHIES)
    yield plain
    for geography in dict.fromkeys(geographies):
        yield f"{geography}.{plain}"
