"""The `attributes` of each kind of thing, with the provider's keys and types: ids in them are integers."""

from datetime import datetime, timedelta
from functools import singledispatchmethod
from typing import Any

from billing.sandbox.catalogue import (
    OPENED_AT,
    PRODUCTS,
    VARIANTS,
    Price,
    Product,
    Store,
    User,
    Variant,
    price_of,
    product_of,
)
from billing.sandbox.links import Links
from billing.sandbox.records import Checkout, Customer, Invoice, Order, Subscription, Webhook
from billing.sandbox.state import State

_STATUS_TEXTS = {"on_trial": "On Trial", "past_due": "Past Due", "partial_refund": "Partial Refund"}
# Products, prices and the store itself are not of one mode.
_TIMES_ONLY = (Store, Price, User)


def wire_time(moment: datetime | None) -> str | None:
    """A time as the provider writes it: whole seconds with six zeros."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.000000Z") if moment else None


def _dollars(cents: int) -> str:
    return f"${cents // 100:,}.{cents % 100:02}"


def _amounts(**cents: int) -> dict[str, Any]:
    """Each amount as it is, in USD, and as text."""
    usd = {f"{name}_usd": amount for name, amount in cents.items()}
    return {**cents, **usd, **{f"{name}_formatted": _dollars(amount) for name, amount in cents.items()}}


def _status(status: str) -> dict[str, str]:
    return {"status": status, "status_formatted": _STATUS_TEXTS.get(status, status.capitalize())}


def _card(number: str) -> dict[str, str]:
    return {"card_brand": "mastercard" if number.startswith("5") else "visa", "card_last_four": number[-4:]}


def _paid(record: Order | Invoice) -> dict[str, Any]:
    """What orders and invoices have in common."""
    return {
        "currency": "USD",
        "currency_rate": "1.00000000",
        **_amounts(
            subtotal=record.total_cents,
            setup_fee=0,
            discount_total=0,
            tax=0,
            total=record.total_cents,
            refunded_amount=record.refunded_cents,
        ),
        "tax_inclusive": False,
        **_status(record.status),
        "refunded": record.status == "refunded",
        "refunded_at": wire_time(record.refunded_at),
    }


class Attributes:
    """Writes the attributes of a record."""

    def __init__(self, state: State, links: Links) -> None:
        self._state = state
        self._links = links

    def of(self, record: Any) -> dict[str, Any]:
        """All of them, with the times and the mode that every thing has."""
        created_at = getattr(record, "created_at", OPENED_AT)
        times = {
            "created_at": wire_time(created_at),
            "updated_at": wire_time(getattr(record, "updated_at", created_at)),
        }
        if isinstance(record, User):
            # Alone of all, it is written so.
            times = {"createdAt": times["created_at"], "updatedAt": times["updated_at"]}
        mode = {} if isinstance(record, _TIMES_ONLY) else {"test_mode": self.test_mode}
        return {**self._special(record), **times, **mode}

    @property
    def test_mode(self) -> bool:
        """What is said of the mode: test, unless a fault is switched on."""
        return not self._state.faults.mode_mismatch

    @singledispatchmethod
    def _special(self, record: Any) -> dict[str, Any]:
        raise TypeError(type(record))

    @_special.register
    def _(self, record: Subscription) -> dict[str, Any]:
        product, variant = product_of(record.variant_id), VARIANTS[record.variant_id]
        pause = {"mode": record.pause_mode, "resumes_at": wire_time(record.pause_resumes_at)}
        return {
            "store_id": self._state.store_id,
            "customer_id": record.customer_id,
            "order_id": record.order_id,
            "order_item_id": record.order_item_id,
            "product_id": product.id,
            "variant_id": variant.id,
            "product_name": product.name,
            "variant_name": variant.name,
            "user_name": record.user_name,
            "user_email": record.user_email,
            **_status(record.status),
            **_card(record.card_number),
            "payment_processor": "stripe",
            "pause": pause if record.pause_mode else None,
            "cancelled": record.cancelled,
            "trial_ends_at": wire_time(record.trial_ends_at),
            "billing_anchor": record.billing_anchor,
            "first_subscription_item": self._first_item(record),
            "urls": self.portal_urls(record),
            "renews_at": wire_time(record.renews_at),
            "ends_at": wire_time(record.ends_at),
        }

    def _first_item(self, record: Subscription) -> dict[str, Any] | None:
        if record.status == "on_trial":
            return None
        return {
            "id": record.item_id,
            "subscription_id": record.id,
            "price_id": VARIANTS[record.variant_id].price_id,
            "quantity": 1,
            "is_usage_based": False,
            "created_at": wire_time(record.created_at),
            "updated_at": wire_time(record.updated_at),
        }

    @_special.register
    def _(self, record: Invoice) -> dict[str, Any]:
        url = self._state.base_url + self._links.sign(f"/invoice/{record.id}")
        return {
            "store_id": self._state.store_id,
            "subscription_id": record.subscription_id,
            "customer_id": record.customer_id,
            "user_name": record.user_name,
            "user_email": record.user_email,
            "billing_reason": record.billing_reason,
            **_card(record.card_number),
            **_paid(record),
            "urls": {"invoice_url": None if record.status == "pending" else url},
            "affiliate_id": None,
            "referral_amount": None,
        }

    @_special.register
    def _(self, record: Order) -> dict[str, Any]:
        customer, product = self._state.customers[record.customer_id], product_of(record.variant_id)
        return {
            "store_id": self._state.store_id,
            "customer_id": record.customer_id,
            "identifier": record.identifier,
            "order_number": record.id,
            "user_name": customer.name,
            "user_email": customer.email,
            **_paid(record),
            "tax_name": None,
            "tax_rate": "0.00",
            "first_order_item": {
                "id": record.item_id,
                "order_id": record.id,
                "product_id": product.id,
                "variant_id": record.variant_id,
                "price_id": VARIANTS[record.variant_id].price_id,
                "product_name": product.name,
                "variant_name": VARIANTS[record.variant_id].name,
                "price": record.total_cents,
                "quantity": 1,
                "created_at": wire_time(record.created_at),
                "updated_at": wire_time(record.created_at),
                "test_mode": self.test_mode,
            },
            "urls": {"receipt": self._state.base_url + self._links.sign(f"/receipt/{record.identifier}")},
        }

    @_special.register
    def _(self, record: Checkout) -> dict[str, Any]:
        cents = price_of(record.variant_id).cents
        preview = {
            "currency": "USD",
            "currency_rate": 1,
            **_amounts(subtotal=cents, discount_total=0, tax=0, total=cents),
        }
        data = record.checkout_data
        return {
            "store_id": self._state.store_id,
            "variant_id": record.variant_id,
            "custom_price": None,
            "product_options": _PRODUCT_OPTIONS | record.product_options,
            "checkout_options": _CHECKOUT_OPTIONS | record.checkout_options,
            "checkout_data": _CHECKOUT_DATA | data | {"custom": record.custom or []},
            **({"preview": preview} if record.preview else {}),
            "expires_at": wire_time(record.expires_at),
            "url": self.checkout_url(record),
        }

    @_special.register
    def _(self, record: Customer) -> dict[str, Any]:
        mine = [
            subscription for subscription in self._state.subscriptions.values() if subscription.customer_id == record.id
        ]
        paid = [
            invoice.total_cents - invoice.refunded_cents
            for invoice in self._state.invoices.values()
            if invoice.customer_id == record.id and invoice.status not in ("pending", "void")
        ]
        monthly = [price_of(subscription.variant_id) for subscription in mine if subscription.status == "active"]
        mrr = sum(price.cents // (12 if price.interval == "year" else 1) for price in monthly)
        return {
            "store_id": self._state.store_id,
            "name": record.name,
            "email": record.email,
            **_status("subscribed"),
            "city": None,
            "region": None,
            "country": "US",
            "country_formatted": "United States",
            "total_revenue_currency": sum(paid),
            "total_revenue_currency_formatted": _dollars(sum(paid)),
            "mrr": mrr,
            "mrr_formatted": _dollars(mrr),
            "urls": {"customer_portal": self._portal_url(record.id) if mine else None},
        }

    @_special.register
    def _(self, record: Store) -> dict[str, Any]:
        return {
            "name": "Sandbox",
            "slug": "sandbox",
            "domain": "sandbox.lemonsqueezy.com",
            "url": self._state.base_url,
            "avatar_url": "",
            "plan": "fresh",
            "country": "US",
            "country_nicename": "United States",
            "currency": "USD",
            "total_sales": len(self._state.orders),
            "total_revenue": sum(order.total_cents for order in self._state.orders.values()),
            "thirty_day_sales": 0,
            "thirty_day_revenue": 0,
        }

    @_special.register
    def _(self, record: User) -> dict[str, Any]:
        return {
            "name": "Sandbox",
            "email": "sandbox@example.com",
            "color": "#7047EB",
            "avatar_url": "",
            "has_custom_avatar": False,
        }

    @_special.register
    def _(self, record: Product) -> dict[str, Any]:
        prices = [price_of(variant.id).cents for variant in VARIANTS.values() if variant.product_id == record.id]
        return {
            "store_id": self._state.store_id,
            "name": record.name,
            "slug": record.name.lower(),
            "description": "",
            **_status("published"),
            "thumb_url": None,
            "large_thumb_url": None,
            "price": min(prices),
            "price_formatted": _dollars(min(prices)),
            "from_price": None,
            "to_price": None,
            "pay_what_you_want": False,
            "buy_now_url": None,
        }

    @_special.register
    def _(self, record: Variant) -> dict[str, Any]:
        return {
            "product_id": record.product_id,
            "name": record.name,
            "slug": f"{PRODUCTS[record.product_id].name}-{record.name}".lower(),
            "description": "",
            "has_license_keys": False,
            "sort": record.id % 10,
            **_status("published"),
        }

    @_special.register
    def _(self, record: Price) -> dict[str, Any]:
        trial_days = self._state.settings.trial_days
        return {
            "variant_id": record.variant_id,
            "category": "subscription",
            "scheme": "standard",
            "usage_aggregation": None,
            "unit_price": record.cents,
            "unit_price_decimal": None,
            "setup_fee_enabled": False,
            "setup_fee": None,
            "package_size": 1,
            "tiers": None,
            "renewal_interval_unit": record.interval,
            "renewal_interval_quantity": 1,
            "trial_interval_unit": "day" if trial_days else None,
            "trial_interval_quantity": trial_days or None,
            "min_price": None,
            "suggested_price": None,
            "tax_code": "saas",
        }

    @_special.register
    def _(self, record: Webhook) -> dict[str, Any]:
        return {
            "store_id": self._state.store_id,
            "url": record.url,
            "events": record.events,
            "last_sent_at": wire_time(record.last_sent_at),
        }

    def checkout_url(self, record: Checkout) -> str:
        """The page where it can be paid."""
        path = f"/checkout/custom/{record.id}"
        return self._state.base_url + self._links.sign(path, record.expires_at)

    def portal_urls(self, record: Subscription) -> dict[str, str]:
        """Fresh signed links, by their names."""
        base, expires_at, user = self._state.base_url, self._links_end(), str(record.customer_id)
        payment = self._links.sign(f"/subscription/{record.id}/payment-details", expires_at)
        update = self._links.sign(f"/billing/{record.id}/update", expires_at, user=user)
        return {
            "update_payment_method": base + payment,
            "customer_portal": self._portal_url(record.customer_id),
            "customer_portal_update_subscription": base + update,
        }

    def _portal_url(self, customer_id: int) -> str:
        signed = self._links.sign("/billing", self._links_end(), test_mode="1", user=str(customer_id))
        return self._state.base_url + signed

    def _links_end(self) -> datetime:
        return self._state.clock.now() + timedelta(hours=self._state.settings.link_hours)


_PRODUCT_OPTIONS: dict[str, Any] = {
    "name": "",
    "description": "",
    "media": [],
    "redirect_url": "",
    "receipt_button_text": "",
    "receipt_link_url": "",
    "receipt_thank_you_note": "",
    "enabled_variants": [],
}
_CHECKOUT_OPTIONS: dict[str, Any] = {
    "embed": False,
    "media": True,
    "logo": True,
    "desc": True,
    "discount": True,
    "skip_trial": False,
    "subscription_preview": True,
    "button_color": "#7047EB",
}
_CHECKOUT_DATA: dict[str, Any] = {
    "email": "",
    "name": "",
    "billing_address": [],
    "tax_number": "",
    "discount_code": "",
    "custom": [],
    "variant_quantities": [],
}
