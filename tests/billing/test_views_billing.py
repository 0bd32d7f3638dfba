"""Plan and billing in the console: every state in words, every change asked about first, and nothing computed."""

from datetime import datetime, timedelta
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from django.urls import reverse

from billing.models import ChangeKind, ChangeRequest, ChangeState, Invoice, Subscription
from billing.plans import Overrides
from billing.providers.base import ProviderUnsure
from billing.services import change_workspace_plan
from opsmeter_site.lib.clock import utc_now
from tests.billing.asking import DAY, SOON, ZONE, ask_for, card, there
from tests.billing.provider_facts import facts, hear, make_checkout, subscribe
from tests.factories import UserFactory, make_cast
from tests.pages import page, signed_in
from workspaces.models import Role
from workspaces.services import add_member

# --- The plan as it stands --------------------------------------------------------------------------------------------


def test_a_free_workspace(shown):
    main = shown()
    assert main.one("p", "plan-name").text == "Free"
    assert "Free of charge." in card(main, "plan-heading").text
    assert "0 of 10,000" in card(main, "usage-heading").text
    assert "4 of 2" in card(main, "usage-heading").text
    assert "No payments" in card(main, "payments-heading").text


def test_a_granted_plan_is_told_from_a_paid_one(cast, shown):
    change_workspace_plan(cast.workspace, plan_tier="pro", acting_user=None)
    assert "Granted by the people who run this installation." in card(shown(), "plan-heading").text


LATELY = SOON - 9 * DAY
STATES = {
    "active": ({"renews_at": SOON}, "Pro", ["Active", f"Renews on {there(SOON)}"]),
    "on_trial": ({"trial_ends_at": SOON}, "Pro", ["On trial", f"until {there(SOON)}", "unless you cancel before"]),
    "past_due": ({"renews_at": SOON}, "Pro", ["The last payment failed.", f"tries again on {there(SOON)}"]),
    "unpaid": ({}, "Free", ["Unpaid", "Pro is off until it is paid", "on Free meanwhile"]),
    "cancelled": ({"ends_at": SOON}, "Pro", ["Cancelled", f"until {there(SOON)}", "goes to Free", "you can resume"]),
    "expired": (
        {"ends_at": SOON - 9 * DAY},
        "Free",
        ["Ended", f"ended on {there(SOON - 9 * DAY)}", "cannot be resumed"],
    ),
}


@pytest.mark.parametrize("status", STATES)
def test_each_state_says_what_follows_from_it(cast, shown, status):
    said, plan, words = STATES[status]
    subscribe(cast.workspace, "pro", status=status, **said)
    main = shown()
    assert main.one("p", "plan-name").text == plan
    text = card(main, "plan-heading").text
    for each in words:
        assert each in text
    assert ("Visa •••• 4242" in text) == (status != "expired")


@pytest.mark.parametrize(("mode", "plan", "words"), [("free", "Pro", "Pro stays"), ("void", "Free", "Pro is off")])
def test_a_paused_subscription(cast, shown, mode, plan, words):
    subscribe(cast.workspace, "pro", status="paused", pause_mode=mode)
    main = shown()
    assert main.one("p", "plan-name").text == plan
    assert words in card(main, "plan-heading").text


def test_moments_carry_their_utc_time(cast, shown):
    subscribe(cast.workspace, "pro", renews_at=SOON)
    titles = [each.attributes["title"] for each in card(shown(), "plan-heading").all("time")]
    assert titles == [f"{SOON:%Y-%m-%d %H:%M:%S} UTC"]


def test_what_a_larger_grant_means_for_a_subscription(cast, shown):
    subscribe(cast.workspace, "starter")
    change_workspace_plan(cast.workspace, plan_tier="pro", acting_user=None)
    text = card(shown(), "plan-heading").text
    assert "whatever the subscription" in text
    assert "Subscribed to Starter" in text


LINKS = {
    "active": {"Payment method and invoices", "Cancel subscription"},
    "past_due": {"Update the payment method", "Payment method and invoices", "Cancel subscription"},
    "unpaid": {"Update the payment method", "Payment method and invoices", "Cancel subscription"},
    "cancelled": {"Payment method and invoices", "Resume subscription"},
    "expired": {"Payment method and invoices"},
}


