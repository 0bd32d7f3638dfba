"""Whatever is done to a subscription, in any order: it stays one that the provider could have."""

import json
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from billing.sandbox.errors import Refused
from billing.sandbox.shop import BAD_CARD, GOOD_CARD, Shop
from tests.billing.sandbox.running import open_shop

STATUSES = {"on_trial", "active", "paused", "past_due", "unpaid", "cancelled", "expired"}
OPERATIONS = st.one_of(
    st.tuples(st.just("advance"), st.integers(0, 60)),
    st.tuples(st.just("change_variant"), st.sampled_from([101, 102, 201, 202, 301, 302])),
    st.tuples(st.just("charge"), st.sampled_from([101, 202, 301])),
    st.tuples(st.just("update_card"), st.sampled_from([GOOD_CARD, BAD_CARD])),
    st.tuples(st.just("pause"), st.sampled_from(["void", "free"])),
    st.tuples(st.sampled_from(["cancel", "resume", "unpause"])),
)


def do(shop: Shop, subscription_id: int, operation: tuple[Any, ...]) -> None:
    name, *arguments = operation
    if name == "advance":
        shop.advance(timedelta(days=arguments[0]))
    elif name == "charge":
        shop.change_variant(subscription_id, arguments[0], invoice_immediately=True)
    else:
        getattr(shop, name)(subscription_id, *arguments)


@settings(max_examples=60, deadline=None)
@given(trial_days=st.sampled_from([0, 14]), operations=st.lists(OPERATIONS, max_size=15))
def test_any_life(trial_days: int, operations: list[tuple[Any, ...]]) -> None:
    shop = open_shop()
    shop.clock.freeze()
    shop.set_settings(trial_days=trial_days)
    subscription_id = shop.pay(shop.create_checkout(201, checkout_data={"email": "ann@example.com"}).id)
    told: dict[str, Any] = {}
    for operation in operations:
        was_expired = shop.subscription(subscription_id).status == "expired"
        try:
            do(shop, subscription_id, operation)
            assert not was_expired or operation[0] == "advance"
        except Refused:
            assert was_expired or operation[0] == "pause"
        now = shop.document("subscriptions", subscription_id)["data"]["attributes"]
        assert now["status"] in STATUSES
        assert (now["ends_at"] is not None) == (now["status"] in ("cancelled", "expired"))
        assert (now["pause"] is not None) or now["status"] != "paused"
        assert now["status"] in ("cancelled", "expired", "unpaid") or now["renews_at"] > wire(shop)
        for _, body, _ in shop.deliveries.take():
            data = json.loads(body)["data"]
            if data["type"] == "subscriptions":
                told = data["attributes"]
        # Whoever listens to everything knows what the API says; only links are signed anew.
        assert told | {"urls": None} == now | {"urls": None}


def wire(shop: Shop) -> str:
    return shop.clock.now().strftime("%Y-%m-%dT%H:%M:%S.000000Z")
