"""What the double remembers, and its form on disk. Amounts are whole cents, times are aware and in whole seconds."""

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, TypeVar

Record = TypeVar("Record")


@dataclass(kw_only=True)
class Settings:
    """What the store's owner decides."""

    link_hours: int = 6
    """How long signed links are good: 6 was measured, 24 is documented."""
    trial_days: int = 0
    """Length of the trial that new subscriptions begin with; 0 for none."""
    dunning_days: int = 14
    """From `unpaid` to `expired`; 0: unpaid for ever."""


@dataclass(kw_only=True)
class Customer:
    """Somebody who bought something."""

    id: int
    name: str
    email: str
    created_at: datetime
    updated_at: datetime


@dataclass(kw_only=True)
class Checkout:
    """A page to pay on. It can be used any number of times until `expires_at`."""

    id: str
    variant_id: int
    email: str
    name: str
    custom: dict[str, str]
    product_options: dict[str, Any]
    checkout_options: dict[str, Any]
    checkout_data: dict[str, Any]
    preview: bool
    expires_at: datetime | None
    created_at: datetime
    updated_at: datetime

    @property
    def redirect_url(self) -> str:
        """Where the buyer goes after paying; empty if nobody said."""
        return str(self.product_options.get("redirect_url") or "")

    @property
    def skip_trial(self) -> bool:
        """Whether this one is without a trial, whatever the store's setting."""
        return bool(self.checkout_options.get("skip_trial"))


@dataclass(kw_only=True)
class Order:
    """A purchase: the first one of a subscription. Renewals have no order."""

    id: int
    identifier: str
    item_id: int
    customer_id: int
    variant_id: int
    total_cents: int
    status: str
    refunded_at: datetime | None = None
    refunded_cents: int = 0
    created_at: datetime
    updated_at: datetime


@dataclass(kw_only=True)
class Subscription:
    """A subscription with what the API says of it and what only the store knows."""

    id: int
    item_id: int
    order_id: int
    order_item_id: int
    customer_id: int
    variant_id: int
    user_name: str
    user_email: str
    status: str
    card_number: str
    custom: dict[str, str]
    billing_anchor: int
    renews_at: datetime
    """Next charge: end of the period or of the trial, or while past due the next attempt."""
    period_ends_at: datetime
    """End of the period that was charged last, whether it was paid or not."""
    created_at: datetime
    updated_at: datetime
    trial_ends_at: datetime | None = None
    ends_at: datetime | None = None
    unpaid_until_at: datetime | None = None
    """When an unpaid one expires; None: it is not unpaid, or stays so for ever."""
    pause_mode: str = ""
    """`void`, `free`, or empty: not paused."""
    pause_resumes_at: datetime | None = None
    cancelled: bool = False
    failed_attempts: int = 0
    """How often the open invoices could not be charged."""
    carried_cents: int = 0
    """Prorated difference that the next renewal adds."""

    @property
    def card_last_four(self) -> str:
        """The part of the card's number that is shown."""
        return self.card_number[-4:]


@dataclass(kw_only=True)
class Invoice:
    """A payment, made or tried. Pending until it is paid, or void when nobody tries any more."""

    id: int
    subscription_id: int
    customer_id: int
    user_name: str
    user_email: str
    billing_reason: str
    card_number: str
    total_cents: int
    status: str
    refunded_at: datetime | None = None
    refunded_cents: int = 0
    created_at: datetime
    updated_at: datetime


@dataclass(kw_only=True)
class Webhook:
    """Where events go to. Number 1 is the product that this double was started for."""

    id: int
    url: str
    secret: str = field(repr=False)
    events: list[str]
    """Names of the events that are wanted. Names that nobody knows are sent to everybody."""
    last_sent_at: datetime | None = None
    created_at: datetime
    updated_at: datetime


@dataclass(kw_only=True)
class Delivery:
    """One event on its way to one webhook."""

    id: int
    webhook_id: int
    event_name: str
    body: str
    headers: dict[str, str]
    status: str
    """`pending`, `sent`, `failed` for good, `dropped` by a fault, or `taken` by a test."""
    due_epoch: float
    """When the next attempt is made: real time, seconds since 1970."""
    attempts: list[dict[str, Any]]
    """Each with `at` (ISO, real time), `status` (HTTP status or 0) and `error`."""
    created_at: datetime
    """By the double's clock."""


def pack(record: Any) -> dict[str, Any]:
    """A record in a form that JSON can hold."""
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in asdict(record).items()}


def unpack(kind: type[Record], data: dict[str, Any]) -> Record:
    """The record that `pack` was given. Names that end with `_at` hold times."""
    return kind(
        **{
            name: datetime.fromisoformat(value) if name.endswith("_at") and value else value
            for name, value in data.items()
        }
    )
