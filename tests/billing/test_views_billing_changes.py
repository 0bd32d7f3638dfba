"""Changing what a workspace pays for, in the console: asked about first, told in words, and nothing computed."""

import pytest

from billing.models import ChangeRequest, Checkout
from billing.providers.base import ProviderRefused, ProviderUnavailable
from billing.services import change_workspace_plan
from tests.billing.asked import CHECKOUT_URL, PAYMENT_URL, PORTAL_URL
from tests.billing.asking import SOON, there
from tests.billing.provider_facts import subscribe
from tests.pages import page

# --- The second question ----------------------------------------------------------------------------------------------


def rows_of(response):
    return {row[0]: row[1:] for row in page(response).one("table", "facts").rows()}


def test_a_downgrade_shows_what_changes_and_what_is_lost(cast, shop, browser, address):
    subscribe(cast.workspace, "pro")
    asked = browser.get(address("settings-billing-change", "starter", "month"))
    assert rows_of(asked) == {
        "Subscription": ["Pro, monthly", "Starter, monthly"],
        "Price as shown": ["$49 a month", "$19 a month"],
        "Requests a month": ["1,000,000", "100,000"],
        "Requests a minute": ["600", "300"],
        "Days that single requests are kept": ["90", "30"],
        "Days that sums are kept": ["365", "180"],
        "Members": ["15", "5"],
        "Immediate budget alerts": ["included", "not included"],
        "Slack, Teams, PagerDuty, webhooks; unit-cost and spike rules": ["included", "not included"],
    }
    text = page(asked).one("main").text
    for words in (
        "will be deleted, 7 days after the change at the earliest",
        "what is set to be told immediately is told in the daily summary",
        "Slack, Teams, PagerDuty and webhooks stop sending",
        "Lemon Squeezy computes what is charged or credited, with tax",
        "Visa •••• 4242",
    ):
        assert words in text
    assert shop.asked == []
    assert not ChangeRequest.objects.filter(subscription__workspace=cast.workspace).exists()


def test_an_upgrade_is_charged_at_once_and_loses_nothing(cast, shop, browser, address):
    bought = subscribe(cast.workspace, "pro")
    asked = page(browser.get(address("settings-billing-change", "team", "month"))).one("main")
    assert "at once" in asked.text
    assert not asked.all("ul", "consequences")
    browser.post(address("settings-billing-change", "team", "month"))
    assert shop.asked == [("change_plan", bought.provider_subscription_id, "300", True)]


def test_another_interval_only_changes_the_interval(cast, browser, address):
    subscribe(cast.workspace, "pro")
    asked = browser.get(address("settings-billing-change", "pro", "year"))
    assert rows_of(asked) == {
        "Subscription": ["Pro, monthly", "Pro, yearly"],
        "Price as shown": ["$49 a month", "$490 a year"],
    }


def test_a_grant_outlives_a_downgrade(cast, browser, address):
    change_workspace_plan(cast.workspace, plan_tier="pro", acting_user=None)
    subscribe(cast.workspace, "team")
    asked = browser.get(address("settings-billing-change", "starter", "month"))
    assert "granted Pro to this workspace: it stays" in page(asked).text
    assert rows_of(asked)["Requests a month"] == ["5,000,000", "1,000,000"]


def test_cancelling_says_until_when_and_what_then(cast, shop, browser, address):
    bought = subscribe(cast.workspace, "pro", renews_at=SOON)
    asked = page(browser.get(address("settings-billing-cancel"))).one("main")
    for words in (
        f"Pro stays usable until the paid period ends, on {there(SOON)}",
        "Then the workspace goes to Free",
        "Messages and summaries by e-mail stop",
        "The workspace has 4 members, and 2 are included. Nobody is removed",
    ):
        assert words in asked.text
    assert browser.post(address("settings-billing-cancel")).url == address()
    assert shop.asked == [("cancel", bought.provider_subscription_id)]


def test_resuming(cast, shop, browser, address):
    bought = subscribe(cast.workspace, "pro", status="cancelled", ends_at=SOON)
    asked = page(browser.get(address("settings-billing-resume"))).one("main").text
    assert f"Pro does not end on {there(SOON)}" in asked
    assert browser.post(address("settings-billing-resume")).url == address()
    assert shop.asked == [("resume", bought.provider_subscription_id)]


def test_a_checkout_leads_to_the_provider_by_way_of_a_page(cast, shop, browser, address):
    assert (
        "pay on a page of Lemon Squeezy" in page(browser.get(address("settings-billing-checkout", "pro", "month"))).text
    )
    answer = browser.post(address("settings-billing-checkout", "pro", "month"))
    assert answer.status_code == 200
    assert answer["Refresh"] == f"0; url={CHECKOUT_URL}"
    assert "no-store" in answer["Cache-Control"]
    assert CHECKOUT_URL in {link.attributes["href"] for link in page(answer).one("main").all("a")}
    (wish,) = shop.wishes
    assert wish.return_url.startswith(f"http://testserver{address()}?checkout=")
    assert Checkout.objects.get(workspace=cast.workspace).requested_by == cast.admin


# --- Refusals ---------------------------------------------------------------------------------------------------------

TROUBLES = [
    (ProviderUnavailable("Lemon Squeezy was not reached.", headers={"Retry-After": "7"}), 503),
    (ProviderRefused("Lemon Squeezy said no."), 409),
]


