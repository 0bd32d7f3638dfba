"""The client beside the local double: the same calls, and what comes of them."""

from dataclasses import replace
from datetime import timedelta

import pytest

from billing.providers.base import (
    ProviderNotFound,
    ProviderRefused,
    ProviderUnavailable,
)
from billing.providers.lemonsqueezy import LemonSqueezy
from tests.billing.provider_facts import WISH
from tests.billing.sandbox.running import API_KEY, STORE_ID, WEBHOOK_SECRET, running_shop

pytestmark = pytest.mark.usefixtures("_redis_used")


@pytest.fixture
def shop(settings):
    """The double and the client of its one store."""
    settings.LEMONSQUEEZY_TEST_MODE = True
    with running_shop("http://127.0.0.1:9/never-called") as (shop, address):
        yield (
            shop,
            LemonSqueezy(base=f"{address}/v1", api_key=API_KEY, webhook_secret=WEBHOOK_SECRET, store_id=STORE_ID),
        )


def test_a_subscription_lives_as_it_was_asked_to(shop):
    double, provider = shop
    url = provider.create_checkout(replace(WISH, variant_id="201"))
    assert url.startswith(double.base_url)
    [checkout] = double.checkouts()
    number = str(double.pay(checkout.id))
    assert provider.fetch_subscription(number).status == "active"
    provider.change_plan(number, "301", charge_now=True)
    assert provider.fetch_subscription(number).variant_id == "301"
    provider.cancel(number)
    cancelled = provider.fetch_subscription(number)
    assert (cancelled.status, cancelled.ends_at) == ("cancelled", cancelled.renews_at)
    provider.resume(number)
    assert provider.fetch_subscription(number).status == "active"
    invoices = provider.fetch_invoices(number)
    assert [each.reason for each in invoices] == ["updated", "initial"]
    assert [each.subscription_id for each in provider.find_subscriptions(WISH.email, "301")] == [number]
    assert provider.find_subscriptions("somebody@example.com", "301") == []
    assert provider.portal_links(number).portal_url.startswith(double.base_url)


def test_a_buyer_without_a_name_can_subscribe(shop):
    double, provider = shop
    assert provider.create_checkout(replace(WISH, variant_id="201", name="")).startswith(double.base_url)


def test_after_a_trial_a_cancellation_is_not_taken_back_from_here(shop):
    double, provider = shop
    double.set_settings(trial_days=7)
    number = double.pay(double.create_checkout(201, checkout_data={"email": WISH.email}).id)
    provider.cancel(str(number))
    provider.resume(str(number))
    double.advance(timedelta(days=8))
    provider.cancel(str(number))
    with pytest.raises(ProviderRefused, match="billing portal"):
        provider.resume(str(number))
    # There it works.
    double.resume(number)
    assert provider.fetch_subscription(str(number)).status == "active"


def test_what_the_double_tells_is_what_it_answers(shop):
    double, provider = shop
    provider.create_checkout(replace(WISH, variant_id="201"))
    [checkout] = double.checkouts()
    number = str(double.pay(checkout.id))
    told = [
        provider.read_webhook(body)
        for _, body, headers in double.deliveries.take()
        if provider.verify_webhook(body, headers["X-Signature"])
    ]
    assert {each.name for each in told} >= {"order_created", "subscription_created", "subscription_payment_success"}
    assert {each.checkout_id for each in told if each.name == "subscription_created"} == {WISH.checkout_id}
    assert {each.subscription_id for each in told} == {number, ""}
    assert {each.store_id for each in told} == {STORE_ID}
    assert {each.is_test for each in told} == {True}
    assert len({each.dedupe_key for each in told}) == len(told)
    latest = [each.subscription for each in told if each.subscription is not None][-1]
    assert latest == provider.fetch_subscription(number)


def test_the_doubles_store_sells_by_the_month_and_by_the_year(shop):
    _, provider = shop
    sold = {each.variant_id: (each.interval, each.is_test) for each in provider.fetch_variants()}
    assert (sold["201"], sold["202"]) == (("month", True), ("year", True))


def test_the_doubles_refusals_are_understood(shop):
    double, provider = shop
    with pytest.raises(ProviderNotFound):
        provider.fetch_subscription("999999")
    provider.create_checkout(replace(WISH, variant_id="201"))
    [checkout] = double.checkouts()
    number = str(double.pay(checkout.id))
    with pytest.raises(ProviderRefused):
        provider.change_plan(number, "999999", charge_now=False)
    stranger = LemonSqueezy(base=f"{double.base_url}/v1", api_key="wrong", webhook_secret="", store_id=STORE_ID)
    with pytest.raises(ProviderUnavailable, match="key"):
        stranger.fetch_subscription(number)
