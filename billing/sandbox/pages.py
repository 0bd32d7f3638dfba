"""The pages of the double: hosted checkout, customer portal, and its own control panel. Plain forms, no scripts."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from flask import Blueprint, redirect, render_template, request
from werkzeug.wrappers import Response

from billing.sandbox.catalogue import VARIANTS, price_of, product_of
from billing.sandbox.deliveries import EVENTS
from billing.sandbox.errors import LinkRefused, NotFound, PaymentDeclined, Refused, ShopError
from billing.sandbox.faults import API_TROUBLES, Faults
from billing.sandbox.records import Checkout, Delivery, Subscription
from billing.sandbox.shop import BAD_CARD, GOOD_CARD, Shop

Number = TypeVar("Number", int, float)
Answer = str | Response | tuple[str, int]

DELIVERIES_SHOWN = 50
MOST = 1_000_000
CARDS = {"good": GOOD_CARD, "bad": BAD_CARD}
STEPS = {"day": timedelta(days=1), "week": timedelta(weeks=1)}
PAYING = ("active", "on_trial", "past_due")

# What can go wrong, as the control panel says it: switch, label, explanation.
SWITCHES = (
    ("duplicate", "Send everything twice", "The same body, and with it the same webhook id."),
    ("shuffle", "Send in any order", "Events that wait overtake each other."),
    ("same_second", "Changes within one second", "updated_at stays as it is when something changes."),
    ("missing_webhook_id", "No webhook id", "As in old and in simulated events."),
    ("wrong_signature", "Wrong signature", "Signed with another secret."),
    ("no_custom_data", "No custom data", "Nothing says which workspace has paid."),
    ("unknown_variant", "Sell an unknown variant", "Whatever checkout is paid, the variant is one that nobody mapped."),
    ("unknown_event", "Send an unknown event too", "After each change, one more event with a name that is new."),
    ("mode_mismatch", "Claim to be live mode", "Events and the API say test_mode: false."),
)
TROUBLES = {
    "": "answers properly",
    "500": "answers 500",
    "429": "answers 429, too many calls",
    "timeout": "does nothing and does not answer in time",
    "late": "does it, but answers too late",
}
SETTINGS = (
    ("link_hours", "Signed links are good for (hours)", "6 was measured, 24 is documented."),
    ("trial_days", "New subscriptions begin with a trial of (days)", "0: without a trial."),
    ("dunning_days", "From unpaid to expired (days)", "0: unpaid for ever."),
)


@dataclass(frozen=True, slots=True)
class Offer:
    """A variant as a buyer sees it."""

    variant_id: int
    label: str
    cents: int
    interval: str


def offer(variant_id: int) -> Offer:
    """What stands behind a variant's id."""
    price = price_of(variant_id)
    label = f"{product_of(variant_id).name} · {VARIANTS[variant_id].name}"
    return Offer(variant_id, label, price.cents, price.interval)


OFFERS = {variant_id: offer(variant_id) for variant_id in VARIANTS}


def make_pages(shop: Shop) -> Blueprint:
    """The pages of this shop, to be registered at the root."""
    pages = Blueprint("pages", __name__, template_folder="templates", static_folder="static", static_url_path="/assets")
    checkouts, portal, panel = CheckoutPages(shop), PortalPages(shop), ControlPanel(shop)

    def both(path: str, name: str, show: Any, change: Any) -> None:
        pages.add_url_rule(path, name, show, methods=["GET"])
        pages.add_url_rule(path, f"{name}-change", change, methods=["POST"])

    both("/checkout/custom/<checkout_id>", "checkout", checkouts.show, checkouts.pay)
    pages.add_url_rule("/checkout/custom/<checkout_id>/thanks", "thanks", checkouts.thank)
    pages.add_url_rule("/checkout/left", "left", checkouts.leave)

    both("/billing", "portal", portal.show, portal.change)
    both("/subscription/<int:subscription_id>/payment-details", "card", portal.show_card, portal.change_card)
    both("/billing/<int:subscription_id>/update", "plan", portal.show_plans, portal.change_plan)

    pages.add_url_rule("/", "panel", panel.show)
    for path, name, change in (
        ("/panel/clock", "move-clock", panel.move_clock),
        ("/panel/subscriptions/<int:subscription_id>", "act", panel.act),
        ("/panel/faults", "set-faults", panel.set_faults),
        ("/panel/faults/off", "no-faults", panel.clear_faults),
        ("/panel/settings", "set-settings", panel.set_settings),
        ("/panel/deliveries/<int:delivery_id>/again", "again", panel.send_again),
    ):
        pages.add_url_rule(path, name, change, methods=["POST"])

    pages.register_error_handler(ShopError, show_error)
    pages.add_app_template_filter(money)
    pages.add_app_template_filter(moment)
    pages.add_app_template_filter(words)
    pages.context_processor(lambda: {"offers": OFFERS, "now": shop.clock.now()})
    return pages