@pytest.mark.parametrize("status", LINKS)
def test_what_can_be_done_in_each_state(cast, shown, status):
    subscribe(cast.workspace, "pro", status=status, ends_at=SOON if status == "cancelled" else None)
    assert {link.text for link in card(shown(), "plan-heading").all("a")} == LINKS[status]


def test_paying_twice_is_said_with_what_to_do(cast, shown):
    subscribe(cast.workspace, "pro")
    subscribe(cast.workspace, "team")
    main = shown()
    notice = main.one("div", "notice-bad")
    assert "pays more than once" in notice.text
    assert "2 subscriptions" in notice.text
    assert notice.one("a").attributes["href"].endswith("/billing/portal/")
    assert main.one("p", "plan-name").text == "Team"


def test_what_will_be_kept_after_a_downgrade(cast, shown):
    bought = subscribe(cast.workspace, "pro")
    later = facts(bought.provider_subscription_id, "pro", status="expired", updated_at=bought.provider_updated_at + DAY)
    hear(later)
    usage = card(shown(), "usage-heading")
    assert "single requests 90 days, sums 365 days" in usage.text
    assert "14 and 90 days. Older ones are deleted then" in usage.text
    assert reverse("exports", args=[cast.workspace.slug]) in {link.attributes["href"] for link in usage.all("a")}


# --- The table --------------------------------------------------------------------------------------------------------


def plans(main):
    return {plan.one("h3").text.split()[0]: plan for plan in main.all("li", "plan")}


def steps(main):
    return {name: plan.one("div", "plan-step").text for name, plan in plans(main).items()}


def test_what_somebody_without_a_subscription_can_choose(shown, address):
    found = plans(shown())
    assert list(found) == ["Free", "Starter", "Pro", "Team", "Enterprise"]
    assert found["Free"].one("span", "tag").text == "Current"
    assert found["Pro"].one("p", "plan-price").text == "$49 a month"
    assert "Requests a month 1,000,000" in found["Pro"].text
    assert "Included: Immediate budget alerts" in found["Pro"].text
    assert "Not included: Own prices" in found["Pro"].text
    assert found["Enterprise"].one("div", "plan-step").text == "By contract: ask the people who run this installation."
    link = found["Pro"].one("a")
    assert (link.text, link.attributes["href"]) == (
        "Subscribe to Pro",
        address("settings-billing-checkout", "pro", "month"),
    )


def test_what_a_subscriber_can_choose(cast, shown, address):
    subscribe(cast.workspace, "pro")
    main = shown()
    assert steps(main) == {
        "Free": "Cancel the subscription",
        "Starter": "Downgrade to Starter",
        "Pro": "",
        "Team": "Upgrade to Team",
        "Enterprise": "By contract: ask the people who run this installation.",
    }
    assert plans(main)["Team"].one("a").attributes["href"] == address("settings-billing-change", "team", "month")


def test_the_other_interval_needs_no_script(cast, shown, address):
    subscribe(cast.workspace, "pro")
    switch = {link.text: link.attributes["href"] for link in shown().one("ul", "tabs").all("a")}
    assert switch == {"Monthly": "?interval=month#plans", "Yearly": "?interval=year#plans"}
    main = shown("?interval=year")
    assert plans(main)["Pro"].one("p", "plan-price").text == "$490 a year"
    assert plans(main)["Team"].one("p", "plan-price").text == "Monthly only"
    assert steps(main)["Pro"] == "Renew yearly : Pro"
    assert steps(main)["Team"] == ""
    assert plans(shown("?interval=century"))["Pro"].one("p", "plan-price").text == "$49 a month"


@pytest.mark.parametrize(
    ("status", "words"),
    [("past_due", "Update the payment method first"), ("cancelled", "Resume it first"), ("paused", "is paused")],
)
def test_what_stands_in_the_way_of_every_plan_is_said_once(cast, shown, status, words):
    subscribe(cast.workspace, "pro", status=status, ends_at=SOON if status == "cancelled" else None)
    main = shown()
    section = card(main, "plans-heading")
    assert section.text.count(words) == 1
    assert not [link for link in section.all("a") if "/change/" in link.attributes["href"]]


