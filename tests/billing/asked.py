"""A provider that notes what it is asked and answers as told, for tests of what happens around the call."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection

from billing.models import BillingEvent, Checkout, PlanVariant, Subscription
from billing.providers.base import CheckoutWish, PortalLinks, ProviderError
from tests.billing.provider_facts import sell_plans

CHECKOUT_URL = "https://shop.example.com/checkout/1?signature=s"
PORTAL_URL = "https://shop.example.com/billing?signature=portal-secret"
PAYMENT_URL = "https://shop.example.com/payment?signature=payment-secret"


class AskedProvider:
    """Says yes to everything, or raises `trouble`. Fails if it is called while a transaction is open."""

    name = "lemonsqueezy"

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.wishes: list[CheckoutWish] = []
        self.trouble: ProviderError | None = None
        self.meanwhile: Any = None

    def create_checkout(self, wish: CheckoutWish) -> str:
        """Note the wish."""
        self.wishes.append(wish)
        self._answer("create_checkout", wish.variant_id)
        return CHECKOUT_URL

    def change_plan(self, subscription_id: str, variant_id: str, *, charge_now: bool) -> None:
        """Note the change."""
        self._answer("change_plan", subscription_id, variant_id, charge_now)

    def cancel(self, subscription_id: str) -> None:
        """Note the end."""
        self._answer("cancel", subscription_id)

    def resume(self, subscription_id: str) -> None:
        """Note its withdrawal."""
        self._answer("resume", subscription_id)

    def portal_links(self, subscription_id: str) -> PortalLinks:
        """Note the wish for links."""
        self._answer("portal_links", subscription_id)
        return PortalLinks(portal_url=PORTAL_URL, payment_method_url=PAYMENT_URL)

    def _answer(self, *call: Any) -> None:
        assert not connection.in_atomic_block
        self.asked.append(call)
        if self.meanwhile is not None:
            self.meanwhile()
        if self.trouble is not None:
            raise self.trouble


@contextmanager
def asked_provider(monkeypatch: Any) -> Iterator[AskedProvider]:
    """Billing with this provider, its plans on sale; afterwards nothing that later tests would come across."""
    asked = AskedProvider()
    monkeypatch.setattr("billing.changes.provider", lambda: asked)
    sell_plans()
    yield asked
    for model in (BillingEvent, Checkout, Subscription, PlanVariant):
        model.objects.all().delete()
