import os
import threading
import warnings
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from django.db import OperationalError, connection

from ingest import pricing
from ingest.models import CatalogVersion, ModelAlias, ModelPrice
from ingest.models.prices import SINCE_EVER
from ingest.price_book import UNPRICED

NOON = datetime(2026, 6, 15, 12, 0, tzinfo=UTC)


def call(model="m"):
    return {
        "workspace_id": UUID(int=1), "provider": "openai", "model": model, "service_tier": "standard",
        "occurred_at": NOON, "uncached_input_tokens": 1_000, "cache_read_tokens": 0, "cache_write_tokens": 0,
        "output_tokens": 0,
    }  # fmt: skip


def store(model="m", **fields):
    defaults = {
        "effective_from": SINCE_EVER,
        "input_usd_per_1m": 1,
        "source": "operator",
        "checked_on": date(2026, 1, 1),
    }
    row = ModelPrice.objects.create(provider="openai", model=model, **defaults | fields)
    version, _ = CatalogVersion.objects.get_or_create()
    CatalogVersion.objects.update(version=version.version + 1)
    return row


def test_the_book_is_read_once_and_again_when_the_catalogue_has_changed(empty_catalogue, django_assert_num_queries):
    store()
    with django_assert_num_queries(3):
        book = pricing.current_book()
    with django_assert_num_queries(0):
        assert pricing.current_book() is book
    pricing.look_again()
    with django_assert_num_queries(1):
        assert pricing.current_book() is book
    store("n", state="pending")
    pricing.look_again()
    assert pricing.current_book().quote(**call("n")) == UNPRICED
    ModelPrice.objects.filter(model="n").update(state="active")
    CatalogVersion.objects.update(version=99)
    pricing.look_again()
    assert pricing.current_book().quote(**call("n")).cost_usd == Decimal("0.001")


def test_it_looks_for_changes_every_five_seconds_by_one_thread_and_makes_nobody_wait(empty_catalogue, monkeypatch):
    store()
    clock = [100.0]
    monkeypatch.setattr(pricing, "monotonic", lambda: clock[0])
    book = pricing.current_book()
    store("n")
    clock[0] += 4.9
    assert pricing.current_book() is book
    clock[0] += 0.2
    with pricing._shelf.lock:  # another thread is looking
        assert pricing.current_book() is book
    assert pricing.current_book() is not book


def test_a_database_error_keeps_the_old_book_and_the_next_look_works_again(empty_catalogue, monkeypatch):
    store()
    book = pricing.current_book()
    store("n")

    def away():
        raise OperationalError("away")

    with monkeypatch.context() as patch:
        patch.setattr(pricing, "_catalogue_version", away)
        pricing.look_again()
        assert pricing.current_book() is book
    pricing.look_again()
    assert pricing.current_book() is not book


def test_without_any_book_a_database_error_is_said_at_once_and_tried_again_a_second_later(empty_catalogue, monkeypatch):
    store()
    clock = [100.0]
    monkeypatch.setattr(pricing, "monotonic", lambda: clock[0])
    attempts = []

    def away():
        attempts.append(1)
        raise OperationalError("away")

    with monkeypatch.context() as patch:
        patch.setattr(pricing, "_catalogue_version", away)
        pricing.warm_up()  # a server may start before its database
        for _ in range(3):
            with pytest.raises(pricing.PriceBookUnavailable):
                pricing.current_book()
    assert len(attempts) == 1
    clock[0] += 1.1
    assert pricing.current_book().quote(**call()).cost_usd == Decimal("0.001")


def test_a_thread_outside_a_request_gives_its_connection_back(django_db_setup, django_db_blocker):
    seen = []

    def work():
        pricing.current_book()
        seen.append(connection.connection)

    pricing.forget_book()
    with django_db_blocker.unblock():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    pricing.forget_book()
    assert seen == [None]


def test_a_fork_while_another_thread_looks_leaves_the_child_able_to_look():
    with pricing._shelf.lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads; the child does nothing else
        child = os.fork()
        if child == 0:
            os._exit(0 if pricing._shelf.lock.acquire(blocking=False) else 1)
    assert os.waitpid(child, 0)[1] == 0


# --- The public list ------------------------------------------------------------------------------------------------


def test_the_list_shows_the_standard_base_price_in_force_with_other_names(empty_catalogue):
    store("gpt-4o", input_usd_per_1m=Decimal("2.5"), output_usd_per_1m=10, cached_input_usd_per_1m=Decimal("1.25"))
    store("gpt-4o", input_usd_per_1m=5, context_above=1_000)
    store("gpt-4o", input_usd_per_1m=1, service_tier="batch")
    store("o3", input_usd_per_1m=10)
    store("o3", input_usd_per_1m=2, effective_from=NOON)
    ModelAlias.objects.create(provider="openai", alias="chatgpt-4o-latest", model="gpt-4o", source="operator")
    listing = pricing.pricing_models(now=NOON)
    assert listing.models == [
        {
            "provider": "openai", "model": "gpt-4o", "aliases": ["chatgpt-4o-latest"], "inputUsdPer1M": 2.5,
            "outputUsdPer1M": 10.0, "cachedInputUsdPer1M": 1.25, "cacheWriteUsdPer1M": None, "effectiveFrom": None,
            "checkedOn": "2026-01-01",
        },
        {
            "provider": "openai", "model": "o3", "aliases": [], "inputUsdPer1M": 2.0, "outputUsdPer1M": None,
            "cachedInputUsdPer1M": None, "cacheWriteUsdPer1M": None, "effectiveFrom": "2026-06-15T12:00:00Z",
            "checkedOn": "2026-01-01",
        },
    ]  # fmt: skip
    for wanted in ({"model": "Chatgpt-4o-latest"}, {"provider": " OpenAI", "model": "gpt-4o"}):
        assert [row["model"] for row in pricing.pricing_models(**wanted, now=NOON).models] == ["gpt-4o"]
    assert pricing.pricing_models(provider="azure", now=NOON).models == []


def test_the_entity_tag_follows_the_catalogue_and_the_clock(empty_catalogue):
    store("o3", input_usd_per_1m=10)
    store("o3", input_usd_per_1m=2, effective_from=NOON)
    tag = pricing.pricing_models(now=NOON).etag
    assert tag == pricing.pricing_models(now=NOON + timedelta(days=1)).etag
    assert tag != pricing.pricing_models(now=NOON - timedelta(seconds=1)).etag
    store("o4")
    pricing.look_again()
    assert tag != pricing.pricing_models(now=NOON).etag
