"""Operators' own prices, and what the database promises about every price."""

from datetime import datetime, time, timedelta

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from ingest import catalog
from ingest.models import CatalogVersion, ModelPrice
from ingest.models.prices import OPERATOR, PriceState
from tests.prices import JUNE, MARCH, add, bring_in, cost, says, usd
from workspaces.models import AuditEntry, Workspace

pytestmark = pytest.mark.usefixtures("empty_catalogue")


def test_an_entry_is_in_force_at_once_under_clean_names_and_audited(operator):
    stored = add(operator, provider=" Azure-OpenAI", model=" GPT-5 ", unit_prices=usd("1.25"))
    assert (stored.provider, stored.model, stored.source) == ("azure", "gpt-5", OPERATOR)
    assert cost("gpt-5", provider="azure") == 1.25
    assert CatalogVersion.objects.get().version == 1
    entry = AuditEntry.objects.get(action="price.added")
    assert entry.actor == operator
    assert entry.data["input_usd_per_1m"] == "1.25"


def test_an_entry_for_the_same_date_corrects_and_supersedes_what_waits(operator):
    bring_in(says(usd("10")))
    bring_in(says(usd("1")))
    assert add(operator, unit_prices=usd("4")).revision == 3
    assert ModelPrice.objects.get(revision=2).state == PriceState.SUPERSEDED
    assert cost() == 4


def test_a_workspace_has_its_own_price_until_it_is_withdrawn(operator):
    workspace = Workspace.objects.create(name="Acme", slug="acme-prices")
    bring_in(says(usd("10")))
    add(operator, workspace=workspace, unit_prices=usd("8"), effective_from=MARCH)
    add(operator, workspace=workspace, unit_prices=usd(), effective_from=JUNE, is_withdrawn=True)
    april = MARCH + timedelta(days=31)
    assert (cost(at=april, workspace_id=workspace.pk), cost(at=april)) == (8, 10)
    assert cost(at=JUNE, workspace_id=workspace.pk) == 10
    assert bring_in(says(usd("10"))).prices == []


@pytest.mark.parametrize(
    ("fields", "at_fault"),
    [
        ({"unit_prices": usd("-0.01")}, "input_usd_per_1m"),
        ({"unit_prices": usd("1", "NaN")}, "output_usd_per_1m"),
        ({"unit_prices": usd("1", "1", "Infinity")}, "cached_input_usd_per_1m"),
        ({"unit_prices": usd("1", "1", "1", "1E+9")}, "cache_write_usd_per_1m"),
        ({"unit_prices": usd("1", "1", None, None, "1E-19")}, "request_usd_per_1k"),
        ({"unit_prices": usd(None, None, "1")}, "input_usd_per_1m"),
        ({"is_withdrawn": True}, "is_withdrawn"),
        ({"effective_from": datetime(2026, 1, 1)}, "effective_from"),  # noqa: DTZ001
        ({"provider": " "}, "provider"),
        ({"model": ""}, "model"),
        ({"model": "m" * 201}, "model"),
        ({"service_tier": "fast"}, "service_tier"),
        ({"context_above": -1}, "context_above"),
        ({"window_start": time(1)}, "window_end"),
        ({"window_start": time(1), "window_end": time(1)}, "window_end"),
        ({"source_url": "not an address"}, "source_url"),
    ],
)
def test_a_bad_entry_names_its_field_and_stores_nothing(operator, fields, at_fault):
    with pytest.raises(ValidationError) as refusal:
        add(operator, **fields)
    assert at_fault in refusal.value.message_dict
    assert not ModelPrice.objects.exists()


def test_unusual_unit_prices_are_warned_about(operator):
    bring_in(says(usd("2", "8")), aliases=[("gpt-latest", "gpt")])

    def warnings(units, model="gpt"):
        return catalog.unusual_unit_prices(
            provider="openai", model=model, service_tier="standard", moment=JUNE, unit_prices=units
        )

    assert warnings(usd("10", "1.6", "0.4")) == {}
    assert warnings(usd("0.002", "8")).keys() == {"input_usd_per_1m"}
    assert warnings(usd("10.1", "1.5", "0.3")).keys() == {
        "input_usd_per_1m", "output_usd_per_1m", "cached_input_usd_per_1m",
    }  # fmt: skip
    assert warnings(usd("2"), "gpt-latest").keys() == {"model"}
    assert warnings(usd("2"), "nothing").keys() == {"model"}


def test_the_price_that_a_waiting_one_would_replace(operator):
    bring_in(says(usd("10")), says(usd("30"), window=(time(1), time(4))), says(usd("20"), above=200_000))
    bring_in(
        says(usd("10")), says(usd("30"), window=(time(1), time(4))), says(usd("20"), above=200_000),
        says(usd("5"), JUNE, above=200_000), says(usd("9"), JUNE, window=(time(1), time(4))),
    )  # fmt: skip
    replaced = {
        (waiting.context_above, waiting.window_start): catalog.price_in_force(waiting).unit_prices.input
        for waiting in ModelPrice.objects.filter(state=PriceState.PENDING)
    }
    assert replaced == {(200_000, None): 20, (0, time(1)): 30}


# --- The database's own promises ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"input_usd_per_1m": -1},
        {"request_usd_per_1k": -1, "input_usd_per_1m": 1},
        {},
        {"cached_input_usd_per_1m": 1},
        {"input_usd_per_1m": 1, "is_withdrawn": True},
        {"input_usd_per_1m": 1, "model": "GPT"},
        {"input_usd_per_1m": 1, "window_start": time(1)},
        {"input_usd_per_1m": 1, "service_tier": "fast"},
        {"input_usd_per_1m": 1, "state": "maybe"},
    ],
)
def test_the_database_refuses_rows_that_make_no_sense(fields):
    defaults = {"provider": "openai", "model": "gpt", "effective_from": JUNE, "source": "x", "checked_on": JUNE.date()}
    with pytest.raises(IntegrityError), transaction.atomic():
        ModelPrice.objects.create(**defaults | fields)


def test_a_revision_of_a_key_exists_once():
    bring_in(says(usd("1")))
    twin = ModelPrice.objects.get()
    twin.pk = None
    with pytest.raises(IntegrityError), transaction.atomic():
        twin.save()
