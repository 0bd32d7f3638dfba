"""The double's pages as a buyer, a customer and a developer use them."""

import re
from dataclasses import asdict, fields
from datetime import datetime, timedelta
from html import unescape
from urllib.parse import urlsplit

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from billing.sandbox.app import create_app
from billing.sandbox.catalogue import price_of, product_of
from billing.sandbox.clock import SandboxClock
from billing.sandbox.faults import Faults
from billing.sandbox.pages import money
from billing.sandbox.shop import BAD_CARD, Shop
from opsmeter_site.embedded.prepare import SANDBOX_VARIANTS

BACK = "http://127.0.0.1:8000/w/acme/settings/billing/?returned=1"


@pytest.fixture
def shop() -> Shop:
    shop = Shop("1", "key", "secret-secret", "http://127.0.0.1:9/webhook", SandboxClock(), Faults())
    shop.deliveries.manual = True
    shop.base_url = "http://127.0.0.1:8002"
    return shop


@pytest.fixture
def browser(shop: Shop) -> FlaskClient:
    return create_app(shop).test_client()


def local(url: str) -> str:
    """The path and query of an address."""
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def offered(shop: Shop, variant_id: int = 201, expires_at: datetime | None = None) -> str:
    """The address of a new checkout."""
    data = {"email": "ada@example.com", "name": "Ada", "custom": {"checkout_id": f"c-{variant_id}"}}
    options = {"redirect_url": BACK}
    checkout = shop.create_checkout(variant_id, checkout_data=data, product_options=options, expires_at=expires_at)
    return local(shop.checkout_url(checkout))


def bought(shop: Shop, variant_id: int = 201) -> int:
    data = {"email": "ada@example.com", "name": "Ada", "custom": {"checkout_id": "c-1"}}
    return shop.pay(shop.create_checkout(variant_id, checkout_data=data).id)


def buy(browser: FlaskClient, address: str, **changes: str) -> TestResponse:
    form = {"email": "ada@example.com", "name": "Ada", "card": "good"} | changes
    return browser.post(address, data=form)


def links_of(page: str) -> list[str]:
    return [unescape(link) for link in re.findall(r'<a [^>]*href="([^"]*)"', page)]


def values_of(page: str) -> dict[str, str]:
    """What a form of this page would send as it stands, without its buttons."""
    values: dict[str, str] = {}
    for tag in re.findall(r"<input[^>]*>", page):
        attributes = {name: unescape(value) for name, value in re.findall(r'([\w-]+)="([^"]*)"', tag)}
        if attributes.get("type") not in ("checkbox", "radio") or " checked" in tag:
            values[attributes["name"]] = attributes.get("value", "on")
    for name, choices in re.findall(r'<select name="(\w+)">(.*?)</select>', page, re.DOTALL):
        (values[name],) = re.findall(r'<option value="([^"]*)" selected', choices)
    return values


def test_every_page_says_that_it_is_not_the_real_thing_and_needs_no_script(shop, browser):
    links = shop.portal_urls(shop.subscription(bought(shop)))
    for address in ("/", "/billing", "/checkout/left", offered(shop), *map(local, links.values())):
        page = browser.get(address)
        assert page.status_code == 200, address
        assert "Local double of Lemon Squeezy. No money moves here." in page.text
        assert "<script" not in page.text
        assert "https://" not in page.text
        (style,) = re.findall(r'<link rel="stylesheet" href="([^"]+)"', page.text)
        with browser.get(style) as sheet:
            assert sheet.mimetype == "text/css"
        for field in re.findall(r"<(?:input|select)[^>]*>", page.text):
            assert 'type="hidden"' in field or re.search(
                rf"<label[^>]*>(?:(?!</label>).)*{re.escape(field)}", page.text, re.DOTALL
            ), f"no label: {field}"


