"""The double's subscriptions live as the provider describes it, and each change tells what it should."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from billing.sandbox.errors import NotFound, PaymentDeclined, Refused
from billing.sandbox.life import next_period_end
from billing.sandbox.shop import BAD_CARD, GOOD_CARD, Shop
from tests.billing.sandbox.running import open_shop

STARTER, PRO, PRO_YEARLY, TEAM = 101, 201, 202, 301
DAY = timedelta(days=1)
# It has 31 days, so that what is bought on it is charged whole; and it is far enough ahead of every clock.
OPENED_AT = datetime(2099, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def shop() -> Shop:
    """Its time passes only as a test says."""
    shop = open_shop()
    shop.clock.freeze()
    shop.clock.advance(OPENED_AT - shop.clock.now())
    return shop


def buy(shop: Shop, variant_id: int = PRO, **options: Any) -> int:
    """A subscription of which everything has been told."""
    checkout = shop.create_checkout(
        variant_id,
        checkout_data={"email": "ann@example.com", "name": "Ann", "custom": {"checkout_id": 7}},
        checkout_options=options,
    )
    subscription_id = shop.pay(checkout.id)
    shop.deliveries.take()
    return subscription_id


def told(shop: Shop) -> list[str]:
    return [name for name, _, _ in shop.deliveries.take()]


def told_fully(shop: Shop) -> list[tuple[str, dict[str, Any]]]:
    return [(name, json.loads(body)["data"]) for name, body, _ in shop.deliveries.take()]


def test_a_purchase_tells_of_order_subscription_payment_and_change(shop: Shop) -> None:
    checkout = shop.create_checkout(PRO, checkout_data={"email": "ann@example.com"})
    subscription = shop.subscription(shop.pay(checkout.id))
    events = told_fully(shop)
    assert [(name, data["type"]) for name, data in events] == [
        ("order_created", "orders"),
        ("subscription_created", "subscriptions"),
        ("subscription_payment_success", "subscription-invoices"),
        ("subscription_updated", "subscriptions"),
    ]
    invoice = events[2][1]
    assert invoice["id"] != str(subscription.id)
    assert invoice["attributes"]["subscription_id"] == subscription.id
    assert invoice["attributes"]["billing_reason"] == "initial"
    assert (subscription.status, subscription.ends_at) == ("active", None)
    assert subscription.renews_at == next_period_end(subscription.created_at, "month", subscription.created_at.day)


def test_a_declined_card_buys_nothing_and_tells_nothing(shop: Shop) -> None:
    checkout = shop.create_checkout(PRO, checkout_data={"email": "ann@example.com"})
    with pytest.raises(PaymentDeclined):
        shop.pay(checkout.id, card=BAD_CARD)
    assert (shop.subscriptions(), told(shop)) == ([], [])


def test_a_checkout_can_be_paid_again_until_it_expires(shop: Shop) -> None:
    end = shop.clock.now() + timedelta(hours=1)
    checkout = shop.create_checkout(PRO, checkout_data={"email": "ann@example.com"}, expires_at=end)
    first, second = (shop.subscription(shop.pay(checkout.id)) for _ in range(2))
    assert first.id != second.id
    assert first.customer_id == second.customer_id
    shop.advance(timedelta(hours=1))
    with pytest.raises(Refused, match="expired"):
        shop.pay(checkout.id)


def test_a_change_of_plan_takes_effect_at_once(shop: Shop) -> None:
    subscription_id = buy(shop)
    shop.change_variant(subscription_id, TEAM)
    assert told(shop) == ["subscription_updated", "subscription_plan_changed"]
    assert shop.subscription(subscription_id).variant_id == TEAM
    shop.change_variant(subscription_id, TEAM)
    assert told(shop) == []


def test_the_difference_is_charged_at_once_or_with_the_next_renewal_or_never(shop: Shop) -> None:
    now, later, never = (buy(shop) for _ in range(3))
    shop.change_variant(now, TEAM, invoice_immediately=True)
    assert told(shop)[2:] == ["subscription_payment_success"]
    shop.change_variant(later, TEAM)
    shop.change_variant(never, TEAM, invoice_immediately=True, disable_prorations=True)
    assert "subscription_payment_success" not in told(shop)
    shop.advance(32 * DAY)

    def totals(subscription_id: int) -> list[tuple[str, int]]:
        invoices = shop.invoices(subscription_id=str(subscription_id))
        return [(invoice.billing_reason, invoice.total_cents) for invoice in reversed(invoices)]

    assert totals(now) == [("initial", 4900), ("updated", 15000), ("renewal", 19900)]
    assert totals(later) == [("initial", 4900), ("renewal", 34900)]
    assert totals(never) == [("initial", 4900), ("renewal", 19900)]


def test_a_new_interval_begins_a_new_period(shop: Shop) -> None:
    subscription_id = buy(shop)
    shop.advance(10 * DAY)
    shop.change_variant(subscription_id, PRO_YEARLY)
    now = shop.clock.now()
    renews_at = shop.subscription(subscription_id).renews_at
    assert renews_at == next_period_end(now, "year", now.day)


def test_an_immediate_invoice_that_fails_makes_it_past_due(shop: Shop) -> None:
    subscription_id = buy(shop)
    shop.update_card(subscription_id, BAD_CARD)
    assert told(shop) == ["subscription_updated"]
    shop.change_variant(subscription_id, TEAM, invoice_immediately=True)
    assert told(shop) == ["subscription_updated", "subscription_plan_changed", "subscription_payment_failed"]
    assert shop.subscription(subscription_id).status == "past_due"


def test_cancel_resume_and_the_end(shop: Shop) -> None:
    subscription_id = buy(shop)
    shop.cancel(subscription_id)
    cancelled = shop.subscription(subscription_id)
    assert (cancelled.status, cancelled.ends_at) == ("cancelled", cancelled.renews_at)
    assert told(shop) == ["subscription_cancelled", "subscription_updated"]
    shop.resume(subscription_id)
    assert (shop.subscription(subscription_id).status, shop.subscription(subscription_id).ends_at) == ("active", None)
    assert told(shop) == ["subscription_resumed", "subscription_updated"]
    shop.cancel(subscription_id)
    told(shop)
    shop.advance(32 * DAY)
    ended = shop.subscription(subscription_id)
    assert ended.status == "expired"
    assert ended.updated_at == ended.ends_at == cancelled.ends_at
    assert told(shop) == ["subscription_expired", "subscription_updated"]


def test_an_expired_one_can_neither_be_resumed_nor_changed(shop: Shop) -> None:
    subscription_id = buy(shop)
    shop.cancel(subscription_id)
    shop.advance(32 * DAY)
    told(shop)
    for act in (
        lambda: shop.resume(subscription_id),
        lambda: shop.change_variant(subscription_id, TEAM),
        lambda: shop.cancel(subscription_id),
        lambda: shop.pause(subscription_id, "free"),
        lambda: shop.update_card(subscription_id, GOOD_CARD),
    ):
        with pytest.raises(Refused):
            act()
    assert told(shop) == []


def test_it_renews_on_its_day_each_month(shop: Shop) -> None:
    subscription_id = buy(shop)
    first = shop.subscription(subscription_id).renews_at
    shop.advance(first - shop.clock.now() + DAY)
    assert told(shop) == ["subscription_payment_success", "subscription_updated"]
    renewed = shop.subscription(subscription_id)
    assert (renewed.status, renewed.updated_at) == ("active", first)
    assert renewed.renews_at == next_period_end(first, "month", renewed.billing_anchor)


def test_short_months_charge_on_their_last_day_and_the_anchor_stays() -> None:
    january = datetime(2027, 1, 31, 12, tzinfo=UTC)
    february = next_period_end(january, "month", 31)
    assert february == datetime(2027, 2, 28, 12, tzinfo=UTC)
    assert next_period_end(february, "month", 31) == datetime(2027, 3, 31, 12, tzinfo=UTC)
    leap_day = datetime(2028, 2, 29, tzinfo=UTC)
    assert next_period_end(leap_day, "year", 29) == datetime(2029, 2, 28, tzinfo=UTC)


def test_four_retries_over_two_weeks_then_unpaid_then_expired(shop: Shop) -> None:
    subscription_id = buy(shop)
    shop.update_card(subscription_id, BAD_CARD)
    due = shop.subscription(subscription_id).renews_at
    told(shop)
    shop.advance(due - shop.clock.now())
    assert told(shop) == ["subscription_payment_failed", "subscription_updated"]
    late = shop.subscription(subscription_id)
    assert late.status == "past_due"
    assert due < late.renews_at < due + 14 * DAY
    shop.advance(13 * DAY)
    assert told(shop).count("subscription_payment_failed") == 3
    assert shop.subscription(subscription_id).status == "past_due"
    shop.advance(DAY)
    assert told(shop) == ["subscription_payment_failed", "subscription_updated"]
    assert shop.subscription(subscription_id).status == "unpaid"
    shop.advance(14 * DAY)
    assert told(shop) == ["subscription_expired", "subscription_updated"]
    assert shop.subscription(subscription_id).status == "expired"
    assert [invoice.status for invoice in shop.invoices()] == ["void", "paid"]


def test_without_dunning_it_is_unpaid_for_ever(shop: Shop) -> None:
    shop.set_settings(dunning_days=0)
    subscription_id = buy(shop)
    shop.update_card(subscription_id, BAD_CARD)
    shop.advance(400 * DAY)
    assert shop.subscription(subscription_id).status == "unpaid"


@pytest.mark.parametrize("days", [32, 50])
def test_a_mended_card_recovers_the_open_invoice(shop: Shop, days: int) -> None:
    subscription_id = buy(shop)
    shop.update_card(subscription_id, BAD_CARD)
    shop.advance(days * DAY)
    assert shop.subscription(subscription_id).status == ("past_due" if days == 32 else "unpaid")
    told(shop)
    shop.update_card(subscription_id, GOOD_CARD)
    events = told_fully(shop)
    assert [name for name, _ in events] == [
        "subscription_payment_success",
        "subscription_payment_recovered",
        "subscription_updated",
    ]
    assert events[0][1]["id"] == events[1][1]["id"]
    recovered = shop.subscription(subscription_id)
    assert recovered.status == "active"
    assert recovered.renews_at == recovered.period_ends_at > shop.clock.now()


def test_an_unpaid_one_that_is_cancelled_ends_at_once(shop: Shop) -> None:
    subscription_id = buy(shop)
    shop.update_card(subscription_id, BAD_CARD)
    shop.advance(50 * DAY)
    shop.cancel(subscription_id)
    assert shop.subscription(subscription_id).status == "expired"


def test_a_pause_collects_nothing_and_ends_by_itself(shop: Shop) -> None:
    subscription_id = buy(shop)
    shop.pause(subscription_id, "free", shop.clock.now() + 70 * DAY)
    assert told(shop) == ["subscription_paused", "subscription_updated"]
    shop.advance(69 * DAY)
    assert (shop.subscription(subscription_id).status, len(shop.invoices())) == ("paused", 1)
    told(shop)
    shop.advance(DAY)
    assert told(shop) == ["subscription_unpaused", "subscription_updated"]
    assert shop.subscription(subscription_id).status == "active"


def test_pauses_that_make_no_sense_are_refused(shop: Shop) -> None:
    subscription_id = buy(shop)
    with pytest.raises(Refused):
        shop.pause(subscription_id, "holiday")
    with pytest.raises(Refused):
        shop.pause(subscription_id, "void", shop.clock.now() - DAY)
    shop.cancel(subscription_id)
    with pytest.raises(Refused):
        shop.pause(subscription_id, "void")


def test_a_trial_costs_nothing_until_its_end(shop: Shop) -> None:
    shop.set_settings(trial_days=14)
    subscription_id = buy(shop)
    trial = shop.subscription(subscription_id)
    assert (trial.status, trial.renews_at, shop.invoices()) == ("on_trial", trial.trial_ends_at, [])
    shop.advance(14 * DAY)
    assert told(shop) == ["subscription_payment_success", "subscription_updated"]
    assert shop.subscription(subscription_id).status == "active"
    assert shop.subscription(buy(shop, skip_trial=True)).status == "active"


def test_a_refund_tells_of_payment_and_order_and_ends_nothing(shop: Shop) -> None:
    subscription_id = buy(shop)
    invoice = shop.invoices()[0]
    shop.refund(invoice.id, 900)
    assert told(shop) == ["subscription_payment_refunded", "order_refunded"]
    shop.refund(invoice.id)
    assert (shop.invoices()[0].status, shop.orders()[0].status) == ("refunded", "refunded")
    assert shop.subscription(subscription_id).status == "active"
    with pytest.raises(Refused):
        shop.refund(invoice.id)


def test_two_things_can_happen_in_one_second(shop: Shop) -> None:
    subscription_id = buy(shop)
    shop.cancel(subscription_id)
    shop.resume(subscription_id)
    times = {data["attributes"]["updated_at"] for _, data in told_fully(shop)}
    assert len(times) == 1
    shop.advance(timedelta(seconds=5))
    shop.cancel(subscription_id)
    assert {data["attributes"]["updated_at"] for _, data in told_fully(shop)}.isdisjoint(times)


def test_the_clock_never_goes_back_and_answers_are_copies(shop: Shop) -> None:
    with pytest.raises(Refused):
        shop.advance(-DAY)
    subscription_id = buy(shop)
    shop.subscription(subscription_id).status = "expired"
    assert shop.subscription(subscription_id).status == "active"
    with pytest.raises(NotFound):
        shop.subscription(1)


@pytest.mark.parametrize("switch", ["set_faults", "set_settings"])
def test_switches_that_are_none_are_refused(shop: Shop, switch: str) -> None:
    with pytest.raises(Refused):
        getattr(shop, switch)(lightning=True)
