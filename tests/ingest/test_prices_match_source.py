"""The whole installed catalogue, imported and read back, costs what genai-prices says, to 12 decimals."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from uuid import uuid4

import pytest
from genai_prices import Usage
from genai_prices import types as source
from genai_prices.data import providers
from genai_prices.data_snapshot import find_provider_by_id

from ingest.catalog import import_catalogue
from ingest.price_names import PROVIDER_ALIASES, Rule
from ingest.price_source import CONTEXTS, UNUSED_VARIANTS, read_bundled
from ingest.pricing import PriceBook, load_book
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.money import to_ledger

WORKSPACE = uuid4()
YEAR = timedelta(days=365)

# What our rows cannot say, and why. Everything else has to be exact.
NOT_EXPRESSED = {
    # Request contexts that the contract has no field for; such a call is priced as its service tier.
    ("service_tier", "default"): "the standard tier by another name; never has prices of its own",
    ("service_tier", "fast"): "not a serviceTier of the contract",
    ("speed", "fast"): "not a serviceTier of the contract",
    ("route", "mistral/eu"): "a route of OpenRouter",
    ("search_type", "fast"): "prices searches, not tokens",
    ("search_type", "web"): "prices searches, not tokens",
}
# Two hosts whose names the source would give to the vendor of the model, or that are two hosts to us.
HOSTS_THE_SOURCE_MIXES_UP = {
    "azure-openai", "azure.ai.openai", "azure_openai", "azureopenai", "az.ai.openai",
}  # fmt: skip


@dataclass(frozen=True)
class Call:
    uncached: int
    read: int
    written: int
    output: int


CALLS = (
    Call(1_234, 0, 0, 567),  # plain
    Call(900, 300, 0, 10),  # cached
    Call(700, 0, 333, 7),  # cache write
    Call(1, 1, 1, 1),  # mixed
    Call(0, 2_000, 0, 3),  # nothing but cached input
    Call(0, 0, 0, 5),
    Call(0, 0, 0, 0),
)


@pytest.fixture
def book(empty_catalogue: None) -> PriceBook:
    import_catalogue(read_bundled())
    return load_book()


def conditional(model: source.ModelInfo) -> list[source.ConditionalPrice]:
    return [] if isinstance(model.prices, source.ModelPrice) else model.prices


def moments(model: source.ModelInfo) -> Iterator[datetime]:
    """Now and a year ago; around every date from which the model has other prices; in every part of the day."""
    now = utc_now()
    yield now
    yield now - YEAR
    constraints = [price.constraint for price in conditional(model)]
    constraints += [variant.constraint for variant in model.price_variants or ()]
    for constraint in constraints:
        if isinstance(constraint, source.StartDateConstraint):
            start = datetime.combine(constraint.start_date, time(), UTC)
            yield start
            yield start - timedelta(microseconds=1)
        elif isinstance(constraint, source.TimeOfDateConstraint):
            for edge in (constraint.start_time, constraint.end_time):
                for day in (now, now - YEAR):
                    yield datetime.combine(day.date(), edge)
                    yield datetime.combine(day.date(), edge) - timedelta(microseconds=1)


def calls(prices: source.ModelPrice) -> Iterator[Call]:
    """Every kind of call, and for a model with context tiers one at and one just above each threshold."""
    yield from CALLS
    tiered = [price for price in prices.__dict__.values() if isinstance(price, source.TieredPrices)]
    for threshold in sorted({tier.start for price in tiered for tier in price.tiers}):
        yield Call(threshold - 7, 5, 2, 999)
        yield Call(threshold - 6, 5, 2, 999)
        yield Call(threshold + 1_000, 11, 13, 17)


def test_every_model_at_every_moment_tier_and_size_costs_what_the_source_says(book):
    compared = 0
    differences: list[tuple[object, ...]] = []
    for provider in providers:
        for model in provider.models:
            for moment in moments(model):
                for tier, context in CONTEXTS.items():
                    prices = model.get_prices(moment, context)
                    if prices.input_mtok is None and prices.output_mtok is None:
                        continue
                    for call in calls(prices):
                        usage = Usage(
                            input_tokens=call.uncached + call.read + call.written,
                            cache_read_tokens=call.read,
                            cache_write_tokens=call.written,
                            output_tokens=call.output,
                        )
                        # On the model itself, because the source's own matching may land on a sibling.
                        theirs = model.calc_price(
                            usage, provider, genai_request_timestamp=moment, price_context=context or None
                        ).total_price
                        ours = book.quote(
                            workspace_id=WORKSPACE,
                            provider=provider.id,
                            model=model.id,
                            service_tier=tier,
                            occurred_at=moment,
                            uncached_input_tokens=call.uncached,
                            cache_read_tokens=call.read,
                            cache_write_tokens=call.written,
                            output_tokens=call.output,
                        )
                        compared += 1
                        if ours.cost_usd != to_ledger(theirs) or ours.rule != Rule.EXACT:
                            differences.append((provider.id, model.id, tier, moment, call, theirs, ours))
    assert compared > 90_000
    assert differences == []


def test_what_the_rows_cannot_say_is_known_and_justified():
    contexts = {
        pair
        for provider in providers
        for model in provider.models
        for variant in model.price_variants or ()
        for pair in variant.when.items()
    }
    expressed = {pair for context in CONTEXTS.values() for pair in context.items()}
    assert contexts - expressed == NOT_EXPRESSED.keys()
    assert NOT_EXPRESSED.keys() == UNUSED_VARIANTS


def test_the_default_tier_never_has_prices_of_its_own():
    for provider in providers:
        for model in provider.models:
            for variant in model.price_variants or ():
                if variant.when == {"service_tier": "default"}:
                    assert not any(price is not None for price in variant.prices.__dict__.values()), model.id


def test_a_model_without_token_prices_is_unpriced(book):
    skipped = read_bundled().without_token_prices
    assert ("openai", "whisper-1") in skipped
    for provider, model in skipped:
        quoted = book.resolve(
            workspace_id=None, provider=provider, model=model, service_tier="standard", occurred_at=utc_now()
        )
        assert quoted.cost_usd is None, (provider, model)


def test_every_name_that_the_source_writes_out_means_the_same_model(book):
    names = 0
    priced = {(spec.provider, spec.model) for spec in read_bundled().prices}
    for provider in providers:
        for model in provider.models:
            if (provider.id, model.id.lower()) not in priced:
                continue
            for clause in model.match.or_ if isinstance(model.match, source.ClauseOr) else [model.match]:
                if isinstance(clause, source.ClauseEquals):
                    found = book.resolve(
                        workspace_id=None,
                        provider=provider.id,
                        model=clause.equals,
                        service_tier="standard",
                        occurred_at=utc_now(),
                    )
                    assert (found.model, found.rule) in {
                        (model.id.lower(), Rule.EXACT),
                        (model.id.lower(), Rule.ALIAS),
                    }, (provider.id, clause.equals)
                    names += 1
    assert names > 2_500


def test_every_alias_is_matched_to_the_same_model_by_the_source():
    by_id = {provider.id: provider for provider in providers}
    for alias in read_bundled().aliases:
        found = by_id[alias.provider].find_model(alias.alias)
        assert found is not None, alias
        assert found.id.lower() == alias.model, alias


def test_every_name_of_a_host_leads_to_a_host_of_the_catalogue_that_the_source_agrees_with():
    hosts = {provider.id for provider in providers}
    for alias, host in PROVIDER_ALIASES.items():
        assert host in hosts, alias
        assert alias not in hosts, alias
        theirs = find_provider_by_id(providers, alias)
        if alias not in HOSTS_THE_SOURCE_MIXES_UP and theirs is not None:
            assert theirs.id == host, alias
