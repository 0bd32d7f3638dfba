"""A subscription's life: what people do to it, and what time does. Callers hold the state's lock."""

from calendar import monthrange
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from uuid import uuid4

from billing.sandbox.catalogue import LEGACY_VARIANT, VARIANTS, Price, price_of
from billing.sandbox.errors import PaymentDeclined, Refused
from billing.sandbox.records import Checkout, Customer, Invoice, Order, Subscription
from billing.sandbox.state import State

BAD_CARD = "4000 0000 0000 0002"
# Two weeks in all. After the last one it is unpaid.
RETRY_GAPS = [timedelta(days=days) for days in (3, 3, 4, 4)]

Happening = tuple[str, Subscription | Invoice | Order]
"""An event's name and what it is about."""
Announce = Callable[[Sequence[Happening], dict[str, str]], None]
"""Sends events out, all with the same custom data."""


def works(card: str) -> bool:
    """Whether a card can be charged. All can but one."""
    return card.replace(" ", "") != BAD_CARD.replace(" ", "")


def next_period_end(end: datetime, interval: str, anchor: int) -> datetime:
    """One month or year later, on the anchor's day or the last one of a month that is too short."""
    months = end.month - 1 + (12 if interval == "year" else 1)
    year, month = end.year + months // 12, months % 12 + 1
    return end.replace(year=year, month=month, day=min(anchor, monthrange(year, month)[1]))


