"""What billing needs of a provider, in neutral words. Whoever talks to one knows nothing but this."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from opsmeter_site.lib.errors import OpsmeterError

# How long the address of a checkout is good.
CHECKOUT_LIFETIME = timedelta(hours=1)
# The status of a payment that may yet be made, or be given up.
OPEN = "pending"


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionFacts:
    """A subscription as the provider describes it. Times are aware; ids are the provider's, as text."""

    subscription_id: str
    customer_id: str
    store_id: str
    variant_id: str
    status: str
    """One of `billing.models.Status`, or a word that we do not know yet."""
    pause_mode: str
    renews_at: datetime | None
    ends_at: datetime | None
    trial_ends_at: datetime | None
    card_brand: str
    card_last_four: str
    buyer_email: str
    created_at: datetime
    updated_at: datetime
    """Whole seconds at some providers: two states can carry the same one."""
    is_test: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceFacts:
    """A payment as the provider describes it. Amounts are its own words, never computed with."""

    invoice_id: str
    subscription_id: str
    store_id: str
    reason: str
    status: str
    is_refunded: bool
    total_text: str
    refunded_text: str
    currency: str
    card_brand: str
    card_last_four: str
    created_at: datetime
    updated_at: datetime
    is_test: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A webhook's message, read. What it says is a hint: the provider is asked for the state."""

    dedupe_key: str
    name: str
    resource_type: str
    resource_id: str
    is_test: bool | None
    """None: it does not say."""
    store_id: str
    """Empty: it does not say."""
    subscription_id: str
    """Empty: it is about something else, such as an order."""
    checkout_id: str
    """What our checkout sent along, if anything; somebody may have made it up."""
    subscription: SubscriptionFacts | None = None
    invoice: InvoiceFacts | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckoutWish:
    """What a buyer is sent to the provider with."""

    checkout_id: str
    workspace_id: str
    user_id: str
    variant_id: str
    email: str
    name: str
    return_url: str
    """Where the buyer comes back to. That they come back proves nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PortalLinks:
    """Signed addresses at the provider. They open somebody's billing: never stored, never logged."""

    portal_url: str = field(repr=False)
    payment_method_url: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantFacts:
    """Something that the provider sells."""

    variant_id: str
    store_id: str
    name: str
    interval: str
    """`month`, `year`, or another word where it is not sold by the one month or year."""
    is_test: bool


class ProviderError(OpsmeterError):
    """The provider did not do what was asked. The message is for people and names no secret."""


class ProviderUnavailable(ProviderError):
    """503: it was not reached or turned us away, so nothing was changed there. `Retry-After` is set."""

    status = 503
    reason = "provider_unavailable"


class ProviderUnsure(ProviderUnavailable):
    """503: it was reached and gave no proper answer. Whether it did what was asked is not known."""


class ProviderRefused(ProviderError):
    """409: it understood and said no."""

    status = 409
    reason = "provider_refused"


class ProviderNotFound(ProviderRefused):
    """It knows no such thing, or not in this mode or with this key."""


class UnreadableMessage(ValueError):
    """A webhook's body is not what the provider documents."""


class BillingProvider(Protocol):
    """A provider of subscriptions. Calls raise `ProviderError`; `urgent` ones go first when calls are scarce."""

    name: str

    def create_checkout(self, wish: CheckoutWish) -> str:
        """The address to send the buyer to. It is good for `CHECKOUT_LIFETIME`."""

    def change_plan(self, subscription_id: str, variant_id: str, *, charge_now: bool) -> None:
        """Move a subscription to another variant, at once. `charge_now`: do not wait for the renewal."""

    def cancel(self, subscription_id: str) -> None:
        """End a subscription with its paid period."""

    def resume(self, subscription_id: str) -> None:
        """Take a cancellation back, before the end."""

    def portal_links(self, subscription_id: str) -> PortalLinks:
        """Fresh links for payment method and invoices."""

    def fetch_subscription(self, subscription_id: str, *, urgent: bool = True) -> SubscriptionFacts:
        """The subscription as it is now."""

    def fetch_invoices(self, subscription_id: str, *, urgent: bool = True) -> Sequence[InvoiceFacts]:
        """Its payments, newest first; the last hundred."""

    def find_subscriptions(self, email: str, variant_id: str, *, urgent: bool = True) -> Sequence[SubscriptionFacts]:
        """Those of a buyer, in our store."""

    def fetch_variants(self) -> Sequence[VariantFacts]:
        """What our store sells by subscription. Also shows whether the key is good."""

    def verify_webhook(self, body: bytes, signature: str) -> bool:
        """Whether the provider signed exactly these bytes, in a time that tells nothing about the right signature."""

    def read_webhook(self, body: bytes) -> Notice:
        """The message in a verified body. Raises `UnreadableMessage`."""