# --- How things are written -------------------------------------------------------------------------------------------


def money(cents: int) -> str:
    """An amount in US dollars."""
    return f"{'-' if cents < 0 else ''}${abs(cents) // 100:,}.{abs(cents) % 100:02}"


def moment(time: datetime | None) -> str:
    """A time by the double's clock."""
    return f"{time:%-d %b %Y, %H:%M} UTC" if time else "–"


def words(name: str) -> str:
    """A state's name as a person reads it."""
    return name.replace("_", " ").capitalize()


def show_error(error: ShopError) -> Answer:
    """What could not be done, and why."""
    return render_template("sandbox/error.html", error=error, is_link=isinstance(error, LinkRefused)), error.status


def back_to(address: str) -> Response:
    """Where to go after a change, so that a reload does not make it again."""
    return redirect(address, 303)


def chosen(options: Mapping[str, Any], name: str) -> Any:
    """What the form's field stands for. Raises `Refused` for a value that the form does not have."""
    try:
        return options[request.form.get(name, "")]
    except KeyError as error:
        raise Refused(f"{name}: choose one of {', '.join(options)}.") from error


# --- Hosted checkout --------------------------------------------------------------------------------------------------


class CheckoutPages:
    """Where a buyer pays. The address is signed; who has it may pay."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop

    def show(self, checkout_id: str) -> Answer:
        """The page to pay on."""
        return self._page(self._checkout(checkout_id))

    def pay(self, checkout_id: str) -> Answer:
        """Buy, with one of two cards."""
        checkout = self._checkout(checkout_id)
        card = chosen(CARDS, "card")
        email, name = request.form.get("email", "").strip(), request.form.get("name", "").strip()
        if "@" not in email:
            return self._page(checkout, "An e-mail address is needed."), 422
        try:
            subscription_id = self._shop.pay(checkout_id, card=card, email=email, name=name or None)
        except PaymentDeclined:
            return self._page(checkout, "The card was declined. Nothing was bought."), 422
        path = f"/checkout/custom/{checkout_id}/thanks"
        return back_to(self._shop.links.sign(path, subscription=str(subscription_id)))

    def thank(self, checkout_id: str) -> Answer:
        """After the payment: the way back to the seller."""
        self._shop.links.check(request.path, request.args)
        subscription = self._shop.subscription(int(request.args["subscription"]))
        link = web_address(self._shop.checkout(checkout_id).redirect_url)
        return render_template("sandbox/thanks.html", subscription=subscription, link=link)

    def leave(self) -> Answer:
        """Nothing was bought."""
        return render_template("sandbox/left.html")

    def _checkout(self, checkout_id: str) -> Checkout:
        self._shop.links.check(request.path, request.args)
        return self._shop.checkout(checkout_id)

    def _page(self, checkout: Checkout, problem: str = "") -> str:
        bought = [one for one in self._shop.subscriptions() if checkout.custom and one.custom == checkout.custom]
        return render_template(
            "sandbox/checkout.html",
            checkout=checkout,
            offer=OFFERS[checkout.variant_id],
            bought=bought,
            link=web_address(checkout.redirect_url),
            email=request.form.get("email", checkout.email),
            name=request.form.get("name", checkout.name),
            problem=problem,
            cards=CARDS,
        )


def web_address(address: str) -> str:
    """The address if a browser may follow it, otherwise nothing."""
    return address if address.startswith(("http://", "https://")) else ""


# --- Customer portal --------------------------------------------------------------------------------------------------


class PortalPages:
    """What a customer may do. The addresses are signed and expire; they are all the proof that is asked for."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop

    def show(self) -> Answer:
        """A customer's subscriptions and invoices; without a signed link, the way to one."""
        if not request.args:
            return render_template("sandbox/sign_in.html")
        customer_id = self._customer_id()
        theirs = self._theirs(customer_id)
        return render_template(
            "sandbox/portal.html",
            customer=self._shop.customer(customer_id),
            subscriptions=[(one, self._shop.portal_urls(one)) for one in theirs],
            invoices=[one for one in self._shop.invoices() if one.customer_id == customer_id],
        )

    def change(self) -> Answer:
        """Cancel or resume."""
        customer_id = self._customer_id()
        change = chosen({"cancel": self._shop.cancel, "resume": self._shop.resume}, "action")
        wanted = request.form.get("subscription", "")
        if wanted not in {str(one.id) for one in self._theirs(customer_id)}:
            raise NotFound("This customer has no such subscription.")
        change(int(wanted))
        return back_to(request.full_path)

    def show_card(self, subscription_id: int) -> Answer:
        """The card on file, and two to put in its place."""
        return render_template("sandbox/card.html", subscription=self._linked(subscription_id), cards=CARDS)

    def change_card(self, subscription_id: int) -> Answer:
        """Put another card on file."""
        subscription = self._linked(subscription_id)
        self._shop.update_card(subscription_id, chosen(CARDS, "card"))
        return back_to(self._shop.portal_urls(subscription)["customer_portal"])

    def show_plans(self, subscription_id: int) -> Answer:
        """What the subscription can be changed to."""
        return render_template("sandbox/plans.html", subscription=self._linked(subscription_id))

    def change_plan(self, subscription_id: int) -> Answer:
        """Change it now."""
        subscription = self._linked(subscription_id)
        variant_id: int = chosen({str(variant_id): variant_id for variant_id in OFFERS}, "variant")
        self._shop.change_variant(subscription_id, variant_id)
        return back_to(self._shop.portal_urls(subscription)["customer_portal"])

    def _customer_id(self) -> int:
        self._shop.links.check(request.path, request.args)
        return int(request.args["user"])

    def _linked(self, subscription_id: int) -> Subscription:
        self._shop.links.check(request.path, request.args)
        return self._shop.subscription(subscription_id)

    def _theirs(self, customer_id: int) -> list[Subscription]:
        return [one for one in self._shop.subscriptions() if one.customer_id == customer_id]