class TestCheckout:
    def test_it_shows_what_is_bought_and_for_whom(self, shop, browser):
        page = browser.get(offered(shop, 301)).text
        assert "Team · Monthly" in page
        assert money(price_of(301).cents) in page
        assert values_of(page) == {"email": "ada@example.com", "name": "Ada"}
        assert shop.subscriptions() == []

    def test_paying_makes_a_subscription_and_leads_back(self, shop, browser):
        paid = buy(browser, offered(shop), email="grace@example.com")
        assert paid.status_code == 303
        thanks = browser.get(paid.location)
        assert thanks.status_code == 200
        assert BACK in links_of(thanks.text)
        (subscription,) = shop.subscriptions()
        assert (subscription.status, subscription.variant_id) == ("active", 201)
        assert (subscription.user_email, subscription.custom) == ("grace@example.com", {"checkout_id": "c-201"})

    def test_a_card_that_fails_buys_nothing_and_keeps_what_was_typed(self, shop, browser):
        refused = buy(browser, offered(shop), card="bad", email="grace@example.com")
        assert refused.status_code == 422
        assert "declined" in refused.text
        assert values_of(refused.text)["email"] == "grace@example.com"
        assert shop.subscriptions() == []

    @pytest.mark.parametrize("changes", [{"email": ""}, {"card": "gold"}])
    def test_a_form_that_is_not_filled_in_buys_nothing(self, shop, browser, changes):
        assert buy(browser, offered(shop), **changes).status_code == 422
        assert shop.subscriptions() == []

    def test_one_that_is_paid_says_so(self, shop, browser):
        address = offered(shop)
        assert "is paid already" not in browser.get(address).text
        buy(browser, address)
        page = browser.get(address).text
        assert "is paid already" in page
        assert BACK in links_of(page)

    def test_an_expired_link_sells_nothing(self, shop, browser):
        address = offered(shop, expires_at=shop.clock.now() + timedelta(hours=1))
        assert browser.get(address).status_code == 200
        shop.advance(timedelta(hours=2))
        for answer in (browser.get(address), buy(browser, address)):
            assert answer.status_code == 403
            assert "This link has expired." in answer.text
        assert shop.subscriptions() == []

    def test_a_tampered_link_sells_nothing(self, shop, browser):
        address = offered(shop)
        for changed in (address[:-1], address.replace("signature=", "expires=99999999999&signature=")):
            for answer in (browser.get(changed), buy(browser, changed)):
                assert answer.status_code == 403
                assert "Invalid signature." in answer.text

    def test_an_address_that_is_no_web_address_is_not_made_a_link(self, shop, browser):
        checkout = shop.create_checkout(101, product_options={"redirect_url": "javascript:alert(1)"})
        thanks = browser.get(buy(browser, local(shop.checkout_url(checkout))).location)
        assert "javascript:" not in thanks.text


class TestPortal:
    def test_it_shows_a_customer_their_own_things_only(self, shop, browser):
        own = shop.subscription(bought(shop))
        other = shop.pay(shop.create_checkout(101).id, email="eve@example.com", name="Eve")
        page = browser.get(local(shop.portal_urls(own)["customer_portal"])).text
        assert "Pro · Monthly" in page
        assert "ending in 4242" in page
        (invoice,) = shop.invoices(subscription_id=str(own.id))
        assert f">{invoice.id}<" in page
        assert "Starter" not in page
        assert f'value="{other}"' not in page

    def test_cancel_and_resume(self, shop, browser):
        subscription_id = bought(shop)
        portal = local(shop.portal_urls(shop.subscription(subscription_id))["customer_portal"])
        for action, status in (("cancel", "cancelled"), ("resume", "active")):
            answer = browser.post(portal, data={"subscription": str(subscription_id), "action": action})
            assert (answer.status_code, answer.location) == (303, portal)
            assert shop.subscription(subscription_id).status == status
            assert f'class="state state-{status}"' in browser.get(portal).text

    def test_nobody_cancels_for_somebody_else(self, shop, browser):
        own = shop.subscription(bought(shop))
        other = shop.pay(shop.create_checkout(101).id, email="eve@example.com", name="Eve")
        portal = local(shop.portal_urls(own)["customer_portal"])
        assert browser.post(portal, data={"subscription": str(other), "action": "cancel"}).status_code == 404
        assert shop.subscription(other).status == "active"

    def test_another_card(self, shop, browser):
        subscription_id = bought(shop)
        address = local(shop.portal_urls(shop.subscription(subscription_id))["update_payment_method"])
        assert "ends in 4242" in browser.get(address).text
        back = browser.post(address, data={"card": "bad"})
        assert shop.subscription(subscription_id).card_last_four == BAD_CARD[-4:]
        assert f"ending in {BAD_CARD[-4:]}" in browser.get(local(back.location)).text

    def test_another_plan(self, shop, browser):
        subscription_id = bought(shop)
        address = local(shop.portal_urls(shop.subscription(subscription_id))["customer_portal_update_subscription"])
        assert values_of(browser.get(address).text) == {"variant": "201"}
        back = browser.post(address, data={"variant": "302"})
        assert shop.subscription(subscription_id).variant_id == 302
        assert "Team · Yearly" in browser.get(local(back.location)).text
        assert browser.post(address, data={"variant": "7"}).status_code == 422

    def test_an_expired_link_shows_nothing_and_names_the_way_without_one(self, shop, browser):
        subscription = shop.subscription(bought(shop))
        addresses = [local(url) for url in shop.portal_urls(subscription).values()]
        shop.advance(timedelta(hours=shop.settings.link_hours + 1))
        for address in addresses:
            for answer in (browser.get(address), browser.post(address, data={"card": "bad"})):
                assert answer.status_code == 403
                assert "This link has expired." in answer.text
                assert "/billing" in links_of(answer.text)
                assert "ada@example.com" not in answer.text
        assert "asks for an e-mail address" in browser.get("/billing").text
        assert shop.subscription(subscription.id).card_last_four == "4242"