def test_too_many_members_stand_in_the_way_of_the_smaller_plan_only(cast, shown):
    subscribe(cast.workspace, "team")
    for _ in range(3):
        add_member(cast.workspace, UserFactory(), Role.VIEWER, acting_user=None)
    said = steps(shown())
    assert "Starter includes 5 people, and the workspace has 7" in said["Starter"]
    assert said["Pro"] == "Downgrade to Pro"


@pytest.mark.parametrize(
    ("status", "people", "way_out"),
    [
        ("active", 3, "/settings/members/"),
        ("past_due", 0, "/settings/billing/portal/?to=payment-method"),
        ("cancelled", 0, "/settings/billing/resume/"),
    ],
)
def test_what_stands_in_the_way_can_be_cleared_away_from_there(cast, browser, address, status, people, way_out):
    subscribe(cast.workspace, "team", status=status, ends_at=SOON if status == "cancelled" else None)
    for _ in range(people):
        add_member(cast.workspace, UserFactory(), Role.VIEWER, acting_user=None)
    main = page(browser.get(address("settings-billing-change", "starter", "month"))).one("main")
    first = main.one("div", "form-actions").all("a")[0]
    assert first.attributes["href"].endswith(way_out)
    assert "Nothing was changed" not in main.text


def test_own_numbers_stand_in_the_current_column(cast, shown):
    change_workspace_plan(
        cast.workspace, plan_tier="starter", overrides=Overrides(monthly_requests=123_456), acting_user=None
    )
    found = plans(shown())
    assert "123,456" in found["Starter"].text
    assert "123,456" not in found["Pro"].text


def test_a_granted_plan_is_not_sold_again(cast, shown):
    change_workspace_plan(cast.workspace, plan_tier="pro", acting_user=None)
    said = steps(shown())
    assert "Pro was granted" in said["Starter"]
    assert said["Team"] == "Subscribe to Team"


def test_without_billing_there_are_no_prices_and_no_buttons(cast, shown, settings):
    settings.LEMONSQUEEZY_API_KEY = ""
    main = shown()
    assert "The people who run this installation change plans." in main.text
    assert len(plans(main)) == 5
    assert not main.all("p", "plan-price")
    assert not [link for link in main.all("a") if "/settings/billing/" in link.attributes["href"]]


# --- Waiting for the provider's word ----------------------------------------------------------------------------------


def poll(browser, address, shown=""):
    return browser.get(f"{address('settings-billing-pending')}?shown={shown}", headers={"HX-Request": "true"})


def state_of(main):
    return main.one("div", id="pending").attributes["hx-get"].partition("shown=")[2]


def test_a_request_is_shown_until_the_providers_word(cast, browser, shown, address):
    bought = subscribe(cast.workspace, "pro")
    assert browser.post(address("settings-billing-change", "team", "month")).url == address()
    main = shown()
    waiting = main.one("div", id="pending")
    assert "Change to Team" in waiting.text
    assert "usually takes a few seconds" in waiting.text
    assert cast.admin.name in waiting.text
    assert waiting.attributes["hx-trigger"] == "every 2s"
    assert main.one("p", "plan-name").text == "Pro"
    assert poll(browser, address, state_of(main)).status_code == 204
    hear(facts(bought.provider_subscription_id, "team", updated_at=bought.provider_updated_at + DAY))
    over = poll(browser, address, state_of(main))
    assert (over.status_code, over["HX-Refresh"]) == (200, "true")
    main = shown()
    assert "Confirmed: the subscription is for the Team plan now." in main.one("div", id="toasts").text
    assert main.one("p", "plan-name").text == "Team"
    assert shown().one("div", id="toasts").text == ""


def test_without_scripts_the_result_is_told_too(cast, browser, shown, address):
    bought = subscribe(cast.workspace, "pro")
    browser.post(address("settings-billing-cancel"))
    main = shown()
    assert main.one("div", id="pending").one("a", "without-script").attributes["href"] == address()
    assert browser.get(address("settings-billing-pending")).url == address()
    later = bought.provider_updated_at + DAY
    hear(facts(bought.provider_subscription_id, status="cancelled", ends_at=SOON, updated_at=later))
    assert "Confirmed: the subscription is cancelled." in shown().one("div", id="toasts").text