class Life:
    """What can happen to subscriptions, each with the events that it causes."""

    def __init__(self, state: State, announce: Announce) -> None:
        self._state = state
        self._clock = state.clock
        self._announce = announce

    def begin(self, checkout: Checkout, card: str, email: str, name: str) -> Subscription:
        """Buy what the checkout offers."""
        now = self._clock.now()
        if checkout.expires_at and checkout.expires_at <= now:
            raise Refused("This checkout has expired.")
        if not works(card):
            raise PaymentDeclined("Your card was declined.")
        variant_id = LEGACY_VARIANT if self._state.faults.unknown_variant else checkout.variant_id
        trial_days = 0 if checkout.skip_trial else self._state.settings.trial_days
        customer = self._customer(email, name)
        price = price_of(variant_id)
        order = self._order(customer, variant_id, 0 if trial_days else price.cents)
        trial_ends_at = now + timedelta(days=trial_days) if trial_days else None
        first_end = trial_ends_at or next_period_end(now, price.interval, now.day)
        subscription = Subscription(
            id=self._state.new_id(),
            item_id=self._state.new_id(),
            order_id=order.id,
            order_item_id=order.item_id,
            customer_id=customer.id,
            variant_id=variant_id,
            user_name=name,
            user_email=email,
            status="on_trial" if trial_ends_at else "active",
            card_number=card,
            custom=checkout.custom,
            billing_anchor=first_end.day if trial_ends_at else now.day,
            trial_ends_at=trial_ends_at,
            renews_at=first_end,
            period_ends_at=first_end,
            created_at=now,
            updated_at=now,
        )
        self._state.subscriptions[subscription.id] = subscription
        payment = [] if trial_ends_at else self._charge(subscription, price.cents, "initial")
        self._tell(
            subscription,
            ("order_created", order),
            ("subscription_created", subscription),
            *payment,
            ("subscription_updated", subscription),
        )
        return subscription

    def change_variant(
        self, subscription: Subscription, variant_id: int, *, invoice_immediately: bool, disable_prorations: bool
    ) -> None:
        """Move to another variant, at once."""
        self._refuse_if_expired(subscription)
        if variant_id not in VARIANTS:
            raise Refused("The selected variant id is invalid.")
        if variant_id == subscription.variant_id:
            return
        old, new = price_of(subscription.variant_id), price_of(variant_id)
        now = self._clock.now()
        difference = 0
        if subscription.status == "active":
            if not disable_prorations:
                difference = self._prorated(subscription, old, new)
            if old.interval != new.interval:
                subscription.billing_anchor = now.day
                subscription.period_ends_at = next_period_end(now, new.interval, now.day)
                subscription.renews_at = subscription.period_ends_at
        subscription.variant_id = variant_id
        self._touch(subscription)
        payment: list[Happening] = []
        if difference > 0 and invoice_immediately:
            payment = self._charge(subscription, difference, "updated")
        else:
            subscription.carried_cents += max(difference, 0)
        self._tell(
            subscription,
            ("subscription_updated", subscription),
            ("subscription_plan_changed", subscription),
            *payment,
        )

    def cancel(self, subscription: Subscription) -> None:
        """Let it end with what is paid for. An unpaid one ends at once."""
        self._refuse_if_expired(subscription)
        if subscription.cancelled:
            return
        unpaid = subscription.status == "unpaid"
        subscription.ends_at = self._clock.now() if unpaid else subscription.renews_at
        subscription.cancelled = True
        subscription.status = "cancelled"
        self._touch(subscription)
        self._tell_change(subscription, "subscription_cancelled")

    def resume(self, subscription: Subscription) -> None:
        """Take a cancellation back."""
        self._refuse_if_expired(subscription)
        if not subscription.cancelled:
            return
        subscription.cancelled = False
        subscription.ends_at = None
        subscription.status = self._running_status(subscription)
        self._touch(subscription)
        self._tell_change(subscription, "subscription_resumed")

    def pause(self, subscription: Subscription, mode: str, resumes_at: datetime | None) -> None:
        """Stop collecting payments."""
        self._refuse_if_expired(subscription)
        if subscription.cancelled:
            raise Refused("A cancelled subscription cannot be paused.")
        if mode not in ("void", "free"):
            raise Refused("The selected pause mode is invalid.")
        if resumes_at and resumes_at <= self._clock.now():
            raise Refused("The pause must end in the future.")
        subscription.pause_mode, subscription.pause_resumes_at = mode, resumes_at
        subscription.status = "paused"
        self._touch(subscription)
        self._tell_change(subscription, "subscription_paused")

    def unpause(self, subscription: Subscription) -> None:
        """Collect payments again."""
        self._refuse_if_expired(subscription)
        if not subscription.pause_mode:
            return
        subscription.pause_mode, subscription.pause_resumes_at = "", None
        if not subscription.cancelled:
            subscription.status = self._running_status(subscription)
        self._touch(subscription)
        self._tell_change(subscription, "subscription_unpaused")

    def update_card(self, subscription: Subscription, card: str) -> None:
        """Put another card on file, and charge it what is open if it can be charged."""
        self._refuse_if_expired(subscription)
        subscription.card_number = card
        self._touch(subscription)
        owed = self._open_invoices(subscription)
        payment = self._collect(subscription, owed) if owed and works(card) and not subscription.cancelled else []
        self._tell(subscription, *payment, ("subscription_updated", subscription))

    def refund(self, invoice: Invoice, cents: int | None) -> None:
        """Give back a payment, whole (None) or a part of it. The subscription goes on."""
        left = invoice.total_cents - invoice.refunded_cents
        amount = left if cents is None else cents
        if invoice.status not in ("paid", "partial_refund") or not 0 < amount <= left:
            raise Refused("Only what was paid can be refunded.")
        subscription = self._state.subscriptions[invoice.subscription_id]
        happenings: list[Happening] = [("subscription_payment_refunded", invoice)]
        self._give_back(invoice, amount)
        if invoice.billing_reason == "initial":
            order = self._state.orders[subscription.order_id]
            self._give_back(order, amount)
            happenings.append(("order_refunded", order))
        self._tell(subscription, *happenings)

    def next_due(self) -> tuple[datetime, int] | None:
        """When the next thing happens by itself, and to which subscription."""
        dues = [(self._due_at(subscription), id_) for id_, subscription in self._state.subscriptions.items()]
        return min(((moment, id_) for moment, id_ in dues if moment), default=None)

    def let_happen(self, until: datetime) -> None:
        """Move the clock to a moment, with a stop at each thing that happens by then."""
        while (due := self.next_due()) and due[0] <= until:
            moment, subscription_id = due
            self._clock.advance(max(moment - self._clock.now(), timedelta(0)))
            self._happen(self._state.subscriptions[subscription_id])
        self._clock.advance(max(until - self._clock.now(), timedelta(0)))

    def _due_at(self, subscription: Subscription) -> datetime | None:
        match subscription.status:
            case "expired":
                return None
            case "cancelled":
                return subscription.ends_at
            case "unpaid":
                return subscription.unpaid_until_at
            case "paused" if subscription.pause_resumes_at:
                return min(subscription.renews_at, subscription.pause_resumes_at)
            case _:
                return subscription.renews_at

    def _happen(self, subscription: Subscription) -> None:
        match subscription.status:
            case "cancelled" | "unpaid":
                self._expire(subscription)
            case "paused":
                self._pass_pause(subscription)
            case "past_due":
                self._touch(subscription)
                payment = self._collect(subscription, self._open_invoices(subscription))
                self._tell(subscription, *payment, ("subscription_updated", subscription))
            case _:
                self._renew(subscription)

    def _renew(self, subscription: Subscription) -> None:
        self._begin_period(subscription)
        cents = price_of(subscription.variant_id).cents + subscription.carried_cents
        subscription.carried_cents = 0
        payment = self._charge(subscription, cents, "renewal")
        self._tell(subscription, *payment, ("subscription_updated", subscription))

    def _pass_pause(self, subscription: Subscription) -> None:
        if subscription.pause_resumes_at and subscription.pause_resumes_at <= self._clock.now():
            self.unpause(subscription)
            return
        self._begin_period(subscription)
        subscription.renews_at = subscription.period_ends_at
        self._tell(subscription, ("subscription_updated", subscription))

    def _expire(self, subscription: Subscription) -> None:
        now = self._clock.now()
        subscription.status = "expired"
        subscription.ends_at = subscription.ends_at or now
        subscription.unpaid_until_at = None
        for invoice in self._open_invoices(subscription):
            invoice.status = "void"
            self._touch(invoice)
        self._touch(subscription)
        self._tell_change(subscription, "subscription_expired")

    def _begin_period(self, subscription: Subscription) -> None:
        interval = price_of(subscription.variant_id).interval
        subscription.period_ends_at = next_period_end(
            subscription.period_ends_at, interval, subscription.billing_anchor
        )
        self._touch(subscription)

    def _charge(self, subscription: Subscription, cents: int, reason: str) -> list[Happening]:
        now = self._clock.now()
        invoice = Invoice(
            id=self._state.new_id(),
            subscription_id=subscription.id,
            customer_id=subscription.customer_id,
            user_name=subscription.user_name,
            user_email=subscription.user_email,
            billing_reason=reason,
            card_number=subscription.card_number,
            total_cents=cents,
            status="pending",
            created_at=now,
            updated_at=now,
        )
        self._state.invoices[invoice.id] = invoice
        return self._collect(subscription, [invoice])

    def _collect(self, subscription: Subscription, invoices: list[Invoice]) -> list[Happening]:
        for invoice in invoices:
            invoice.card_number = subscription.card_number
            self._touch(invoice)
        if not works(subscription.card_number):
            self._fall_behind(subscription)
            return [("subscription_payment_failed", invoice) for invoice in invoices]
        names = ["subscription_payment_success"]
        if subscription.failed_attempts:
            names.append("subscription_payment_recovered")
        for invoice in invoices:
            invoice.status = "paid"
        subscription.failed_attempts = 0
        subscription.unpaid_until_at = None
        subscription.renews_at = subscription.period_ends_at
        subscription.status = self._running_status(subscription)
        return [(name, invoice) for invoice in invoices for name in names]

    def _fall_behind(self, subscription: Subscription) -> None:
        subscription.failed_attempts += 1
        now = self._clock.now()
        subscription.status = self._running_status(subscription)
        if subscription.failed_attempts <= len(RETRY_GAPS):
            subscription.renews_at = now + RETRY_GAPS[subscription.failed_attempts - 1]
            return
        subscription.renews_at = subscription.period_ends_at
        if dunning_days := self._state.settings.dunning_days:
            subscription.unpaid_until_at = now + timedelta(days=dunning_days)

    def _running_status(self, subscription: Subscription) -> str:
        if subscription.pause_mode:
            return "paused"
        if subscription.trial_ends_at and subscription.trial_ends_at > self._clock.now():
            return "on_trial"
        if subscription.failed_attempts > len(RETRY_GAPS):
            return "unpaid"
        return "past_due" if subscription.failed_attempts else "active"

    def _open_invoices(self, subscription: Subscription) -> list[Invoice]:
        return [
            invoice
            for invoice in self._state.invoices.values()
            if invoice.subscription_id == subscription.id and invoice.status == "pending"
        ]

    def _prorated(self, subscription: Subscription, old: Price, new: Price) -> int:
        """What the new plan costs more, in cents: for the rest of the period, or whole if a new period begins."""
        length = timedelta(days=365 if old.interval == "year" else 30)
        left = min(max(subscription.period_ends_at - self._clock.now(), timedelta(0)), length)
        unused_cents = old.cents * left // length
        return (new.cents if old.interval != new.interval else new.cents * left // length) - unused_cents

    def _give_back(self, paid: Invoice | Order, cents: int) -> None:
        paid.refunded_cents += cents
        paid.refunded_at = self._clock.now()
        paid.status = "refunded" if paid.refunded_cents == paid.total_cents else "partial_refund"
        self._touch(paid)

    def _customer(self, email: str, name: str) -> Customer:
        for customer in self._state.customers.values():
            if customer.email == email:
                return customer
        now = self._clock.now()
        customer = Customer(id=self._state.new_id(), name=name, email=email, created_at=now, updated_at=now)
        self._state.customers[customer.id] = customer
        return customer

    def _order(self, customer: Customer, variant_id: int, cents: int) -> Order:
        now = self._clock.now()
        order = Order(
            id=self._state.new_id(),
            identifier=str(uuid4()),
            item_id=self._state.new_id(),
            customer_id=customer.id,
            variant_id=variant_id,
            total_cents=cents,
            status="paid",
            created_at=now,
            updated_at=now,
        )
        self._state.orders[order.id] = order
        return order

    def _refuse_if_expired(self, subscription: Subscription) -> None:
        if subscription.status == "expired":
            raise Refused("An expired subscription cannot be changed.")

    def _touch(self, record: Subscription | Invoice | Order) -> None:
        if not self._state.faults.same_second:
            record.updated_at = self._clock.now()

    def _tell_change(self, subscription: Subscription, name: str) -> None:
        self._tell(subscription, (name, subscription), ("subscription_updated", subscription))

    def _tell(self, subscription: Subscription, *happenings: Happening) -> None:
        extra: list[Happening] = []
        if self._state.faults.unknown_event:
            extra = [("subscription_reviewed", subscription)]
        self._announce([*happenings, *extra], subscription.custom)