class TestClock:
    @pytest.mark.parametrize(("step", "days"), [("day", 1), ("week", 7)])
    def test_it_goes_forward_by_a_step(self, shop, browser, step, days):
        shop.clock.freeze()
        before = shop.clock.now()
        assert browser.post("/panel/clock", data={"step": step}).status_code == 303
        assert shop.clock.now() - before == timedelta(days=days)
        assert f"{shop.clock.now():%-d %b %Y, %H:%M} UTC" in browser.get("/").text

    def test_it_goes_to_the_next_payment(self, shop, browser):
        first = shop.subscription(bought(shop)).renews_at
        browser.post("/panel/clock", data={"step": "renewal"})
        assert shop.clock.now() >= first
        (subscription,) = shop.subscriptions()
        assert subscription.renews_at > first
        assert [invoice.billing_reason for invoice in shop.invoices()] == ["renewal", "initial"]

    def test_it_goes_to_the_next_end(self, shop, browser):
        subscription_id = bought(shop)
        assert browser.post("/panel/clock", data={"step": "end"}).status_code == 422
        shop.cancel(subscription_id)
        browser.post("/panel/clock", data={"step": "end"})
        assert shop.subscription(subscription_id).status == "expired"

    def test_it_does_not_go_where_nobody_said(self, shop, browser):
        before = shop.clock.now()
        assert browser.post("/panel/clock", data={"step": "year"}).status_code == 422
        assert browser.get("/panel/clock").status_code == 405
        assert shop.clock.now() - before < timedelta(hours=1)


class TestSubscriptionButtons:
    def act(self, browser: FlaskClient, subscription_id: int, *actions: str) -> None:
        for action in actions:
            answer = browser.post(f"/panel/subscriptions/{subscription_id}", data={"action": action})
            assert answer.status_code == 303, answer.text

    @pytest.mark.parametrize(
        ("actions", "status"),
        [
            ("renew", "active"),
            ("fail", "past_due"),
            ("fail renew", "active"),
            ("fail fail fail fail", "past_due"),
            ("fail fail fail fail fail", "unpaid"),
            ("fail fail fail fail fail renew", "active"),
            ("fail fail fail fail fail expire", "expired"),
            ("fail expire", "expired"),
            ("cancel", "cancelled"),
            ("cancel resume", "active"),
            ("cancel expire", "expired"),
            ("expire", "expired"),
            ("pause-free", "paused"),
            ("pause-void unpause", "active"),
        ],
    )
    def test_they_lead_through_its_life(self, shop, browser, actions, status):
        subscription_id = bought(shop)
        for action in actions.split():
            assert f'value="{action}"' in browser.get("/").text
            self.act(browser, subscription_id, action)
        assert shop.subscription(subscription_id).status == status
        assert f'class="state state-{status}"' in browser.get("/").text

    def test_the_last_payment_is_refunded(self, shop, browser):
        subscription_id = bought(shop)
        self.act(browser, subscription_id, "renew", "refund")
        assert [invoice.status for invoice in shop.invoices()] == ["refunded", "paid"]

    def test_what_cannot_be_done_is_said_and_not_done(self, shop, browser):
        subscription_id = bought(shop)
        self.act(browser, subscription_id, "refund")
        for action in ("refund", "nonsense"):
            answer = browser.post(f"/panel/subscriptions/{subscription_id}", data={"action": action})
            assert answer.status_code == 422
        assert browser.post("/panel/subscriptions/1", data={"action": "cancel"}).status_code == 404


