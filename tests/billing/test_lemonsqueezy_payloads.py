"""Reading the provider's messages: published ones as they stand, and what nobody should send."""

import hmac
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from billing.providers.base import UnreadableMessage
from billing.providers.lemonsqueezy import LemonSqueezy

PAYLOADS = Path(__file__).parent / "payloads"
SECRET = "a-signing-secret"


def provider(secret=SECRET):
    """The provider as far as webhooks are concerned: nothing is called."""
    return LemonSqueezy(base="https://provider.invalid", api_key="key", webhook_secret=secret, store_id="3")


def signed(body, secret=SECRET):
    return hmac.new(secret.encode(), body, "sha256").hexdigest()


def utc(*numbers):
    return datetime(*numbers, tzinfo=UTC)


def message(**changes):
    """A small documented message, with changed attributes of its subscription."""
    attributes = {
        "store_id": 3,
        "variant_id": 10,
        "status": "active",
        "created_at": "2026-01-01T00:00:00.000000Z",
        "updated_at": "2026-01-02T00:00:00.000000Z",
        **changes,
    }
    return {
        "meta": {"event_name": "subscription_updated"},
        "data": {"type": "subscriptions", "id": "5", "attributes": attributes},
    }


def read(content):
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return provider().read_webhook(body)


# --- Published payloads -----------------------------------------------------------------------------------------------

# Name of the file: event, type and id, store, subscription, whether it is a test.
PUBLISHED = {
    "docs_order_created": ("order_created", "orders", "4", "3", "", None),
    "docs_subscription_created": ("subscription_created", "subscriptions", "5", "3", "5", False),
    "docs_subscription_object": ("subscription_updated", "subscriptions", "5", "3", "5", False),
    "docs_subscription_invoice": ("subscription_payment_success", "subscription-invoices", "11", "3", "5", False),
    "docs_license_key_created": ("license_key_created", "license-keys", "12", "3", "", None),
    "captured_2025_subscription_created": (
        "subscription_created", "subscriptions", "900021", "920313", "900021", True,
    ),
    "captured_2025_subscription_updated": (
        "subscription_updated", "subscriptions", "900021", "920313", "900021", True,
    ),
    "captured_2025_payment_success_initial": (
        "subscription_payment_success", "subscription-invoices", "990387", "920313", "900021", True,
    ),
    "captured_2025_payment_success_renewal": (
        "subscription_payment_success", "subscription-invoices", "991708", "920624", "900570", True,
    ),
    "captured_2024_payment_success_no_custom": (
        "subscription_payment_success", "subscription-invoices", "992457", "920700", "900088", True,
    ),
    "captured_2024_order_created": ("order_created", "orders", "993758", "920678", "", True),
}  # fmt: skip


def published(name):
    return (PAYLOADS / f"{name}.json").read_bytes()


def test_every_stored_payload_is_tried():
    assert {path.stem for path in PAYLOADS.glob("*.json")} == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_payload_is_accepted_and_read(name):
    body = published(name)
    assert provider().verify_webhook(body, signed(body))
    notice = provider().read_webhook(body)
    told = (notice.name, notice.resource_type, notice.resource_id, notice.store_id)
    assert (*told, notice.subscription_id, notice.is_test) == PUBLISHED[name]
    assert notice.checkout_id == ""
    assert (notice.subscription is not None) == (notice.resource_type == "subscriptions")
    assert (notice.invoice is not None) == (notice.resource_type == "subscription-invoices")


def test_the_documented_trial():
    facts = provider().read_webhook(published("docs_subscription_created")).subscription
    assert (facts.status, facts.variant_id, facts.customer_id) == ("on_trial", "10", "6")
    assert (facts.trial_ends_at, facts.renews_at) == (utc(2023, 3, 24, 12, 43, 48), utc(2023, 3, 24, 12, 43, 48))
    assert (facts.created_at, facts.updated_at) == (utc(2023, 3, 17, 12, 43, 50), utc(2023, 3, 17, 12, 43, 51))
    assert (facts.card_brand, facts.card_last_four, facts.ends_at) == ("visa", "2424", None)


