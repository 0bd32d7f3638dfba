from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID, uuid4

import pytest

from ingest import pricing
from ingest.models.prices import SINCE_EVER
from ingest.price_book import UNPRICED, PriceBook
from ingest.price_names import Rule
from ingest.price_tables import Price, PriceKey, UnitPrices
from opsmeter_site.lib.money import to_ledger
from tests.prices import usd

WORKSPACE = UUID(int=1)
NOON = datetime(2026, 6, 15, 12, 0, tzinfo=UTC)
LAST_YEAR = datetime(2025, 6, 15, tzinfo=UTC)


class Shop:
    """Collects price rows and makes a book of them."""

    def __init__(self) -> None:
        self.prices: list[Price] = []
        self.aliases: list[tuple[str, str, str]] = []

    def add(
        self, model="m", units=None, *, provider="openai", workspace_id=None, tier="standard", since=SINCE_EVER,
        above=0, window=(None, None), withdrawn=False, revision=1,
    ):  # fmt: skip
        number = len(self.prices) + 1
        key = PriceKey(tier, since, above, *window)
        self.prices.append(
            Price(
                number, workspace_id, provider, model, key, units or UnitPrices(), withdrawn, revision, "operator", "",
                date(2026, 1, 1),
            )
        )  # fmt: skip
        return number

    def book(self) -> PriceBook:
        return PriceBook(version=1, prices=self.prices, aliases=self.aliases)


@pytest.fixture
def shop():
    return Shop()


def call(**changes):
    return {
        "workspace_id": WORKSPACE, "provider": "openai", "model": "m", "service_tier": "standard", "occurred_at": NOON,
        "uncached_input_tokens": 1_000, "cache_read_tokens": 0, "cache_write_tokens": 0, "output_tokens": 0,
    } | changes  # fmt: skip


def quote(shop, **changes):
    """The quote, after checking that the explanation of the same call says the same."""
    book = shop.book()
    quoted = book.quote(**call(**changes))
    assert book.quote(**call(**changes)) == quoted
    explained = book.resolve(**call(**changes))
    assert (explained.cost_usd, explained.rule) == (quoted.cost_usd, quoted.rule)
    assert (explained.price.id if explained.price else None) == quoted.price_id
    return quoted


# --- Rates ----------------------------------------------------------------------------------------------------------


def test_each_bucket_pays_its_own_price_and_the_call_its_own(shop):
    price_id = shop.add(units=usd("2", "8", "0.5", "2.5", "14"))
    quoted = quote(
        shop, uncached_input_tokens=1_000_000, cache_read_tokens=1_000_000, cache_write_tokens=1_000_000,
        output_tokens=1_000_000,
    )  # fmt: skip
    assert quoted == pricing.Quote(Decimal("13.014000000000"), price_id, "exact")


def test_cached_input_and_cache_writes_without_a_price_pay_the_input_price(shop):
    shop.add(units=usd("2", "8"))
    tokens = {"uncached_input_tokens": 0, "cache_read_tokens": 1_000_000, "cache_write_tokens": 1_000_000}
    assert quote(shop, **tokens).cost_usd == 4


def test_output_without_a_price_costs_nothing(shop):
    shop.add(units=usd("2"))
    assert quote(shop, output_tokens=1_000_000).cost_usd == Decimal("0.002")


def test_a_price_of_zero_is_a_price(shop):
    shop.add(units=usd("0", "0"))
    assert quote(shop).cost_usd == 0


