"""Lemon Squeezy as `billing.providers.base.BillingProvider`. Tests and development replace its address and key only."""

import hmac
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings

from billing.providers.base import (
    CHECKOUT_LIFETIME,
    CheckoutWish,
    InvoiceFacts,
    Notice,
    PortalLinks,
    ProviderError,
    ProviderNotFound,
    ProviderRefused,
    ProviderUnavailable,
    ProviderUnsure,
    SubscriptionFacts,
    VariantFacts,
)
from billing.providers.lemonsqueezy import payloads
from billing.providers.lemonsqueezy.catalogue import sold_by_subscription
from billing.providers.lemonsqueezy.transport import AttributeRefused, Method, call
from opsmeter_site.lib.clock import utc_now

_PAGE_SIZE = 100
_MOST_PAGES = 50
_SIGNATURE_LENGTH = 64  # hexadecimal digits
_PATH_SAFE = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_RETRY_AFTER = {"Retry-After": "30"}


class LemonSqueezy:
    """One store of one account, reached with one API key."""

    name = "lemonsqueezy"

    def __init__(self, *, base: str, api_key: str, webhook_secret: str, store_id: str) -> None:
        self._base, self._api_key, self._webhook_secret, self._store_id = base, api_key, webhook_secret, store_id

    # --- What people ask for ------------------------------------------------------------------------------------------

    def create_checkout(self, wish: CheckoutWish) -> str:
        """The address to send the buyer to. It is good for `CHECKOUT_LIFETIME`."""
        answer = self._call("POST", "/checkouts", body={"data": self._checkout(wish)})
        url = self._link(_attributes(answer).get("url"))
        if url is None:
            raise ProviderUnsure("The payment provider gave no address to pay at.", headers=_RETRY_AFTER)
        return url

    def change_plan(self, subscription_id: str, variant_id: str, *, charge_now: bool) -> None:
        """Move a subscription to another variant, at once. `charge_now`: do not wait for the renewal."""
        wanted = {"variant_id": int(variant_id)}
        self._change(subscription_id, {**wanted, "invoice_immediately": True} if charge_now else wanted)

    def cancel(self, subscription_id: str) -> None:
        """End a subscription with its paid period."""
        self._call("DELETE", _path(subscription_id))

    def resume(self, subscription_id: str) -> None:
        """Take a cancellation back, before the end."""
        try:
            self._change(subscription_id, {"cancelled": False})
        except AttributeRefused as refused:
            # It wants every trial to end in the future, also one that is over. Moving its end would begin another one.
            if refused.attribute != "trial_ends_at":
                raise
            raise ProviderRefused(
                "The payment provider does not resume this subscription from here, as it began with a trial. "
                "It can be resumed in the billing portal."
            ) from None

    def portal_links(self, subscription_id: str) -> PortalLinks:
        """Fresh links for payment method and invoices."""
        answer = self._call("GET", _path(subscription_id))
        urls = payloads.mapping(_attributes(answer).get("urls"))
        portal, payment_method = self._link(urls.get("customer_portal")), self._link(urls.get("update_payment_method"))
        if portal is None:
            raise ProviderUnavailable("The payment provider gave no links.", headers=_RETRY_AFTER)
        # The portal has the payment method, too.
        return PortalLinks(portal_url=portal, payment_method_url=payment_method or portal)

    # --- What is asked ------------------------------------------------------------------------------------------------

    def fetch_subscription(self, subscription_id: str, *, urgent: bool = True) -> SubscriptionFacts:
        """The subscription as it is now."""
        answer = self._call("GET", _path(subscription_id), urgent=urgent)
        try:
            facts = payloads.read_subscription(answer.get("data"))
        except payloads.Unfit:
            raise _misshapen() from None
        if facts.subscription_id != subscription_id:
            raise _misshapen()
        return facts

    def fetch_invoices(self, subscription_id: str, *, urgent: bool = True) -> Sequence[InvoiceFacts]:
        """Its payments, newest first; the last hundred."""
        # A filter on their status is answered with nothing at all.
        found = self._page("/subscription-invoices", {"subscription_id": subscription_id}, urgent=urgent)
        invoices = (payloads.fitting(payloads.read_invoice, each) for each in found)
        own = [each for each in invoices if each is not None and each.subscription_id == subscription_id]
        return sorted(own, key=lambda invoice: invoice.created_at, reverse=True)

    def find_subscriptions(self, email: str, variant_id: str, *, urgent: bool = True) -> Sequence[SubscriptionFacts]:
        """Those of a buyer, in our store."""
        filters = {"store_id": self._store_id, "user_email": email, "variant_id": variant_id}
        found = self._page("/subscriptions", filters, urgent=urgent)
        subscriptions = (payloads.fitting(payloads.read_subscription, each) for each in found)
        return [each for each in subscriptions if each is not None and each.store_id == self._store_id]

    def fetch_variants(self) -> Sequence[VariantFacts]:
        """What our store sells by subscription. Also shows whether the key is good."""
        products = list(self._pages("/products", {"store_id": self._store_id}))
        variants = list(self._pages("/variants", {}))
        prices = list(self._pages("/prices", {}))
        return sold_by_subscription(self._store_id, products, variants, prices)

    # --- Webhooks -----------------------------------------------------------------------------------------------------

    def verify_webhook(self, body: bytes, signature: str) -> bool:
        """Whether the provider signed exactly these bytes, in a time that tells nothing about the right signature.

        A signature is 64 hexadecimal digits in lower case, as documented, and nothing else.
        """
        if not self._webhook_secret:
            return False
        expected = hmac.digest(self._webhook_secret.encode(), body, "sha256").hex().encode()
        given = signature.encode(errors="replace")
        has_shape = len(given) == _SIGNATURE_LENGTH
        # Compared in any case, so that a signature without the shape takes as long as one with it.
        is_same = hmac.compare_digest(given if has_shape else b" " * _SIGNATURE_LENGTH, expected)
        return has_shape and is_same

    def read_webhook(self, body: bytes) -> Notice:
        """The message in a verified body. Raises `UnreadableMessage`."""
        return payloads.read_notice(body)

    # --- Pieces -------------------------------------------------------------------------------------------------------

    def _checkout(self, wish: CheckoutWish) -> dict[str, Any]:
        custom = {"workspace_id": wish.workspace_id, "user_id": wish.user_id, "checkout_id": wish.checkout_id}
        # An empty text is no text to the provider, and refused.
        buyer = {name: value for name, value in (("email", wish.email), ("name", wish.name)) if value.strip()}
        return {
            "type": "checkouts",
            "attributes": {
                # Without the list of one the buyer could pick another variant on the page.
                "product_options": {"redirect_url": wish.return_url, "enabled_variants": [int(wish.variant_id)]},
                "checkout_data": {**buyer, "custom": custom},
                "expires_at": (utc_now() + CHECKOUT_LIFETIME).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "test_mode": settings.LEMONSQUEEZY_TEST_MODE,
            },
            "relationships": {
                "store": {"data": {"type": "stores", "id": self._store_id}},
                "variant": {"data": {"type": "variants", "id": wish.variant_id}},
            },
        }

    def _change(self, subscription_id: str, attributes: Mapping[str, Any]) -> None:
        path = _path(subscription_id)
        data = {"type": payloads.SUBSCRIPTIONS, "id": subscription_id, "attributes": attributes}
        self._call("PATCH", path, body={"data": data})

    def _pages(self, path: str, filters: Mapping[str, str]) -> Iterator[Any]:
        for number in range(1, _MOST_PAGES + 1):
            answer = self._list(path, filters, number, urgent=True)
            yield from answer["data"]
            last = payloads.mapping(payloads.mapping(answer.get("meta")).get("page")).get("lastPage")
            if not isinstance(last, int) or number >= last:
                return

    def _page(self, path: str, filters: Mapping[str, str], *, urgent: bool) -> list[Any]:
        return list(self._list(path, filters, 1, urgent=urgent)["data"])

    def _list(self, path: str, filters: Mapping[str, str], number: int, *, urgent: bool) -> dict[str, Any]:
        params = {f"filter[{name}]": value for name, value in filters.items()}
        paging = {"page[number]": str(number), "page[size]": str(_PAGE_SIZE)}
        answer = self._call("GET", path, params={**params, **paging}, urgent=urgent)
        if not isinstance(answer.get("data"), list):
            raise _misshapen()
        return answer

    def _call(self, method: Method, path: str, **wanted: Any) -> dict[str, Any]:
        return call(self._base, self._api_key, method, path, **wanted)

    def _link(self, value: object) -> str | None:
        """An address that a browser may be sent to. Only the local double, itself plain HTTP, has others than HTTPS."""
        if not isinstance(value, str) or not value.isprintable() or " " in value:
            return None
        try:
            parts = urlsplit(value)
        except ValueError:
            return None
        is_allowed = parts.scheme in ("https", urlsplit(self._base).scheme) and bool(parts.hostname)
        return value if is_allowed else None


def _path(subscription_id: str) -> str:
    # It may have come with a message: nothing in it may lead to another place.
    if not _PATH_SAFE.fullmatch(subscription_id):
        raise ProviderNotFound("The payment provider does not know this.")
    return f"/subscriptions/{subscription_id}"


def _attributes(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    return payloads.mapping(payloads.mapping(answer.get("data")).get("attributes"))


def _misshapen() -> ProviderError:
    return ProviderUnavailable("The payment provider gave no proper answer.", headers=_RETRY_AFTER)