def test_the_captured_subscription_before_and_after_its_card_is_known():
    before = provider().read_webhook(published("captured_2025_subscription_created"))
    after = provider().read_webhook(published("captured_2025_subscription_updated"))
    assert before.dedupe_key == "id:9a0dcaf7-20aa-4f82-be00-0cf887cc0001"
    assert after.dedupe_key == "id:9a4e802b-ab0e-475b-ae05-64743c730002"
    assert (before.subscription.card_brand, before.subscription.card_last_four) == ("", "")
    assert (after.subscription.card_brand, after.subscription.card_last_four) == ("visa", "4242")
    assert (after.subscription.status, after.subscription.variant_id) == ("active", "940634")
    assert after.subscription.renews_at == utc(2025, 12, 3, 9, 14, 52)
    assert before.subscription.updated_at < after.subscription.updated_at == utc(2025, 11, 3, 9, 15, 1)


def test_the_captured_payment_belongs_to_its_subscription_and_speaks_the_providers_words():
    facts = provider().read_webhook(published("captured_2025_payment_success_renewal")).invoice
    assert (facts.invoice_id, facts.subscription_id, facts.reason) == ("991708", "900570", "renewal")
    assert (facts.status, facts.total_text, facts.currency) == ("paid", "€49.99", "EUR")
    assert (facts.is_refunded, facts.refunded_text) == (False, "")
    assert (facts.created_at, facts.updated_at) == (utc(2025, 8, 2, 18, 12, 46), utc(2025, 8, 2, 19, 15, 1))


def test_a_payload_without_an_id_of_its_own_is_known_by_its_bytes():
    body = published("docs_subscription_object")
    key = provider().read_webhook(body).dedupe_key
    assert key.startswith("sha256:")
    assert len(key) == 71
    assert provider().read_webhook(body).dedupe_key == key
    assert provider().read_webhook(body + b" ").dedupe_key != key


# --- Signatures -------------------------------------------------------------------------------------------------------


def test_only_the_signature_of_exactly_these_bytes_counts():
    body = published("docs_order_created")
    good = signed(body)
    assert provider().verify_webhook(body, good)
    assert not provider().verify_webhook(body + b"\n", good)
    assert not provider().verify_webhook(body, signed(body, "another-secret"))


@pytest.mark.parametrize(
    "change",
    [
        lambda good: "",
        lambda good: good[:-1],
        lambda good: good + "0",
        lambda good: f"sha256={good}",
        lambda good: f" {good}",
        lambda good: good.upper(),
        lambda good: "0" * 64,
        lambda good: " " * 64,
        lambda good: "é" * 32,
        lambda good: "\udcff" * 64,
    ],
)
def test_a_signature_of_another_shape_is_refused(change):
    body = published("docs_order_created")
    assert not provider().verify_webhook(body, change(signed(body)))


def test_without_a_secret_nothing_is_signed():
    body = published("docs_order_created")
    assert not provider("").verify_webhook(body, hmac.new(b"", body, "sha256").hexdigest())


# --- Reading ----------------------------------------------------------------------------------------------------------


def test_what_our_checkout_sent_comes_back():
    content = message()
    content["meta"]["custom_data"] = {"checkout_id": "6a1f", "workspace_id": "w", "user_id": "u"}
    assert read(content).checkout_id == "6a1f"


@pytest.mark.parametrize("custom", [None, [], "text", {"checkout_id": None}, {"checkout_id": ["a"]}])
def test_custom_data_of_another_shape_is_as_good_as_none(custom):
    content = message()
    content["meta"]["custom_data"] = custom
    assert read(content).checkout_id == ""


def test_what_is_optional_may_be_missing():
    facts = read(message()).subscription
    assert (facts.customer_id, facts.card_brand, facts.pause_mode, facts.buyer_email) == ("", "", "", "")
    assert (facts.renews_at, facts.ends_at, facts.trial_ends_at, facts.is_test) == (None, None, None, False)


def test_a_pause_has_a_mode():
    paused = message(status="paused", pause={"mode": "free", "resumes_at": None})
    assert read(paused).subscription.pause_mode == "free"


@pytest.mark.parametrize(
    "written", ["2026-03-04T05:06:07.000000Z", "2026-03-04T05:06:07Z", "2026-03-04T07:06:07+02:00"]
)
def test_times_may_be_written_in_several_ways(written):
    assert read(message(renews_at=written)).subscription.renews_at == utc(2026, 3, 4, 5, 6, 7)


def test_identifiers_may_be_numbers_or_text():
    content = message(store_id="3", variant_id="10", customer_id=77)
    content["data"]["id"] = 5
    notice = read(content)
    assert (notice.subscription_id, notice.store_id) == ("5", "3")
    assert (notice.subscription.variant_id, notice.subscription.customer_id) == ("10", "77")


