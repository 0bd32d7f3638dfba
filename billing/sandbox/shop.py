"""The double's store: everything that buyers, the API and the dashboard can do, one at a time."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from billing.sandbox.catalogue import VARIANTS
from billing.sandbox.clock import SandboxClock
from billing.sandbox.deliveries import EVENTS, Deliveries
from billing.sandbox.documents import KINDS, Documents
from billing.sandbox.errors import Refused
from billing.sandbox.faults import API_TROUBLES, Faults
from billing.sandbox.life import BAD_CARD, Life
from billing.sandbox.links import Links
from billing.sandbox.records import Checkout, Customer, Invoice, Order, Record, Settings, Subscription, Webhook
from billing.sandbox.state import State

GOOD_CARD = "4242 4242 4242 4242"
_FIRST_WEBHOOK = 1
_TICK_SECONDS = 1

__all__ = ["BAD_CARD", "GOOD_CARD", "Shop"]


class Shop:
    """A store in test mode. All methods can be called from any thread; what they return is a copy.

    They raise `errors.NotFound` for ids of nothing, and `errors.Refused` (422) for what cannot be done.
    """

    def __init__(
        self,
        store_id: str,
        api_key: str,
        webhook_secret: str,
        webhook_url: str,
        clock: SandboxClock,
        faults: Faults,
        data_file: Path | None = None,
    ) -> None:
        """Open the store. With a file, it begins where it was when that was written last."""
        self.store_id = int(store_id)
        self.api_key = api_key
        self.calls_per_minute = 300
        """The API's limit. Tests that are in a hurry lift it."""
        self.clock = clock
        self.links = Links(api_key, clock)
        self.stopping = threading.Event()
        self._state = State(self.store_id, clock, faults, data_file)
        self._documents = Documents(self._state, self.links)
        self.deliveries = Deliveries(self._state, self._documents)
        self._life = Life(self._state, self.deliveries.announce)
        self._worker: threading.Thread | None = None
        self._put_webhook(_FIRST_WEBHOOK, webhook_url, webhook_secret, EVENTS)

    @property
    def base_url(self) -> str:
        """Where this double is served: `http://127.0.0.1:PORT`. Every link begins with it."""
        return self._state.base_url

    @base_url.setter
    def base_url(self, url: str) -> None:
        self._state.base_url = url.rstrip("/")

    @property
    def faults(self) -> Faults:
        """What goes wrong at present. To be read; `set_faults` changes it."""
        return deepcopy(self._state.faults)

    @property
    def settings(self) -> Settings:
        """What the store's owner decided. To be read; `set_settings` changes it."""
        return deepcopy(self._state.settings)

    def start(self) -> None:
        """Begin to send deliveries and to let happen what comes due, in the background."""
        self._worker = threading.Thread(target=self._work, name="sandbox", daemon=True)
        self._worker.start()

    def stop(self) -> None:
        """End that, and every answer that is late on purpose."""
        self.stopping.set()
        self.deliveries.wake()
        if self._worker:
            self._worker.join()

    def create_checkout(
        self,
        variant_id: int,
        *,
        product_options: dict[str, Any] | None = None,
        checkout_options: dict[str, Any] | None = None,
        checkout_data: dict[str, Any] | None = None,
        expires_at: datetime | None = None,
        preview: bool = False,
    ) -> Checkout:
        """A page to pay on. `checkout_data` as the API takes it: email, name, custom."""
        if variant_id not in VARIANTS:
            raise Refused("The selected variant is invalid.")
        data = checkout_data or {}
        with self._state.changing():
            now = self.clock.now()
            checkout = Checkout(
                id=str(uuid4()),
                variant_id=variant_id,
                email=str(data.get("email") or ""),
                name=str(data.get("name") or ""),
                # Whatever is sent comes back as text.
                custom={name: str(value) for name, value in (data.get("custom") or {}).items()},
                product_options=product_options or {},
                checkout_options=checkout_options or {},
                checkout_data=data,
                preview=preview,
                expires_at=expires_at,
                created_at=now,
                updated_at=now,
            )
            self._state.checkouts[checkout.id] = checkout
            return deepcopy(checkout)

    def checkout(self, checkout_id: str) -> Checkout:
        """One checkout. Use it until its `expires_at`; `pay` refuses afterwards."""
        return self._copy(Checkout, checkout_id)

    def checkouts(self) -> list[Checkout]:
        """Newest first."""
        return self._copies("checkouts")

    def pay(self, checkout_id: str, *, card: str = GOOD_CARD, email: str | None = None, name: str | None = None) -> int:
        """Buy: the id of the new subscription. Raises `PaymentDeclined` for a bad card; None: as the checkout says."""
        with self._state.changing():
            checkout = self._documents.find("checkouts", checkout_id)
            email = checkout.email if email is None else email
            if not email:
                raise Refused("The email field is required.")
            return self._life.begin(checkout, card, email, checkout.name if name is None else name).id

    def subscription(self, subscription_id: int) -> Subscription:
        """One subscription."""
        return self._copy(Subscription, subscription_id)

    def subscriptions(self, **filters: str) -> list[Subscription]:
        """Newest first. Filters as the API has them: status, user_email, variant_id, product_id, order_id."""
        return self._copies("subscriptions", **filters)

    def invoices(self, **filters: str) -> list[Invoice]:
        """Newest first. Filter: subscription_id."""
        return self._copies("subscription-invoices", **filters)

    def customer(self, customer_id: int) -> Customer:
        """One customer."""
        return self._copy(Customer, customer_id)

    def orders(self) -> list[Order]:
        """Newest first."""
        return self._copies("orders")

    def change_variant(
        self,
        subscription_id: int,
        variant_id: int,
        *,
        invoice_immediately: bool = False,
        disable_prorations: bool = False,
    ) -> None:
        """Change the plan, at once. Nothing happens if it is that already."""
        with self._with(subscription_id) as subscription:
            self._life.change_variant(
                subscription,
                variant_id,
                invoice_immediately=invoice_immediately,
                disable_prorations=disable_prorations,
            )

    def cancel(self, subscription_id: int) -> None:
        """End it with its period. Nothing happens if that is so already."""
        with self._with(subscription_id) as subscription:
            self._life.cancel(subscription)

    def resume(self, subscription_id: int) -> None:
        """Take the cancellation back, before the end."""
        with self._with(subscription_id) as subscription:
            self._life.resume(subscription)

    def pause(self, subscription_id: int, mode: str, resumes_at: datetime | None = None) -> None:
        """Stop collecting payments: mode `void` or `free`."""
        with self._with(subscription_id) as subscription:
            self._life.pause(subscription, mode, resumes_at)

    def unpause(self, subscription_id: int) -> None:
        """Collect payments again."""
        with self._with(subscription_id) as subscription:
            self._life.unpause(subscription)

    def update_card(self, subscription_id: int, card_number: str) -> None:
        """Put another card on file. With a good one, invoices that are open are charged at once."""
        with self._with(subscription_id) as subscription:
            self._life.update_card(subscription, card_number)

    def refund(self, invoice_id: int, cents: int | None = None) -> None:
        """Give back an invoice's total, or a part of it in cents."""
        with self._state.changing():
            self._life.refund(self._documents.find("subscription-invoices", str(invoice_id)), cents)

    def advance(self, step: timedelta) -> None:
        """Move the clock and let happen, in order and each at its own moment, what comes due on the way."""
        if step < timedelta(0):
            raise Refused("The clock only goes forward.")
        with self._state.changing():
            self._life.let_happen(self.clock.now() + step)

    def set_faults(self, **changes: Any) -> None:
        """Change switches of `Faults` by name."""
        if changes.get("api_trouble", "") not in API_TROUBLES:
            raise Refused(f"The API's trouble is one of {API_TROUBLES}.")
        with self._state.changing():
            _change(self._state.faults, changes)

    def set_settings(self, **changes: Any) -> None:
        """Change `Settings` by name."""
        with self._state.changing():
            _change(self._state.settings, changes)

    def next_trouble(self) -> str:
        """The trouble that one call of the API meets, one of API_TROUBLES; it is counted."""
        with self._state.lock:
            faults = self._state.faults
            trouble = faults.api_trouble
            if trouble and faults.api_trouble_calls:
                left = faults.api_trouble_calls - 1
                self.set_faults(api_trouble_calls=left, api_trouble=trouble if left else "")
            return trouble

    def save_webhook(self, webhook_id: int | None, *, url: str, secret: str | None, events: Sequence[str]) -> int:
        """Add an endpoint for events (id None), or change one; its secret stays with None. Returns its id."""
        with self._state.changing():
            kept = self._state.webhooks[webhook_id].secret if webhook_id else ""
            return self._put_webhook(
                webhook_id or self._state.new_id(), url, kept if secret is None else secret, events
            )

    def remove_webhook(self, webhook_id: int) -> None:
        """Send it nothing more. Raises NotFound."""
        with self._state.changing():
            del self._state.webhooks[self._documents.find("webhooks", str(webhook_id)).id]

    def checkout_url(self, checkout: Checkout) -> str:
        """Signed: /checkout/custom/<id>?expires=…&signature=… (expires only if the checkout has an end)."""
        return self._documents.attributes.checkout_url(checkout)

    def portal_urls(self, subscription: Subscription) -> dict[str, str]:
        """Fresh signed links by the API's names.

        update_payment_method: /subscription/<id>/payment-details?expires=…&signature=…
        customer_portal: /billing?expires=…&test_mode=1&user=<customer id>&signature=…
        customer_portal_update_subscription: /billing/<id>/update?expires=…&user=<customer id>&signature=…
        """
        return self._documents.attributes.portal_urls(subscription)

    def document(self, kind: str, record_id: Any, include: Sequence[str] = ()) -> dict[str, Any]:
        """The API's document of one thing. Raises NotFound."""
        with self._caught_up():
            return self._documents.one(self._documents.find(kind, str(record_id)), include)

    def listing(
        self,
        kind: str,
        filters: Mapping[str, str],
        *,
        number: int,
        size: int,
        include: Sequence[str],
        address: Callable[[int], str],
    ) -> dict[str, Any]:
        """The API's document of a page of things, newest first. `address` makes the URL of another page of it."""
        with self._caught_up():
            records = self._documents.matching(kind, filters)
            return self._documents.page(records, number=number, size=size, include=include, address=address)

    def _work(self) -> None:
        while not self.stopping.is_set():
            self.deliveries.wait(_TICK_SECONDS)
            with self._caught_up():
                pass
            while not self.stopping.is_set() and self.deliveries.send_next():
                pass

    def _put_webhook(self, webhook_id: int, url: str, secret: str, events: Sequence[str]) -> int:
        with self._state.changing():
            now = self.clock.now()
            old = self._state.webhooks.get(webhook_id)
            created_at = old.created_at if old else now
            webhook = Webhook(
                id=webhook_id, url=url, secret=secret, events=list(events), created_at=created_at, updated_at=now
            )
            self._state.webhooks[webhook_id] = webhook
            return webhook_id

    @contextmanager
    def _caught_up(self) -> Iterator[None]:
        """Hold the lock, after everything has happened that was due by now."""
        with self._state.lock:
            due = self._life.next_due()
            if due and due[0] <= self.clock.now():
                self.advance(timedelta(0))
            yield

    @contextmanager
    def _with(self, subscription_id: int) -> Iterator[Subscription]:
        with self._state.changing(), self._caught_up():
            yield self._documents.find("subscriptions", str(subscription_id))

    def _copy(self, record_type: type[Record], record_id: int | str) -> Record:
        with self._caught_up():
            found: Record = self._documents.find(KINDS[record_type], str(record_id))
            return deepcopy(found)

    def _copies(self, kind: str, **filters: str) -> list[Any]:
        with self._caught_up():
            return deepcopy(self._documents.matching(kind, filters))


def _change(switches: Faults | Settings, changes: Mapping[str, Any]) -> None:
    for name, value in changes.items():
        if name not in vars(switches):
            raise Refused(f"There is no switch called {name}.")
        setattr(switches, name, value)
