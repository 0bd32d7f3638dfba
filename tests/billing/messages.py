"""Messages as the provider sends them, signed as it signs them, and a provider that answers what a test says."""

import hmac
import json
from typing import Any
from uuid import uuid4

from billing.inbox import receive
from billing.models import BillingEvent
from billing.providers import LemonSqueezy
from billing.providers.base import InvoiceFacts, ProviderNotFound, ProviderUnavailable, SubscriptionFacts

SECRET = "whsec-of-the-tests"
STORE = "1"
SETTINGS = {
    "LEMONSQUEEZY_API_KEY": "key-of-the-tests",
    "LEMONSQUEEZY_WEBHOOK_SECRET": SECRET,
    "LEMONSQUEEZY_STORE_ID": STORE,
    "LEMONSQUEEZY_TEST_MODE": True,
    # Nobody listens there.
    "LEMONSQUEEZY_API_BASE": "http://127.0.0.1:9/v1",
}
PATH = "/v1/webhooks/lemon-squeezy"


class Shop(LemonSqueezy):
    """The real client, but for what it would ask over the network."""

    def __init__(self) -> None:
        super().__init__(base="", api_key="", webhook_secret=SECRET, store_id=STORE)
        self.subscriptions: dict[str, SubscriptionFacts] = {}
        self.invoices: dict[str, list[InvoiceFacts]] = {}
        self.is_away = False
        self.asked: list[str] = []

    def say(self, facts: SubscriptionFacts) -> None:
        """Answer this from now on."""
        self.subscriptions[facts.subscription_id] = facts

    def fetch_subscription(self, subscription_id: str, *, urgent: bool = True) -> SubscriptionFacts:
        self._answer(subscription_id)
        if subscription_id not in self.subscriptions:
            raise ProviderNotFound("It does not know this.")
        return self.subscriptions[subscription_id]

    def fetch_invoices(self, subscription_id: str, *, urgent: bool = True) -> list[InvoiceFacts]:
        self._answer(f"invoices of {subscription_id}")
        return self.invoices.get(subscription_id, [])

    def find_subscriptions(self, email: str, variant_id: str, *, urgent: bool = True) -> list[SubscriptionFacts]:
        self._answer(email)
        return [
            each for each in self.subscriptions.values() if each.buyer_email == email and each.variant_id == variant_id
        ]

    def _answer(self, question: str) -> None:
        self.asked.append(question)
        if self.is_away:
            raise ProviderUnavailable("It is away.", headers={"Retry-After": "30"})


def open_shop(monkeypatch: Any, settings: Any) -> Shop:
    """Billing is on, and `Shop` is its provider."""
    for name, value in SETTINGS.items():
        setattr(settings, name, value)
    shop = Shop()
    for module in ("inbox", "checking", "reconciliation"):
        monkeypatch.setattr(f"billing.{module}.provider", lambda: shop)
    return shop


# --- Messages ---------------------------------------------------------------------------------------------------------


def message(facts: SubscriptionFacts, name: str = "subscription_updated", *, checkout: Any = "", **meta: Any) -> bytes:
    """A message of a subscription that says what `facts` say."""
    attributes = {
        "store_id": int(facts.store_id),
        "customer_id": facts.customer_id,
        "variant_id": int(facts.variant_id),
        "user_email": facts.buyer_email,
        "status": facts.status,
        "card_brand": facts.card_brand,
        "card_last_four": facts.card_last_four,
        "pause": {"mode": facts.pause_mode, "resumes_at": None} if facts.pause_mode else None,
        "trial_ends_at": _time(facts.trial_ends_at),
        "renews_at": _time(facts.renews_at),
        "ends_at": _time(facts.ends_at),
        "created_at": _time(facts.created_at),
        "updated_at": _time(facts.updated_at),
        "test_mode": facts.is_test,
    }
    return _message(name, "subscriptions", facts.subscription_id, attributes, checkout, facts.is_test, meta)


def payment_message(facts: InvoiceFacts, name: str = "subscription_payment_success", **meta: Any) -> bytes:
    """A message of a payment; it never says of which checkout."""
    attributes = {
        "store_id": int(facts.store_id),
        "subscription_id": facts.subscription_id,
        "billing_reason": facts.reason,
        "status": facts.status,
        "refunded": facts.is_refunded,
        "total_formatted": facts.total_text,
        "currency": facts.currency,
        "card_brand": facts.card_brand,
        "card_last_four": facts.card_last_four,
        "created_at": _time(facts.created_at),
        "updated_at": _time(facts.updated_at),
        "test_mode": facts.is_test,
    }
    return _message(name, "subscription-invoices", facts.invoice_id, attributes, "", facts.is_test, meta)


def order_message(order_id: str, **meta: Any) -> bytes:
    """A message of an order, which changes nothing."""
    attributes = {"store_id": int(STORE), "status": "paid", "test_mode": True}
    return _message("order_created", "orders", order_id, attributes, "", True, meta)


def sign(body: bytes, secret: str = SECRET) -> str:
    """What the provider sends in X-Signature."""
    return hmac.new(secret.encode(), body, "sha256").hexdigest()


def deliver(body: bytes) -> BillingEvent:
    """Receive a signed message; its event."""
    receive(body, sign(body))
    return BillingEvent.objects.latest("pk")


def _message(
    name: str, kind: str, resource_id: str, attributes: Any, checkout: Any, is_test: bool, meta: dict[str, Any]
) -> bytes:
    said = {"test_mode": is_test, "event_name": name, "webhook_id": str(uuid4()), **meta}
    if checkout:
        said["custom_data"] = {"checkout_id": str(getattr(checkout, "pk", checkout))}
    said = {key: value for key, value in said.items() if value is not None}
    return json.dumps(
        {"meta": said, "data": {"type": kind, "id": resource_id, "attributes": attributes}}, separators=(",", ":")
    ).encode()


def _time(moment: Any) -> str | None:
    return None if moment is None else f"{moment:%Y-%m-%dT%H:%M:%S}.000000Z"
