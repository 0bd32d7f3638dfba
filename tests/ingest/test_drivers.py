"""Why spend differs: every cause in its place, and nothing left over."""

from decimal import Decimal
from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.drivers import Driver, explain_change
from ingest.models import ModelPrice
from ingest.models.prices import SINCE_EVER
from ingest.report_rows import Figures, UsageCell

pytestmark = pytest.mark.django_db
STEP = Decimal("1E-12")


def cell(requests=10, cost="1", *, endpoint="chat", model="m", version="v1", price=1, tokens=1_000, output=0):
    figures = Figures(requests=requests, cost_usd=Decimal(cost), uncached_input_tokens=tokens, output_tokens=output)
    return UsageCell("host", model, endpoint, version, price, figures)


def effects(before, now):
    """The effects that are not zero."""
    change = explain_change(before, now)
    return {driver: amount.quantize(STEP) for driver, amount in change.effects.items() if amount.quantize(STEP)}


def test_more_of_the_same_is_volume():
    assert effects([cell(10, "1")], [cell(25, "2.5")]) == {Driver.VOLUME: Decimal("1.5")}


def test_new_and_gone_endpoints_are_named_and_change_nothing_else():
    before, now = [cell(), cell(4, "2", endpoint="old")], [cell(), cell(8, "3", endpoint="new")]
    assert effects(before, now) == {Driver.NEW_ENDPOINTS: 3, Driver.GONE_ENDPOINTS: -2}


def test_requests_that_move_to_a_dearer_endpoint_are_endpoint_mix():
    before = [cell(10, "1", endpoint="cheap"), cell(10, "10", endpoint="dear")]
    now = [cell(5, "0.5", endpoint="cheap"), cell(15, "15", endpoint="dear")]
    assert effects(before, now) == {Driver.ENDPOINT_MIX: Decimal("4.5")}


def test_another_model_in_the_same_endpoint_is_model_mix():
    assert effects([cell(10, "1", model="small")], [cell(10, "7", model="large")]) == {Driver.MODEL_MIX: 6}


def test_another_prompt_version_is_named():
    assert effects([cell(10, "1", version="v1")], [cell(10, "4", version="v2")]) == {Driver.PROMPT_VERSIONS: 3}


def test_the_same_version_with_more_tokens_is_tokens():
    assert effects([cell(10, "1")], [cell(10, "2", tokens=2_000)]) == {Driver.TOKENS: 1}


@pytest.fixture
def price():
    def make(model="m", revision=1, **units):
        row = ModelPrice.objects.create(
            provider="host", model=model, effective_from=SINCE_EVER, revision=revision, checked_on="2026-01-01", **units
        )
        return row.pk

    return make


def test_a_later_price_row_of_the_same_kind_is_price(price):
    old, new = price(input_usd_per_1m=1_000), price(input_usd_per_1m=1_500, revision=2)
    # A tenth more tokens at the old price, all of them at the new one.
    before = [cell(10, "1", price=old, tokens=1_000)]
    now = [cell(10, "1.65", price=new, tokens=1_100)]
    assert effects(before, now) == {Driver.TOKENS: Decimal("0.1"), Driver.PRICE: Decimal("0.55")}


def test_another_context_band_is_not_a_price_change(price):
    base, band = price(input_usd_per_1m=1_000), price(input_usd_per_1m=2_000, context_above=500)
    assert effects([cell(10, "1", price=base)], [cell(10, "2", price=band)]) == {Driver.TOKENS: 1}


def test_a_model_that_has_got_a_price_is_price(price):
    new = price(input_usd_per_1m=1_000)
    assert effects([cell(10, "0", price=None)], [cell(10, "1", price=new)]) == {Driver.PRICE: 1}


def test_the_main_driver_of_an_endpoint_and_of_all():
    change = explain_change([cell(10, "1"), cell(1, "1", endpoint="b")], [cell(10, "9", tokens=9_000)])
    assert change.main_driver is Driver.TOKENS
    assert [each.main_driver for each in change.endpoints] == [Driver.TOKENS, Driver.GONE_ENDPOINTS]


def test_nothing_against_nothing():
    change = explain_change([], [])
    assert change.difference == 0
    assert change.main_driver is None
    assert change.endpoints == []


cells = st.lists(
    st.builds(
        cell,
        st.integers(1, 1_000),
        st.decimals(0, 1_000, places=12),
        endpoint=st.sampled_from("abc"),
        model=st.sampled_from("mn"),
        version=st.sampled_from(["v1", "v2", "v3"]),
        tokens=st.integers(0, 100_000),
    ),
    max_size=20,
)


@given(cells, cells)
@settings(max_examples=200, deadline=None)
def test_effects_add_up_to_the_difference_as_a_whole_and_by_endpoint(before, now):
    change = explain_change(before, now)
    assert sum(change.effects.values()).quantize(STEP) == change.difference
    for endpoint in change.endpoints:
        assert sum(endpoint.effects.values()).quantize(STEP) == endpoint.difference
    by_endpoint = sorted(now, key=lambda each: each.endpoint_tag)
    for tag, group in groupby(by_endpoint, key=lambda each: each.endpoint_tag):
        cost = sum(each.figures.cost_usd for each in group)
        assert next(each.now_usd for each in change.endpoints if each.endpoint_tag == tag) == cost