def test_without_data_the_subject_is_beside_meta():
    """As in a sample of the documentation's guide to webhooks."""
    inside = message()
    beside = {"meta": inside["meta"], **inside["data"]}
    assert replace(read(beside), dedupe_key="") == replace(read(inside), dedupe_key="")


def test_what_the_message_says_of_its_mode_counts_first():
    content = message(test_mode=True)
    assert read(content).is_test is True
    content["meta"]["test_mode"] = False
    assert read(content).is_test is False


def test_a_refund_is_told_in_the_providers_words():
    body = json.loads(published("captured_2025_payment_success_renewal"))
    body["data"]["attributes"].update(
        refunded=True, status="refunded", refunded_amount=4999, refunded_amount_formatted="€49.99"
    )
    facts = read(body).invoice
    assert (facts.is_refunded, facts.status, facts.refunded_text) == (True, "refunded", "€49.99")


def test_amounts_keep_their_spaces():
    body = json.loads(published("captured_2025_payment_success_renewal"))
    body["data"]["attributes"]["total_formatted"] = "49,99\N{NO-BREAK SPACE}€"
    assert read(body).invoice.total_text == "49,99 €"


def test_long_texts_are_cut_to_what_can_be_stored():
    facts = read(
        message(card_brand="x" * 99, card_last_four="x" * 99, status="s" * 99, user_email="e" * 999)
    ).subscription
    assert (len(facts.card_brand), len(facts.card_last_four), len(facts.status)) == (30, 4, 20)
    assert len(facts.buyer_email) == 254


@pytest.mark.parametrize(
    "changes",
    [
        {"status": None},
        {"status": ""},
        {"status": 7},
        {"variant_id": None},
        {"variant_id": True},
        {"variant_id": 1.5},
        {"variant_id": "9" * 65},
        {"updated_at": None},
        {"updated_at": "yesterday"},
        {"updated_at": 1_700_000_000},
        {"updated_at": "2026-01-01T00:00:00"},
        {"updated_at": "0001-01-01T00:00:00+14:00"},
        {"ends_at": "9999-12-31T23:59:59-14:00"},
        {"renews_at": "soon"},
        {"trial_ends_at": {}},
    ],
)
def test_a_subscription_that_cannot_be_read_in_full_is_left_out_and_must_be_asked_for(changes):
    notice = read(message(**changes))
    assert (notice.subscription_id, notice.subscription) == ("5", None)


@pytest.mark.parametrize("attributes", [None, [], "text", 3])
def test_a_message_without_attributes_still_says_what_it_is_about(attributes):
    content = message()
    content["data"]["attributes"] = attributes
    notice = read(content)
    assert (notice.name, notice.subscription_id, notice.store_id, notice.subscription) == (
        "subscription_updated", "5", "", None,
    )  # fmt: skip


@pytest.mark.parametrize("own", ["", " ", 5, None, ["a"], "x" * 78, "with space", "line\nbreak", "snow\N{SNOWMAN}"])
def test_an_unusable_id_of_the_message_gives_way_to_its_digest(own):
    content = message()
    content["meta"]["webhook_id"] = own
    assert read(content).dedupe_key.startswith("sha256:")


def without(*path):
    content = message()
    place = content
    for name in path[:-1]:
        place = place[name]
    del place[path[-1]]
    return content


def with_name(name):
    content = message()
    content["meta"]["event_name"] = name
    return content


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b"{}",
        b'{"meta": [], "data": 3}',
        b'{"meta": {"event_name": "a"}, "meta": {"event_name": "b"}, "data": {"type": "t", "id": "1"}}',
        b'{"meta": {"event_name": "a"}, "data": {"type": "t", "id": "1"}, "n": NaN}',
        b'{"meta": {"event_name": "a\\u0000"}, "data": {"type": "t", "id": "1"}}',
        b'{"meta": {"event_name": "a"}, "data": {"type": "t", "id": "1"}, "x": "\\ud800"}',
        b'{"meta": {"event_name": "a"}, "data": {"type": "t", "id": ' + b"9" * 5_000 + b"}}",
        b'{"meta": {"event_name": "a"}, "data": {"type": "t", "id": 1e999999999}}',
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        b"[" * 100_000,
        without("meta"),
        without("meta", "event_name"),
        without("data"),
        without("data", "type"),
        without("data", "id"),
        with_name(""),
        with_name(5),
        with_name("n" * 101),
    ],
)
def test_what_is_not_a_documented_message_is_said_to_be_unreadable(content):
    with pytest.raises(UnreadableMessage):
        read(content)