def test_eighteen_decimals_are_summed_exactly_and_rounded_once_half_to_even(shop):
    shop.add("fine", usd("0.000000500000000001", "0.000000500000000001"))
    shop.add("half", usd("0.0000005", "0.0000015"))
    assert quote(shop, model="fine", uncached_input_tokens=1, output_tokens=0).cost_usd == Decimal("1E-12")
    assert quote(shop, model="half", uncached_input_tokens=1, output_tokens=0).cost_usd == 0
    assert quote(shop, model="half", uncached_input_tokens=0, output_tokens=1).cost_usd == Decimal("2E-12")
    # Each bucket alone would round down to nothing.
    assert quote(shop, model="half", uncached_input_tokens=1, cache_read_tokens=1).cost_usd == Decimal("1E-12")
    assert to_ledger(Decimal(1)).as_tuple().exponent == -12


# --- Rows: context, dates, windows, tiers ---------------------------------------------------------------------------


def test_above_a_context_threshold_all_tokens_pay_the_higher_row(shop):
    shop.add(units=usd("1", "1"))
    shop.add(units=usd("2", "3"), above=200_000)
    shop.add(units=usd("5", "5"), above=400_000)
    at = {"uncached_input_tokens": 199_998, "cache_read_tokens": 1, "cache_write_tokens": 1, "output_tokens": 0}
    assert quote(shop, **at).cost_usd == Decimal("0.2")
    assert quote(shop, **at | {"cache_read_tokens": 2}).cost_usd == Decimal("0.400002")
    assert quote(shop, **at | {"uncached_input_tokens": 500_000, "output_tokens": 100_000}).cost_usd == Decimal(
        "3.00001"
    )


def test_a_dated_price_holds_from_its_first_moment_and_a_withdrawn_band_is_gone(shop):
    changed = datetime(2026, 3, 13, tzinfo=UTC)
    shop.add(units=usd("1"))
    shop.add(units=usd("2"), above=500)
    shop.add(units=usd("3"), since=changed)
    shop.add(above=500, since=changed, withdrawn=True)
    assert quote(shop, occurred_at=changed - timedelta(microseconds=1)).cost_usd == Decimal("0.002")
    assert quote(shop, occurred_at=changed).cost_usd == Decimal("0.003")


def test_before_the_first_dated_price_the_oldest_applies(shop):
    shop.add(units=usd("1"), since=LAST_YEAR)
    shop.add(units=usd("2"), since=NOON)
    assert quote(shop, occurred_at=LAST_YEAR - timedelta(days=900)).cost_usd == Decimal("0.001")


def test_the_highest_revision_of_a_date_holds_whatever_the_order_of_rows(shop):
    shop.add(units=usd("9"), revision=2)
    shop.add(units=usd("1"), revision=1)
    assert quote(shop).cost_usd == Decimal("0.009")


@pytest.mark.parametrize(
    ("at", "cost"), [("00:29", "0.001"), ("00:30", "0.002"), ("16:29", "0.002"), ("16:30", "0.003"), ("23:59", "0.003")]
)
def test_a_window_of_the_day_holds_from_its_start_to_before_its_end_in_utc(shop, at, cost):
    shop.add(units=usd("1"))
    shop.add(units=usd("2"), window=(time(0, 30), time(16, 30)))
    shop.add(units=usd("3"), window=(time(16, 30), time(0, 15)))  # past midnight
    moment = datetime.combine(NOON, time.fromisoformat(at), UTC)
    assert quote(shop, occurred_at=moment).cost_usd == Decimal(cost)
    elsewhere = moment.astimezone(datetime.strptime("+0545", "%z").tzinfo)
    assert quote(shop, occurred_at=elsewhere).cost_usd == Decimal(cost)


def test_a_tier_has_its_own_list_and_falls_back_to_standard_visibly(shop):
    shop.add(units=usd("2"), since=LAST_YEAR)
    shop.add(units=usd("1"), tier="batch", since=NOON)
    assert quote(shop, service_tier="batch").cost_usd == Decimal("0.001")
    assert quote(shop, service_tier="flex").cost_usd == Decimal("0.002")
    assert quote(shop, service_tier="fast").cost_usd == Decimal("0.002")
    # A tier's list does not reach back before its first date; the standard list does.
    early = {"service_tier": "batch", "occurred_at": LAST_YEAR - timedelta(days=1)}
    assert quote(shop, **early).cost_usd == Decimal("0.002")
    assert shop.book().resolve(**call(**early)).lists == ("the catalogue's, batch", "the catalogue's, standard")