class TestFaults:
    def test_every_switch_is_in_the_form_and_the_form_keeps_them(self, shop, browser):
        wrong = {field.name: "on" for field in fields(Faults) if field.type in (bool, "bool")}
        wrong |= {"delay_seconds": "1.5", "drop_next": "2", "drop_event": "subscription_updated"}
        wrong |= {"api_trouble": "late", "api_trouble_calls": "3", "timeout_seconds": "4.0"}
        assert set(wrong) == {field.name for field in fields(Faults)}
        assert browser.post("/panel/faults", data=wrong).status_code == 303
        expected = Faults(
            **{name: True for name, value in wrong.items() if value == "on"},
            delay_seconds=1.5,
            drop_next=2,
            drop_event="subscription_updated",
            api_trouble="late",
            api_trouble_calls=3,
            timeout_seconds=4,
        )
        assert asdict(shop.faults) == asdict(expected)
        shown = values_of(browser.get("/").text)
        assert wrong.items() <= shown.items()
        assert browser.post("/panel/faults", data=shown).status_code == 303
        assert asdict(shop.faults) == asdict(expected)

    def test_one_button_puts_everything_back(self, shop, browser):
        shop.set_faults(duplicate=True, api_trouble="500", drop_next=3, timeout_seconds=1)
        assert browser.post("/panel/faults/off").status_code == 303
        assert asdict(shop.faults) == asdict(Faults())

    @pytest.mark.parametrize("wrong", [{"drop_next": "-1"}, {"delay_seconds": "nan"}, {"api_trouble": "fire"}])
    def test_nonsense_changes_nothing(self, shop, browser, wrong):
        form = values_of(browser.get("/").text) | {"duplicate": "on"} | wrong
        assert browser.post("/panel/faults", data=form).status_code == 422
        assert asdict(shop.faults) == asdict(Faults())

    def test_the_settings_of_the_store(self, shop, browser):
        form = {"link_hours": "24", "trial_days": "7", "dunning_days": "0"}
        assert browser.post("/panel/settings", data=form).status_code == 303
        assert asdict(shop.settings) == {"link_hours": 24, "trial_days": 7, "dunning_days": 0}
        assert form.items() <= values_of(browser.get("/").text).items()
        assert browser.post("/panel/settings", data=form | {"trial_days": ""}).status_code == 422


def test_deliveries_are_listed_and_sent_again(shop, browser):
    subscription_id = bought(shop)
    first = shop.deliveries.log()
    page = browser.get("/").text
    assert {"subscription_created", "order_created"} <= set(re.findall(r"<code>(\w+)</code>", page))
    assert f"subscription {subscription_id}" in page
    payment = next(one for one in first if one.event_name == "subscription_payment_success")
    (invoice,) = shop.invoices()
    assert f"subscription {subscription_id}, invoice {invoice.id}" in page

    assert browser.post(f"/panel/deliveries/{payment.id}/again").status_code == 303
    again = shop.deliveries.log()
    assert len(again) == len(first) + 1
    assert again[0].body == payment.body
    assert browser.post("/panel/deliveries/999999999/again").status_code == 404


def test_what_the_product_is_told_of_the_variants_is_what_the_double_sells():
    for plan, interval, variant_id, price_text in SANDBOX_VARIANTS:
        price = price_of(int(variant_id))
        assert product_of(int(variant_id)).name.lower() == plan
        assert price.interval == interval
        assert price_text == f"{money(price.cents).removesuffix('.00')} a {interval} plus tax"