# --- Control panel ----------------------------------------------------------------------------------------------------


class ControlPanel:
    """What the provider's dashboard can do, and what no dashboard can: move the clock and make things go wrong."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop

    def show(self) -> Answer:
        """Everything on one page."""
        subscriptions = self._shop.subscriptions()
        return render_template(
            "sandbox/panel.html",
            subscriptions=[(one, self._shop.portal_urls(one)["customer_portal"]) for one in subscriptions],
            renewal=next_renewal(subscriptions),
            end=next_end(subscriptions),
            faults=self._shop.faults,
            switches=SWITCHES,
            troubles=TROUBLES,
            events=EVENTS,
            settings=self._shop.settings,
            labels=SETTINGS,
            deliveries=[(one, subject_of(one)) for one in self._shop.deliveries.log()[:DELIVERIES_SHOWN]],
        )

    def move_clock(self) -> Answer:
        """By a step, or to the next thing that happens."""
        subscriptions = self._shop.subscriptions()
        moments = {"renewal": next_renewal(subscriptions), "end": next_end(subscriptions)}
        step = request.form.get("step", "")
        if step in moments:
            self._go_to(moments[step])
        else:
            self._shop.advance(chosen(STEPS, "step"))
        return back_to("/#clock")

    def act(self, subscription_id: int) -> Answer:
        """Something happens to one subscription. The clock moves for all."""
        shop = self._shop
        actions = {
            "renew": lambda: self._charge(subscription_id, GOOD_CARD),
            "fail": lambda: self._charge(subscription_id, BAD_CARD),
            "expire": lambda: self._end(subscription_id),
            "cancel": lambda: shop.cancel(subscription_id),
            "resume": lambda: shop.resume(subscription_id),
            "pause-free": lambda: shop.pause(subscription_id, "free"),
            "pause-void": lambda: shop.pause(subscription_id, "void"),
            "unpause": lambda: shop.unpause(subscription_id),
            "refund": lambda: self._refund_last(subscription_id),
        }
        chosen(actions, "action")()
        return back_to(f"/#subscription-{subscription_id}")

    def set_faults(self) -> Answer:
        """All switches as the form has them."""
        self._shop.set_faults(
            **{name: name in request.form for name, _label, _hint in SWITCHES},
            delay_seconds=number("delay_seconds", float),
            drop_next=number("drop_next", int),
            drop_event=chosen({name: name for name in ("", *EVENTS)}, "drop_event"),
            api_trouble=chosen({name: name for name in API_TROUBLES}, "api_trouble"),
            api_trouble_calls=number("api_trouble_calls", int),
            timeout_seconds=number("timeout_seconds", float),
        )
        return back_to("/#faults")

    def clear_faults(self) -> Answer:
        """Everything back to normal."""
        self._shop.set_faults(**asdict(Faults()))
        return back_to("/#faults")

    def set_settings(self) -> Answer:
        """What the store's owner decides."""
        self._shop.set_settings(**{name: number(name, int) for name, _label, _hint in SETTINGS})
        return back_to("/#settings")

    def send_again(self, delivery_id: int) -> Answer:
        """A delivery once more, with the same body."""
        self._shop.deliveries.resend(delivery_id)
        return back_to("/#deliveries")

    def _go_to(self, time: datetime | None) -> None:
        if time is None:
            raise Refused("There is no such moment ahead.")
        self._shop.advance(max(time - self._shop.clock.now(), timedelta(0)))

    def _charge(self, subscription_id: int, card: str) -> None:
        """Let the next payment come, and go well or fail. A good card pays at once what is open."""
        before = self._shop.subscription(subscription_id)
        if before.status not in (*PAYING, "unpaid"):
            raise Refused(f"Nothing is charged: this subscription is {before.status}.")
        if before.card_number != card:
            self._shop.update_card(subscription_id, card)
        if before.status in ("active", "on_trial") or card == BAD_CARD:
            self._go_to(self._shop.subscription(subscription_id).renews_at)

    def _end(self, subscription_id: int) -> None:
        if self._shop.subscription(subscription_id).status not in ("cancelled", "unpaid", "expired"):
            self._shop.cancel(subscription_id)
        self._go_to(end_of(self._shop.subscription(subscription_id)))

    def _refund_last(self, subscription_id: int) -> None:
        invoices = self._shop.invoices(subscription_id=str(subscription_id))
        paid = next((one for one in invoices if one.status == "paid"), None)
        if paid is None:
            raise Refused("No invoice of this subscription is paid and not refunded.")
        self._shop.refund(paid.id)