# --- Names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "name", "model", "rule"),
    [
        ("openai", "gpt-4o", "gpt-4o", Rule.EXACT),
        (" OpenAI ", " GPT-4o\n", "gpt-4o", Rule.EXACT),
        ("openai", "gpt-4o-2024-05-13", "gpt-4o-2024-05-13", Rule.EXACT),
        ("openai", "chatgpt-4o-latest", "gpt-4o", Rule.ALIAS),
        ("openai", "gpt-4o-20240513", "gpt-4o-2024-05-13", Rule.DATE_SPELLING),
        ("openai", "gpt-4o@20240513", "gpt-4o-2024-05-13", Rule.DATE_SPELLING),
        ("openai", "gpt-4o-2024-08-06", "gpt-4o", Rule.DATE_REMOVED),
        ("vertex_ai", "claude-3-5-sonnet@20241022", "claude-3-5-sonnet", Rule.DATE_REMOVED),
        ("google", "claude-3.5-sonnet", "claude-3-5-sonnet", Rule.PUNCTUATION),
        ("google", "claude-3.5-sonnet-20241022", "claude-3-5-sonnet", Rule.PUNCTUATION),
        ("openai", "gpt-4o-2024-13-45", None, Rule.UNPRICED),  # no date
        ("openai", "gpt-4o-latest", None, Rule.UNPRICED),
        ("openai", "gpt-4o-0806", None, Rule.UNPRICED),
        ("openai", "gpt-4o-mini", None, Rule.UNPRICED),
        ("openai", "gpt-4", None, Rule.UNPRICED),
        ("openai", "", None, Rule.UNPRICED),
        ("", "gpt-4o", None, Rule.UNPRICED),
        ("nobody", "gpt-4o", None, Rule.UNPRICED),
        # One host's prices never stand in for another's.
        ("azure", "gpt-4o", None, Rule.UNPRICED),
        ("azure-openai", "gpt-4o", None, Rule.UNPRICED),
        ("bedrock", "claude-3-5-sonnet", None, Rule.UNPRICED),
        ("anthropic", "claude-3-5-sonnet", None, Rule.UNPRICED),
        ("openai", "glm-4-5", None, Rule.UNPRICED),  # two models would fit
    ],
)
def test_a_name_is_found_by_the_first_rule_that_fits_or_not_at_all(shop, provider, name, model, rule):
    for known in ("gpt-4o", "gpt-4o-2024-05-13", "glm.4-5", "glm-4.5"):
        shop.add(known, usd("1"))
    shop.add("claude-3-5-sonnet", usd("1"), provider="google")
    shop.add("phi-4", usd("1"), provider="azure")
    shop.aliases = [("openai", "chatgpt-4o-latest", "gpt-4o"), ("openai", "orphan", "gone")]
    explained = shop.book().resolve(**call(provider=provider, model=name))
    assert (explained.model, explained.rule) == (model, rule)
    assert quote(shop, provider=provider, model=name).rule == rule
    if model is None:
        assert shop.book().quote(**call(provider=provider, model=name)) == UNPRICED


def test_an_explanation_lists_every_look_up_in_order(shop):
    shop.add("gpt-4o", usd("2", "8"))
    explained = shop.book().resolve(**call(model="gpt-4o-2024-08-06"))
    assert [(step.rule, step.name, step.found) for step in explained.steps] == [
        (Rule.EXACT, "gpt-4o-2024-08-06", None),
        (Rule.ALIAS, "gpt-4o-2024-08-06", None),
        (Rule.DATE_SPELLING, "gpt-4o-20240806", None),
        (Rule.DATE_SPELLING, "gpt-4o@20240806", None),
        (Rule.DATE_REMOVED, "gpt-4o", "gpt-4o"),
    ]
    assert explained.price.unit_prices == usd("2", "8")
    assert explained.price.source == "operator"