def test_another_interval_is_called_what_it_is(cast, browser, shown, address):
    bought = subscribe(cast.workspace, "pro")
    question = page(browser.get(address("settings-billing-change", "pro", "year"))).one("main")
    assert (question.one("h1").text, question.one("button", "button").text) == ("Renew Pro yearly?", "Renew Pro yearly")
    browser.post(address("settings-billing-change", "pro", "year"))
    waiting = shown().one("div", id="pending")
    assert "Change to Pro, yearly" in waiting.text
    assert "Nothing changes until Lemon Squeezy has confirmed it." in waiting.text
    hear(facts(bought.provider_subscription_id, "pro", "year", updated_at=bought.provider_updated_at + DAY))
    told = shown().one("div", id="toasts").text
    assert "Confirmed: the subscription is for the Pro plan now, renewed yearly." in told


def test_a_refusal_says_once_that_nothing_was_changed(cast, shown):
    bought, note = subscribe(cast.workspace, "pro"), "The provider was asked. Nothing was changed; try again."
    ask_for(bought, state=ChangeState.LAPSED, resolved_at=utc_now(), note=note)
    said = shown().one("div", "notice-bad").text
    assert said.count("Nothing was changed") == said.count("was asked") == 1
    assert f"({ZONE})" in said


def test_an_overdue_request_explains_itself_and_is_looked_at_less_often(cast, browser, shown, address):
    request = ask_for(subscribe(cast.workspace, "pro"))
    fresh = state_of(shown())
    ChangeRequest.objects.filter(pk=request.pk).update(requested_at=utc_now() - timedelta(minutes=4))
    part = page(poll(browser, address, fresh))
    waiting = part.one("div", id="pending")
    assert "has not confirmed it yet" in waiting.text
    assert "Nothing has changed here, and you can keep working" in waiting.text
    assert waiting.attributes["hx-trigger"] == "every 15s"


def test_a_request_without_a_proper_answer_says_so(cast, shop, browser, shown, address):
    subscribe(cast.workspace, "pro")
    shop.trouble = ProviderUnsure("Lemon Squeezy did not answer properly.")
    assert browser.post(address("settings-billing-change", "team", "month")).status_code == 302
    assert "may or may not have been done" in shown().one("div", id="pending").text


@pytest.mark.parametrize(
    ("kind", "plan", "words", "leads_to"),
    [
        (ChangeKind.CHANGE_PLAN, "team", "Change to Team", "/change/team/month/"),
        (ChangeKind.CANCEL, None, "Cancellation of the subscription", "/cancel/"),
    ],
)
def test_a_request_that_came_to_nothing_says_why(cast, shown, kind, plan, words, leads_to):
    bought = subscribe(cast.workspace, "pro")
    ask_for(bought, kind, plan, state=ChangeState.REFUSED, resolved_at=utc_now(), note="The card was declined.")
    notice = shown().one("div", "notice-bad")
    assert words in notice.text
    assert "The card was declined. Nothing was changed." in notice.text
    assert notice.one("a").text == "Try again"
    assert notice.one("a").attributes["href"].endswith(leads_to)


def test_a_lapsed_request_is_no_success(cast, browser, shown, address):
    request = ask_for(subscribe(cast.workspace, "pro"))
    shown()
    ChangeRequest.objects.filter(pk=request.pk).update(state=ChangeState.LAPSED, resolved_at=utc_now())
    assert poll(browser, address)["HX-Refresh"] == "true"
    main = shown()
    assert main.one("div", id="toasts").text == ""
    assert "Never confirmed" in main.one("div", "notice-bad").text


# --- Coming back from the checkout ------------------------------------------------------------------------------------


def test_the_way_back_is_noted_and_the_address_cleaned(cast, browser, shown, address):
    checkout = make_checkout(cast.workspace)
    assert browser.get(f"{address()}?checkout={checkout.pk}").url == address()
    checkout.refresh_from_db()
    assert checkout.returned_at is not None
    main = shown()
    assert "Subscription to Pro" in main.one("div", id="pending").text
    assert main.one("p", "plan-name").text == "Free"
    bought = facts(f"b{checkout.pk.hex[:8]}", "pro")
    hear(bought, checkout=checkout)
    assert poll(browser, address)["HX-Refresh"] == "true"
    assert "The subscription is confirmed" in shown().one("div", id="toasts").text


