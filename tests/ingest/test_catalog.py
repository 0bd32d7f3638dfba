from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from io import StringIO

import pytest
import time_machine
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.core.management.base import CommandError

from ingest import catalog, pricing
from ingest.catalog_plan import InvalidCatalogueError
from ingest.models import CatalogVersion, ModelAlias, ModelPrice
from ingest.models.prices import PriceState
from ingest.price_source import read_bundled
from opsmeter_site.lib.clock import utc_now
from tests.prices import JUNE, MARCH, add, bring_in, cost, says, source, usd
from workspaces.models import AuditEntry

pytestmark = pytest.mark.usefixtures("empty_catalogue")


def version() -> int:
    return CatalogVersion.objects.get().version


# --- The bundled catalogue ------------------------------------------------------------------------------------------


def test_the_command_imports_everything_once_and_says_what_it_did():
    def run(*arguments):
        output = StringIO()
        call_command("import_prices", *arguments, stdout=output)
        return output.getvalue()

    assert "Dry run, nothing was changed" in run("--dry-run")
    assert not ModelPrice.objects.exists()
    assert not CatalogVersion.objects.exists()
    first = run()
    prices, aliases = ModelPrice.objects.count(), ModelAlias.objects.count()
    assert prices > 2_500
    assert aliases > 1_000
    assert f"Prices: {prices:,} added, 0 unchanged." in first
    assert set(ModelPrice.objects.values_list("state", flat=True)) == {PriceState.ACTIVE}
    before = CatalogVersion.objects.get()
    again = run()
    assert f"Prices: 0 added, {prices:,} unchanged." in again
    after = CatalogVersion.objects.get()
    assert after.version == before.version
    assert after.imported_at > before.imported_at
    assert (ModelPrice.objects.count(), ModelAlias.objects.count()) == (prices, aliases)


def test_dated_prices_hold_from_their_dates():
    catalog.import_catalogue(read_bundled())
    book = pricing.load_book()
    usage = {"uncached_input_tokens": 1_000_000, "output_tokens": 1_000_000}

    def o3(at, tier="standard"):
        return book.resolve(
            workspace_id=None, provider="openai", model="o3", service_tier=tier, occurred_at=at, **usage
        ).cost_usd

    assert o3(datetime(2025, 5, 1, tzinfo=UTC)) == 50
    assert o3(datetime(2026, 5, 1, tzinfo=UTC)) == 10
    assert o3(datetime(2026, 11, 1, tzinfo=UTC), "flex") == 5


def test_a_host_without_a_price_of_its_own_for_a_model_has_none():
    catalog.import_catalogue(read_bundled())
    book = pricing.load_book()

    def gpt_5(host):
        return book.resolve(
            workspace_id=None, provider=host, model="gpt-5", service_tier="standard", occurred_at=utc_now()
        ).cost_usd

    assert gpt_5("openai") is not None
    for host in ("azure", "azure-openai", "bedrock", "vertex_ai", "openrouter-eu"):
        assert gpt_5(host) is None


# --- Imports --------------------------------------------------------------------------------------------------------


def test_a_new_day_only_notes_that_the_source_still_says_the_same():
    with time_machine.travel(MARCH):
        bring_in(says(usd("1")))
    old = ModelPrice.objects.get()
    with time_machine.travel(MARCH + timedelta(days=1)):
        plan = bring_in(says(usd("1.000")), name="genai-prices 9.9.10")
    stored = ModelPrice.objects.get()
    assert plan.unchanged == 1
    assert (stored.pk, stored.source) == (old.pk, "genai-prices 9.9.9")
    assert stored.checked_on - old.checked_on == timedelta(days=1)


def test_a_correction_is_a_new_row_and_the_old_one_stays():
    bring_in(says(usd("1")))
    plan = bring_in(says(usd("1.2")))
    assert plan.changed_models == [("openai", "gpt")]
    assert list(ModelPrice.objects.order_by("revision").values_list("input_usd_per_1m", flat=True)) == [
        1,
        Decimal("1.2"),
    ]
    assert cost() == Decimal("1.2")
    assert bring_in(says(usd("1.2"))).prices == []


