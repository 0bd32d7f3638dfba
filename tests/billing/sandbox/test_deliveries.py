"""Deliveries are signed, tried four times, written down, and go as wrong as the switches say."""

import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from billing.sandbox.records import Delivery
from billing.sandbox.shop import Shop
from tests.billing.sandbox.running import WEBHOOK_SECRET, open_shop, running_shop, wait_for


class Receiver:
    """An endpoint on loopback that answers as it is told and keeps what it got."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.got: list[tuple[dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append((dict(self.headers), body))
                self.send_response(receiver.answers.pop(0) if receiver.answers else 200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield receiver
    receiver.server.shutdown()
    thread.join()
    receiver.server.server_close()


def buy(shop: Shop, custom: dict[str, str] | None = None) -> int:
    data = {"email": "ann@example.com", "custom": {"checkout_id": "7"} if custom is None else custom}
    return shop.pay(shop.create_checkout(201, checkout_data=data).id)


def done(shop: Shop) -> list[Delivery]:
    """The log once nothing waits any more, oldest first."""
    wait_for(lambda: all(delivery.status != "pending" for delivery in shop.deliveries.log()))
    return shop.deliveries.log()[::-1]


def metas(shop: Shop) -> list[dict[str, Any]]:
    return [json.loads(body)["meta"] for _, body, _ in shop.deliveries.take()]


def test_an_event_arrives_signed_and_named(receiver: Receiver) -> None:
    with running_shop(receiver.url, manual=False) as (shop, _):
        buy(shop)
        assert [delivery.status for delivery in done(shop)] == ["sent"] * 4
    names = [json.loads(body)["meta"]["event_name"] for _, body in receiver.got]
    assert names == ["order_created", "subscription_created", "subscription_payment_success", "subscription_updated"]
    for headers, body in receiver.got:
        assert headers["X-Signature"] == hmac.new(WEBHOOK_SECRET.encode(), body, hashlib.sha256).hexdigest()
        assert headers["X-Event-Name"] == json.loads(body)["meta"]["event_name"]
        assert headers["Content-Type"] == "application/json"


def test_only_200_is_success_and_a_retry_is_the_same_message(receiver: Receiver) -> None:
    receiver.answers = [202, 500, 200]
    with running_shop(receiver.url, manual=False) as (shop, _):
        shop.set_faults(drop_next=3)
        buy(shop)
        last = done(shop)[-1]
    assert last.status == "sent"
    assert [attempt["status"] for attempt in last.attempts] == [202, 500, 200]
    assert len({body for _, body in receiver.got}) == 1


def test_after_three_retries_it_is_given_up_and_can_be_resent_by_hand(receiver: Receiver) -> None:
    receiver.answers = [503] * 4
    with running_shop(receiver.url, manual=False) as (shop, _):
        shop.set_faults(drop_next=3)
        buy(shop)
        failed = done(shop)[-1]
        assert (failed.status, len(failed.attempts)) == ("failed", 4)
        shop.deliveries.resend(failed.id)
        resent = done(shop)[-1]
    assert (resent.status, resent.body, resent.headers) == ("sent", failed.body, failed.headers)


def test_nobody_there_is_a_failed_attempt() -> None:
    with running_shop("http://127.0.0.1:9/hook", manual=False) as (shop, _):
        buy(shop)
        assert {delivery.status for delivery in done(shop)} == {"failed"}
        assert {attempt["status"] for attempt in done(shop)[0].attempts} == {0}


def test_what_waited_through_a_restart_goes_to_the_new_address(receiver: Receiver, tmp_path: Path) -> None:
    file = tmp_path / "sandbox.json"
    buy(open_shop("http://127.0.0.1:9/hook", data_file=file))
    again = open_shop(receiver.url, data_file=file)
    again.deliveries.manual = False
    while again.deliveries.send_next():
        pass
    assert [delivery.status for delivery in again.deliveries.log()] == ["sent"] * 4


def test_retries_wait_5_25_and_125_seconds(receiver: Receiver) -> None:
    receiver.answers = [500]
    with running_shop(receiver.url, manual=False) as (shop, _):
        shop.deliveries.retry_scale = 1
        shop.set_faults(drop_next=3)
        buy(shop)
        wait_for(lambda: bool(shop.deliveries.log()[0].attempts))
        tried = shop.deliveries.log()[0]
        assert tried.due_epoch - datetime.fromisoformat(tried.attempts[0]["at"]).timestamp() == pytest.approx(5)


def test_meta_has_its_four_keys_and_ids_that_sort_by_time() -> None:
    shop = open_shop()
    buy(shop)
    given = metas(shop)
    assert all(set(meta) == {"test_mode", "event_name", "custom_data", "webhook_id"} for meta in given)
    assert all(meta["custom_data"] == {"checkout_id": "7"} for meta in given)
    ids = [meta["webhook_id"] for meta in given]
    assert ids == sorted(set(ids))


def test_custom_data_is_absent_if_the_checkout_had_none() -> None:
    shop = open_shop()
    buy(shop, custom={})
    assert all("custom_data" not in meta for meta in metas(shop))


def test_what_was_taken_does_not_wait_any_more() -> None:
    shop = open_shop()
    buy(shop)
    assert len(shop.deliveries.take()) == 4
    assert shop.deliveries.take() == []
    assert {delivery.status for delivery in shop.deliveries.log()} == {"taken"}


def test_duplicates_are_the_same_message_twice() -> None:
    shop = open_shop()
    shop.set_faults(duplicate=True)
    buy(shop)
    taken = shop.deliveries.take()
    assert len(taken) == 8
    assert taken[::2] == taken[1::2]


def test_a_shuffle_changes_the_order_and_loses_nothing() -> None:
    shop = open_shop()
    shop.set_faults(shuffle=True)
    orders = set()
    for _ in range(30):
        buy(shop)
        orders.add(tuple(name for name, _, _ in shop.deliveries.take()))
    assert len(orders) > 1
    assert len({tuple(sorted(order)) for order in orders}) == 1


def test_a_delay_holds_events_back(receiver: Receiver) -> None:
    with running_shop(receiver.url, manual=False) as (shop, _):
        shop.set_faults(delay_seconds=60)
        buy(shop)
        assert all(delivery.due_epoch > time.time() + 50 for delivery in shop.deliveries.log())
    assert receiver.got == []


def test_the_next_events_are_dropped_of_one_name_if_so_wished() -> None:
    shop = open_shop()
    shop.set_faults(drop_next=1, drop_event="subscription_updated")
    subscription_id = buy(shop)
    assert "subscription_updated" not in [name for name, _, _ in shop.deliveries.take()]
    shop.cancel(subscription_id)
    assert "subscription_updated" in [name for name, _, _ in shop.deliveries.take()]
    assert shop.faults.drop_next == 0


def test_changes_of_the_same_second() -> None:
    shop = open_shop()
    subscription_id = buy(shop)
    before = shop.subscription(subscription_id).updated_at
    shop.set_faults(same_second=True)
    shop.clock.freeze()
    shop.clock.advance(shop.clock.now() - before)
    shop.cancel(subscription_id)
    assert (shop.subscription(subscription_id).status, shop.subscription(subscription_id).updated_at) == (
        "cancelled",
        before,
    )


@pytest.mark.parametrize(("switch", "key"), [("missing_webhook_id", "webhook_id"), ("no_custom_data", "custom_data")])
def test_a_part_of_meta_is_missing(switch: str, key: str) -> None:
    shop = open_shop()
    shop.set_faults(**{switch: True})
    buy(shop)
    assert all(key not in meta for meta in metas(shop))


def test_a_wrong_signature_has_the_right_form() -> None:
    shop = open_shop()
    shop.set_faults(wrong_signature=True)
    buy(shop)
    for _, body, headers in shop.deliveries.take():
        assert len(headers["X-Signature"]) == 64
        assert headers["X-Signature"] != hmac.new(WEBHOOK_SECRET.encode(), body, hashlib.sha256).hexdigest()


def test_an_unknown_variant_is_sold() -> None:
    shop = open_shop()
    shop.set_faults(unknown_variant=True)
    assert shop.subscription(buy(shop)).variant_id == 901


def test_an_unknown_event_follows_each_change() -> None:
    shop = open_shop()
    shop.set_faults(unknown_event=True)
    subscription_id = buy(shop)
    shop.cancel(subscription_id)
    assert [name for name, _, _ in shop.deliveries.take()].count("subscription_reviewed") == 2


def test_the_wrong_mode_is_told() -> None:
    shop = open_shop()
    shop.set_faults(mode_mismatch=True)
    subscription_id = buy(shop)
    for _, body, _ in shop.deliveries.take():
        message = json.loads(body)
        assert message["meta"]["test_mode"] is False
        assert message["data"]["attributes"]["test_mode"] is False
    assert shop.document("subscriptions", subscription_id)["data"]["attributes"]["test_mode"] is False