def test_who_comes_back_after_the_providers_word_is_told_so_once(cast, browser, shown, address):
    checkout = make_checkout(cast.workspace)
    hear(facts(f"b{checkout.pk.hex[:8]}", "pro"), checkout=checkout)
    for words in ("The subscription is confirmed: it is for the Pro plan.", ""):
        browser.get(f"{address()}?checkout={checkout.pk}")
        assert words in (told := shown().one("div", id="toasts").text)
        assert bool(told) is bool(words)


def test_other_ids_in_the_way_back_change_nothing(browser, address):
    elsewhere = make_checkout(make_cast("free").workspace)
    for text in (elsewhere.pk, uuid4(), "nonsense", ""):
        assert browser.get(f"{address()}?checkout={text}").url == address()
    elsewhere.refresh_from_db()
    assert elsewhere.returned_at is None


# --- Payments ---------------------------------------------------------------------------------------------------------


def pay(subscription, number, **said):
    moment = datetime(2026, 3, 1, 12, tzinfo=ZoneInfo("UTC")) + number * DAY
    defaults = {"reason": "renewal", "status": "paid", "total_text": f"$49.{number:02}", "card_last_four": "4242"}
    return Invoice.objects.create(
        provider="lemonsqueezy",
        provider_invoice_id=uuid4().hex,
        subscription=subscription,
        invoiced_at=moment,
        provider_updated_at=moment,
        **defaults | said,
    )


def test_payments_are_the_providers_words(cast, shown):
    bought = subscribe(cast.workspace, "pro")
    pay(bought, 1, reason="initial", card_brand="visa")
    pay(bought, 2, reason="updated", is_refunded=True, refunded_text="$12.00")
    pay(bought, 3, status="pending", reason="newly_invented")
    rows = card(shown(), "payments-heading").one("table").rows()
    assert [row[1:] for row in rows] == [
        ["Newly invented", "Not paid yet", "Card •••• 4242", "$49.03"],
        ["Change of plan", "Refunded $12.00 refunded", "Card •••• 4242", "$49.02"],
        ["First payment", "Paid", "Visa •••• 4242", "$49.01"],
    ]


def test_the_newest_five_and_a_way_to_all(cast, browser, shown, address):
    bought = subscribe(cast.workspace, "pro")
    for number in range(52):
        pay(bought, number)
    section = card(shown(), "payments-heading")
    assert [row[-1] for row in section.one("table").rows()] == [f"$49.{number}" for number in range(51, 46, -1)]
    first = page(browser.get(address("settings-billing-payments"))).one("main")
    assert address("settings-billing-portal") in [link.attributes["href"] for link in first.all("a")]
    assert f"Times are in {ZONE}." in first.text
    assert len(first.one("table").rows()) == 50
    older = first.one("nav", "pager").one("a").attributes["href"]
    second = page(browser.get(address("settings-billing-payments") + older)).one("main")
    assert [row[-1] for row in second.one("table").rows()] == ["$49.01", "$49.00"]


def test_payments_of_others_are_not_shown(browser, address):
    pay(subscribe(make_cast("free").workspace, "pro"), 1)
    assert "No payments" in page(browser.get(address("settings-billing-payments"))).one("main").text


# --- Who may see it ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "status"), [("owner", 200), ("admin", 200), ("member", 403), ("viewer", 403), ("outsider", 404)]
)
def test_only_owners_and_admins(cast, shop, address, role, status):
    subscribe(cast.workspace, "pro")
    browser = signed_in(getattr(cast, role))
    assert browser.get(address()).status_code == status
    assert browser.get(address("settings-billing-payments")).status_code == status
    if status != 200:
        for name, arguments in (("settings-billing-change", ("team", "month")), ("settings-billing-cancel", ())):
            assert browser.post(address(name, *arguments)).status_code == status
        assert browser.get(address("settings-billing-portal")).status_code == status
        assert shop.asked == []


def test_how_much_the_page_asks(cast, browser, address, django_assert_max_num_queries):
    bought = subscribe(cast.workspace, "pro")
    for number in range(5):
        pay(bought, number)
    ask_for(bought)
    browser.get(address())
    with django_assert_max_num_queries(25):
        browser.get(address())
    with django_assert_max_num_queries(10):
        poll(browser, address)


def test_nothing_of_this_moves_a_plan(cast, browser, address):
    bought = subscribe(cast.workspace, "pro")
    browser.post(address("settings-billing-change", "team", "month"))
    assert Subscription.objects.get(pk=bought.pk).plan_id == "pro"