@pytest.mark.parametrize(
    ("before", "after", "waits"),
    [
        (usd("1", "10"), usd("1.3", "7"), False),
        (usd("1", "10"), usd("1.31", "10"), True),
        (usd("1", "10"), usd("1", "6.99"), True),
        (usd("1", "10"), usd("1", None), True),
        (usd("1", "10"), usd("1", "10", "0.9"), False),
        (usd("1", "10"), usd("1", "10", "0.1"), True),  # cached input paid the input price before
        (usd("1", "10"), usd("1", "10", "1", "1"), False),
        (usd("0"), usd("0"), False),
        (usd("0"), usd("0.001"), True),
        (usd("1"), usd("1", None, None, None, "5"), True),
    ],
)
def test_a_change_above_30_percent_of_any_unit_price_waits(before, after, waits):
    bring_in(says(before))
    plan = bring_in(says(before), says(after, JUNE))
    assert bool(plan.waiting_models) == waits
    assert bool(plan.changed_models) != waits
    assert ModelPrice.objects.get(effective_from=JUNE).state == (PriceState.PENDING if waits else PriceState.ACTIVE)


def test_what_waits_is_not_offered_again_and_costs_nothing_until_it_is_approved(operator):
    bring_in(says(usd("10")), says(usd("20"), above=200_000))
    cut = (says(usd("10")), says(usd("20"), above=200_000), says(usd("2"), JUNE), says(usd("19"), JUNE, above=200_000))
    assert bring_in(*cut).waiting_models == [("openai", "gpt")]
    assert cost(tokens=1_000) == Decimal("0.01")
    assert bring_in(*cut).prices == []
    waiting = ModelPrice.objects.filter(state=PriceState.PENDING)
    before = version()
    approved = catalog.approve_price(waiting.get(context_above=0), acting_user=operator)
    # Bands of one date are one decision, although only one of them moved far.
    assert len(approved) == 2
    assert version() == before + 1
    assert cost(tokens=1_000) == Decimal("0.002")
    assert cost(tokens=1_000_000) == 19
    assert cost(at=MARCH, tokens=1_000) == Decimal("0.01")
    assert AuditEntry.objects.filter(action="price.approved", actor=operator).count() == 2
    with pytest.raises(ValidationError):
        catalog.approve_price(approved[0], acting_user=operator)


def test_what_was_rejected_stays_rejected_until_the_source_says_something_else(operator):
    bring_in(says(usd("10")))
    bring_in(says(usd("1")))
    catalog.reject_price(ModelPrice.objects.get(state=PriceState.PENDING), acting_user=operator)
    assert bring_in(says(usd("1"))).prices == []
    assert cost() == 10
    assert bring_in(says(usd("11"))).changed_models == [("openai", "gpt")]
    assert cost() == 11


def test_a_waiting_price_is_superseded_when_the_source_changes_its_mind(operator):
    bring_in(says(usd("10")))
    bring_in(says(usd("1")))
    assert bring_in(says(usd("10"))).prices == []
    waiting = ModelPrice.objects.get(revision=2)
    assert waiting.state == PriceState.SUPERSEDED
    with pytest.raises(ValidationError):
        catalog.approve_price(waiting, acting_user=operator)
    assert bring_in(says(usd("1"))).waiting_models == [("openai", "gpt")]


def test_a_new_tier_is_active_at_once_but_a_change_of_a_known_one_waits():
    bring_in(says(usd("10")))
    assert bring_in(says(usd("10")), says(usd("5"), tier="batch")).waiting_models == []
    assert cost(tier="batch") == 5
    assert bring_in(says(usd("10")), says(usd("2"), tier="batch")).waiting_models == [("openai", "gpt")]