@pytest.mark.parametrize(("trouble", "status"), TROUBLES)
@pytest.mark.parametrize(
    ("name", "arguments"),
    [("settings-billing-change", ("team", "month")), ("settings-billing-cancel", ())],
)
def test_the_providers_trouble_is_told_on_the_page(cast, shop, browser, address, name, arguments, trouble, status):
    subscribe(cast.workspace, "pro")
    shop.trouble = trouble
    answer = browser.post(address(name, *arguments))
    assert answer.status_code == status
    assert answer.headers.get("Retry-After") == ("7" if status == 503 else None)
    alert = page(answer).one("div", role="alert")
    assert trouble.message in alert.text
    assert "Nothing was changed" in alert.text
    assert page(answer).all("button", type="submit")


def test_a_checkout_with_the_provider_away(browser, shop, address):
    shop.trouble = TROUBLES[0][0]
    answer = browser.post(address("settings-billing-checkout", "pro", "month"))
    assert (answer.status_code, "Refresh" in answer) == (503, False)


@pytest.mark.parametrize(
    ("status", "name", "arguments", "words"),
    [
        (None, "settings-billing-change", ("team", "month"), "no running subscription"),
        (None, "settings-billing-cancel", (), "no running subscription"),
        (None, "settings-billing-resume", (), "no running subscription"),
        (None, "settings-billing-checkout", ("team", "year"), "Team is not sold yearly here"),
        (None, "settings-billing-checkout", ("enterprise", "month"), "Enterprise is not sold monthly here"),
        ("active", "settings-billing-checkout", ("team", "month"), "There is a subscription already"),
        ("active", "settings-billing-change", ("pro", "month"), "already"),
        ("active", "settings-billing-resume", (), "not cancelled"),
        ("past_due", "settings-billing-change", ("team", "month"), "Update the payment method first"),
        ("cancelled", "settings-billing-change", ("team", "month"), "Resume it first"),
        ("cancelled", "settings-billing-cancel", (), "cancelled already"),
        ("paused", "settings-billing-change", ("team", "month"), "paused"),
        ("expired", "settings-billing-resume", (), "no running subscription"),
    ],
)
def test_what_cannot_be_done_is_not_asked(cast, shop, browser, address, status, name, arguments, words):
    if status:
        subscribe(cast.workspace, "pro", status=status, ends_at=SOON if status == "cancelled" else None)
    asked = browser.get(address(name, *arguments))
    assert asked.status_code == 200
    assert words in page(asked).one("main").text
    assert not page(asked).all("button", "button-danger")
    answer = browser.post(address(name, *arguments))
    assert answer.status_code == 409
    assert "Nothing was changed" in page(answer).one("main").text
    assert shop.asked == []


def test_a_second_wish_waits_for_the_first(cast, shop, browser, address):
    subscribe(cast.workspace, "pro")
    browser.post(address("settings-billing-change", "team", "month"))
    answer = browser.post(address("settings-billing-change", "starter", "month"))
    assert answer.status_code == 409
    assert "Try again when that has come" in page(answer).text
    assert len(shop.asked) == 1


@pytest.mark.parametrize(("plan", "interval"), [("nothing", "month"), ("pro", "century")])
def test_there_are_no_other_plans(browser, address, plan, interval):
    for name in ("settings-billing-change", "settings-billing-checkout"):
        assert browser.get(address(name, plan, interval)).status_code == 404


def test_without_billing_nothing_is_asked(cast, browser, address, settings, monkeypatch):
    settings.LEMONSQUEEZY_API_KEY = ""
    monkeypatch.undo()
    for name, arguments in (("settings-billing-checkout", ("pro", "month")), ("settings-billing-cancel", ())):
        text = page(browser.get(address(name, *arguments))).one("main").text
        assert "The people who run this installation change plans." in text
        assert browser.post(address(name, *arguments)).status_code == 409
    assert browser.get(address("settings-billing-portal")).status_code == 409


# --- The portal -------------------------------------------------------------------------------------------------------


def test_the_portals_links_are_fetched_on_click_and_only_gone_to(cast, shop, browser, shown, address):
    bought = subscribe(cast.workspace, "pro")
    assert "secret" not in browser.get(address()).content.decode()
    assert shop.asked == []
    there_now = browser.get(address("settings-billing-portal"))
    assert (there_now.status_code, there_now.url) == (302, PORTAL_URL)
    assert "no-store" in there_now["Cache-Control"]
    assert browser.get(address("settings-billing-portal") + "?to=payment-method").url == PAYMENT_URL
    assert shop.asked == [("portal_links", bought.provider_subscription_id)] * 2


def test_the_portal_while_the_provider_is_away(cast, shop, browser, address):
    subscribe(cast.workspace, "pro")
    shop.trouble = TROUBLES[0][0]
    answer = browser.get(address("settings-billing-portal") + "?to=payment-method")
    assert (answer.status_code, answer["Retry-After"]) == (503, "7")
    again = next(link for link in page(answer).one("main").all("a") if link.text == "Try again")
    assert again.attributes["href"] == address("settings-billing-portal") + "?to=payment-method"


def test_the_portal_before_anything_was_bought(browser, address):
    answer = browser.get(address("settings-billing-portal"))
    assert answer.status_code == 409
    assert "Nothing was bought yet" in page(answer).text