def test_a_flood_of_made_up_names_does_not_fill_the_memory(shop, monkeypatch):
    monkeypatch.setattr("ingest.price_book._REMEMBERED_NAMES", 10)
    shop.add("m", usd("1"))
    book = shop.book()
    for number in range(100):
        assert book.quote(**call(model=f"made-up-{number}")) == UNPRICED
    assert len(book._catalogue.memo) <= 10
    assert book.quote(**call()).cost_usd == Decimal("0.001")


# --- A workspace's own prices ---------------------------------------------------------------------------------------


def test_a_workspaces_own_price_goes_first_for_it_alone_and_from_its_date_on(shop):
    shop.add("gpt-4o", usd("2"))
    own = shop.add("gpt-4o", usd("1.5"), workspace_id=WORKSPACE, since=NOON)
    shop.aliases = [("openai", "chatgpt-4o-latest", "gpt-4o")]
    for name in ("gpt-4o", "chatgpt-4o-latest", "gpt-4o-2024-08-06"):
        assert quote(shop, model=name) == pricing.Quote(Decimal("0.0015"), own, "workspace_override")
    assert quote(shop, model="gpt-4o", workspace_id=uuid4()).cost_usd == Decimal("0.002")
    before = quote(shop, model="gpt-4o", occurred_at=NOON - timedelta(seconds=1))
    assert (before.cost_usd, before.rule) == (Decimal("0.002"), "exact")


def test_a_workspaces_own_price_under_an_alias_leaves_the_catalogue_behind_it(shop):
    shop.add("gpt-4o", usd("2"))
    shop.add("chatgpt-4o-latest", usd("1.5"), workspace_id=WORKSPACE, since=NOON)
    shop.aliases = [("openai", "chatgpt-4o-latest", "gpt-4o")]
    assert quote(shop, model="chatgpt-4o-latest").cost_usd == Decimal("0.0015")
    before = quote(shop, model="chatgpt-4o-latest", occurred_at=LAST_YEAR)
    assert (before.cost_usd, before.rule) == (Decimal("0.002"), "alias")
    assert quote(shop, model="gpt-4o").cost_usd == Decimal("0.002")


def test_the_catalogues_price_of_a_tier_goes_before_the_workspaces_own_of_another(shop):
    shop.add(units=usd("2"))
    shop.add(units=usd("1"), tier="batch")
    shop.add(units=usd("1.8"), workspace_id=WORKSPACE)
    assert quote(shop, service_tier="batch").cost_usd == Decimal("0.001")
    assert quote(shop, service_tier="flex").cost_usd == Decimal("0.0018")
    shop.add(units=usd("0.9"), workspace_id=WORKSPACE, tier="batch")
    assert quote(shop, service_tier="batch").cost_usd == Decimal("0.0009")


def test_a_model_that_only_the_workspace_prices_is_found_by_the_same_rules(shop):
    shop.add("house-llama", usd("0.1"), provider="our-cluster", workspace_id=WORKSPACE)
    assert quote(shop, provider="Our-Cluster", model="house-llama-2026-01-31").cost_usd == Decimal("0.0001")
    assert quote(shop, provider="our-cluster", model="house-llama", workspace_id=uuid4()) == UNPRICED


def test_a_withdrawn_price_of_a_workspace_gives_way_to_the_catalogue(shop):
    shop.add(units=usd("2"))
    shop.add(units=usd("1"), workspace_id=WORKSPACE)
    shop.add(workspace_id=WORKSPACE, withdrawn=True, since=NOON)
    assert quote(shop).cost_usd == Decimal("0.002")
    assert quote(shop, occurred_at=LAST_YEAR).cost_usd == Decimal("0.001")
