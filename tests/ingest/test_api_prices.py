import json
from datetime import date
from decimal import Decimal

import pytest

from ingest import pricing
from ingest.models import CatalogVersion, ModelAlias, ModelPrice
from ingest.models.prices import SINCE_EVER
from tests.client import ApiClient, assert_refused
from tests.ledger import make_workspace

pytestmark = pytest.mark.django_db

PATH = "/v1/public/pricing-models"
KEYS = {
    "provider",
    "model",
    "aliases",
    "inputUsdPer1M",
    "outputUsdPer1M",
    "cachedInputUsdPer1M",
    "cacheWriteUsdPer1M",
    "effectiveFrom",
    "checkedOn",
}


def add(provider, model, price="0.15", **fields):
    return ModelPrice.objects.create(
        provider=provider,
        model=model,
        **{
            "effective_from": SINCE_EVER,
            "input_usd_per_1m": Decimal(price),
            "output_usd_per_1m": Decimal("0.60"),
            "source": "operator",
            "checked_on": date(2026, 1, 2),
            **fields,
        },
    )


@pytest.fixture(autouse=True)
def _catalogue():
    ModelPrice.objects.all().delete()
    add("openai", "gpt-one", cached_input_usd_per_1m=Decimal("0.075"))
    add("openai", "gpt-two", "2.50")
    add("acme", "gpt-one", "9")
    ModelAlias.objects.create(provider="openai", alias="gpt-one-latest", model="gpt-one", source="operator")
    pricing.forget_book()
    yield
    pricing.forget_book()


def listed(query=""):
    response = ApiClient().get(PATH + query)
    assert response.status_code == 200, response.content
    body = json.loads(response.content)
    assert body["count"] == len(body["models"])
    return body["models"]


def names(query=""):
    return {(entry["provider"], entry["model"]) for entry in listed(query)}


def test_it_lists_every_price_with_every_key():
    assert names() == {("openai", "gpt-one"), ("openai", "gpt-two"), ("acme", "gpt-one")}
    assert all(set(entry) == KEYS for entry in listed())


def test_an_entry():
    [entry] = listed("?provider=openai&model=gpt-one")
    assert entry == {
        "provider": "openai",
        "model": "gpt-one",
        "aliases": ["gpt-one-latest"],
        "inputUsdPer1M": 0.15,
        "outputUsdPer1M": 0.6,
        "cachedInputUsdPer1M": 0.075,
        "cacheWriteUsdPer1M": None,
        "effectiveFrom": None,
        "checkedOn": "2026-01-02",
    }


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("?provider=acme", {("acme", "gpt-one")}),
        ("?provider=OpenAI", {("openai", "gpt-one"), ("openai", "gpt-two")}),
        ("?model=gpt-one", {("openai", "gpt-one"), ("acme", "gpt-one")}),
        ("?model=gpt-one-latest", {("openai", "gpt-one")}),
        ("?provider=&model=", {("openai", "gpt-one"), ("openai", "gpt-two"), ("acme", "gpt-one")}),
        ("?provider=nobody", set()),
        ("?model=%00", set()),
        ("?model=%ff%27%22--", set()),
        ("?unknown=1&provider=acme", {("acme", "gpt-one")}),
    ],
)
def test_it_narrows(query, found):
    assert names(query) == found


def test_a_workspaces_own_price_is_not_public():
    add("acme", "secret", workspace=make_workspace())
    pricing.forget_book()
    assert ("acme", "secret") not in names()


def test_it_is_cacheable_until_the_prices_change():
    first = ApiClient().get(PATH)
    assert first["Cache-Control"] == "public, max-age=300"
    again = ApiClient().get(PATH, **{"If-None-Match": first["ETag"]})
    assert (again.status_code, again.content, again["ETag"]) == (304, b"", first["ETag"])
    add("acme", "gpt-three")
    version, _ = CatalogVersion.objects.get_or_create(id=CatalogVersion.THE_ROW)
    version.version += 1
    version.save()
    pricing.forget_book()
    changed = ApiClient().get(PATH, **{"If-None-Match": first["ETag"]})
    assert changed.status_code == 200
    assert changed["ETag"] != first["ETag"]


@pytest.mark.parametrize("field", ["provider", "model"])
def test_an_over_long_name_is_refused(field):
    assert_refused(ApiClient().get(f"{PATH}?{field}={'x' * 201}"), 400, "invalid_payload", field)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_it_only_reads(method):
    response = ApiClient().send(method, PATH)
    assert_refused(response, 405, "method_not_allowed")
    assert response["Allow"] == "GET, HEAD"


def test_head_has_the_tag_and_no_body():
    response = ApiClient().send("HEAD", PATH)
    assert (response.status_code, response.content) == (200, b"")
    assert response["ETag"]


def test_it_needs_no_query_once_the_book_is_read(django_assert_num_queries):
    listed()
    with django_assert_num_queries(0):
        listed("?provider=acme")