def number(name: str, kind: type[Number]) -> Number:
    """A number of the form, 0 or more. Raises `Refused`."""
    try:
        value = kind(request.form.get(name, ""))
    except ValueError as error:
        raise Refused(f"{name}: not a number.") from error
    if not 0 <= value < MOST:
        raise Refused(f"{name}: from 0 to {MOST - 1}.")
    return value


def next_renewal(subscriptions: Iterable[Subscription]) -> datetime | None:
    """When the next payment is tried, of any subscription."""
    return min((one.renews_at for one in subscriptions if one.status in PAYING), default=None)


def end_of(subscription: Subscription) -> datetime | None:
    """When a cancelled or unpaid one ends; None for others, and for one that stays unpaid for ever."""
    ends = {"cancelled": subscription.ends_at, "unpaid": subscription.unpaid_until_at}
    return ends.get(subscription.status)


def next_end(subscriptions: Iterable[Subscription]) -> datetime | None:
    """When the next subscription ends."""
    return min((end for one in subscriptions if (end := end_of(one))), default=None)


def subject_of(delivery: Delivery) -> str:
    """What an event is about, as its body says."""
    data = json.loads(delivery.body)["data"]
    subscription_id = data["attributes"].get("subscription_id")
    if subscription_id is not None:
        return f"subscription {subscription_id}, invoice {data['id']}"
    return f"{data['type'].removesuffix('s')} {data['id']}"