def test_a_band_window_or_date_that_the_source_drops_is_withdrawn_not_deleted(operator):
    first = says(usd("10"))
    window = says(usd("9"), window=(time(1), time(4)))
    bring_in(first, says(usd("12"), above=200_000), window, says(usd("11"), JUNE))
    rows = ModelPrice.objects.count()
    plan = bring_in(first)
    assert len(plan.prices) == 3
    assert plan.waiting_models == []
    assert ModelPrice.objects.count() == rows + 3
    assert cost() == 10
    assert cost(at=MARCH + timedelta(hours=2)) == 10
    assert bring_in(first).prices == []


def test_where_the_source_starts_later_than_before_its_oldest_price_reaches_back():
    bring_in(says(usd("10")))
    bring_in(says(usd("11"), MARCH))
    assert cost(at=MARCH - timedelta(days=1)) == cost() == 11
    assert bring_in(says(usd("11"), MARCH)).prices == []


def test_a_dropped_band_that_was_much_dearer_waits():
    bring_in(says(usd("10")), says(usd("20"), above=200_000))
    assert bring_in(says(usd("10"))).waiting_models == [("openai", "gpt")]
    assert cost() == 20


def test_a_model_that_the_source_no_longer_lists_keeps_its_price():
    bring_in(says(usd("1")), says(usd("2"), model="old"))
    assert bring_in(says(usd("1"))).unlisted_models == [("openai", "old")]
    assert cost("old") == 2


def test_an_operators_price_is_never_replaced_unasked(operator):
    bring_in(says(usd("1")))
    add(operator, unit_prices=usd("1.1"), effective_from=MARCH)
    assert bring_in(says(usd("1"))).prices == []
    assert cost() == Decimal("1.1")
    assert bring_in(says(usd("1")), says(usd("1.2"), JUNE)).waiting_models == [("openai", "gpt")]
    assert cost() == Decimal("1.1")
    # Before the operator's date the catalogue may go on.
    assert bring_in(says(usd("1.25"))).changed_models == [("openai", "gpt")]
    assert cost(at=MARCH - timedelta(days=1)) == Decimal("1.25")


def test_aliases_follow_the_source_to_a_similar_price_only_and_never_from_an_operator(operator):
    models = (says(usd("1"), model="a"), says(usd("1.2"), model="b"), says(usd("9"), model="c"))
    bring_in(*models, aliases=[("newest", "a")])
    assert len(bring_in(*models, aliases=[("newest", "b")]).moved_aliases) == 1
    assert cost("newest") == Decimal("1.2")
    assert len(bring_in(*models, aliases=[("newest", "c")]).held_aliases) == 1
    assert cost("newest") == Decimal("1.2")
    catalog.set_alias(acting_user=operator, provider="OpenAI", alias=" Newest", model="C")
    assert cost("newest") == 9
    assert bring_in(*models, aliases=[("newest", "a")]).moved_aliases == []
    for alias, model in (("x", "nothing"), ("a", "b")):
        with pytest.raises(ValidationError):
            catalog.set_alias(acting_user=operator, provider="openai", alias=alias, model=model)


@pytest.mark.parametrize(
    "bad",
    [
        says(usd("-1")),
        says(usd("NaN")),
        says(usd("Infinity")),
        says(usd("1000001")),
        says(usd("0.0000000000000000001")),
        replace(says(usd("1")), model=""),
        replace(says(usd("1")), model="m" * 201),
        replace(says(usd("1")), source_url="u" * 501),
        says(usd("2"), model="fine"),  # the same key twice
    ],
)
def test_one_bad_row_stops_the_whole_import(bad):
    with pytest.raises(InvalidCatalogueError):
        bring_in(says(usd("1"), model="fine"), bad)
    assert not ModelPrice.objects.exists()


def test_an_empty_source_is_refused_and_the_command_says_why(monkeypatch):
    monkeypatch.setattr("ingest.management.commands.import_prices.read_bundled", source)
    with pytest.raises(CommandError, match="there are no prices in it"):
        call_command("import_prices", stdout=StringIO())
