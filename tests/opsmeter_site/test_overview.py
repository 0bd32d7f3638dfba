"""The overview: filters in the address, what is kept apart, what is said when there is nothing, what it asks for."""

from decimal import Decimal
from html import unescape

import pytest
from django.test import Client

from budgets.scoped.drafts import BudgetDraft
from budgets.scoped.services import create_budget
from budgets.services import update_budget_settings
from opsmeter_site.lib.clock import utc_now
from tests.factories import make_cast
from tests.ledger import new_event, store_events
from tests.pages import page

MOST_QUERIES = 26


@pytest.fixture
def cast(committed):
    return make_cast("pro")


@pytest.fixture
def browser(cast):
    client = Client()
    client.force_login(cast.viewer)
    return client


def add(cast, **fields):
    store_events([new_event(cast.workspace, occurred_at=utc_now(), **fields)])


def tile(shown, label):
    return next(
        each.one("p", "tile-value").text
        for each in shown.all("li", "tile")
        if each.one("p", "tile-label").text == label
    )


def test_an_empty_workspace_says_what_to_do(cast, browser):
    shown = page(browser.get(f"/w/{cast.workspace.slug}/"))
    assert tile(shown, "Spend") == "$0.00"
    assert shown.one("div", "empty").one("a").attributes["href"] == f"/w/{cast.workspace.slug}/start/"


def test_real_production_traffic_is_shown_unless_asked_otherwise(cast, browser):
    for number, (mode, environment) in enumerate([("real", "prod"), ("test", "prod"), ("real", "dev")], start=1):
        add(cast, data_mode=mode, environment=environment, cost_usd=Decimal(number))
    address = f"/w/{cast.workspace.slug}/"
    assert tile(page(browser.get(address)), "Spend") == "$1.00"
    assert tile(page(browser.get(f"{address}?mode=test")), "Spend") == "$2.00"
    assert tile(page(browser.get(f"{address}?env=dev")), "Spend") == "$3.00"
    everything = page(browser.get(f"{address}?env=all&mode=all"))
    assert tile(everything, "Spend") == "$6.00"
    today = next(link for link in everything.one("ul", "tabs").all("a") if link.text == "Today")
    assert today.attributes["href"] == "?range=today&env=all&mode=all"


def test_only_demo_data_is_shown_and_said_so(cast, browser):
    add(cast, data_mode="demo", cost_usd=Decimal(7))
    shown = page(browser.get(f"/w/{cast.workspace.slug}/"))
    assert tile(shown, "Spend") == "$7.00"
    assert "no real traffic yet" in shown.one("div", "notice").text


def test_nonsense_in_the_address_is_answered_with_words(cast, browser):
    for query in ("range=custom&from=tomorrow&to=1", "range=custom&from=2026-02-02&to=2026-02-01", "range=%00&by=x"):
        response = browser.get(f"/w/{cast.workspace.slug}/?{query}")
        assert response.status_code == 200
        assert page(response).one("div", "notice-warn").text


def test_budgets_and_plan_are_apart(cast, browser):
    update_budget_settings(cast.workspace, acting_user=cast.owner, daily_limit_usd=Decimal(10))
    add(cast, cost_usd=Decimal(9))
    shown = page(browser.get(f"/w/{cast.workspace.slug}/"))
    assert "$9.00 of $10.00" in shown.one("figure", id="budget-day").text
    assert "1 requests of 1,000,000" in shown.one("figure", id="plan").text


def test_a_budget_near_or_over_its_limit_is_said_on_every_page(cast, browser):
    update_budget_settings(cast.workspace, acting_user=cast.owner, daily_limit_usd=Decimal(10))
    add(cast, cost_usd=Decimal(8))
    address = f"/w/{cast.workspace.slug}/investigate/"
    banner = page(browser.get(address)).one("div", "banner-warn")
    assert "Budget warning threshold reached" in banner.text
    assert "Consider upgrading to Team" in banner.text
    add(cast, cost_usd=Decimal(3))
    assert "Budget reached" in page(browser.get(address)).one("div", "banner-bad").text


def test_a_paused_workspace_hears_that_calls_keep_running(committed):
    cast = make_cast("free", monthly_requests=1)
    add(cast)
    client = Client()
    client.force_login(cast.member)
    banner = page(client.get(f"/w/{cast.workspace.slug}/")).one("div", "banner-bad")
    assert "Telemetry paused" in banner.text
    assert "LLM calls keep running" in banner.text
    assert "Consider upgrading to Pro" in banner.text


@pytest.mark.parametrize(("sent", "words"), [(3, "1 request was refused"), (5, "3 requests were refused")])
def test_refused_hours_are_shaded_and_explained(client_of, committed, sent, words):
    meter = client_of("free", monthly_requests=2)
    for _ in range(sent):
        meter.send()
    client = Client()
    client.force_login(meter.opened.owner)
    shown = page(client.get(f"/w/{meter.opened.workspace.slug}/?range=today"))
    assert words in shown.one("div", "notice-warn").text
    assert "Refused: plan limit reached" in shown.one("figure", id="spend").text


def scoped_budget(cast, value, limit, **wanted):
    wanted = {"scope_kind": "tenant_id", "scope_value": value, "limit_usd": Decimal(limit)} | wanted
    return create_budget(cast.workspace, BudgetDraft(**wanted), acting_user=cast.owner)


def test_an_exceeded_budget_on_a_part_is_told_and_leads_there(cast, browser):
    add(cast, tenant_id="acme", cost_usd=Decimal(4))
    scoped_budget(cast, "globex", 1)
    address = f"/w/{cast.workspace.slug}/"
    assert "exceeded" not in page(browser.get(address)).one("main").text
    budget = scoped_budget(cast, "acme", 3, name="Acme", enforcement="hard")
    notice = page(browser.get(address)).one("main").one("div", "notice-warn")
    assert "The budget “Acme” is exceeded. Telemetry above it is refused; your LLM calls keep running." in notice.text
    assert notice.one("a").attributes["href"] == f"{address}budgets/{budget.pk}/"
    scoped_budget(cast, "", 2, is_each_value=True)
    notice = page(browser.get(address)).one("main").one("div", "notice-warn")
    assert "2 of 3 budgets on a part of the workspace are exceeded. Telemetry above 1 of them is refused" in notice.text
    update_budget_settings(cast.workspace, acting_user=cast.owner, observe_mode=True)
    assert "refused" not in page(browser.get(address)).one("main").one("div", "notice-warn").text


def test_how_much_it_asks(cast, browser, django_assert_max_num_queries):
    add(cast)
    browser.get(f"/w/{cast.workspace.slug}/")
    for path in ("", "?range=30d", "investigate/", "versions/", "start/"):
        with django_assert_max_num_queries(MOST_QUERIES):
            assert browser.get(f"/w/{cast.workspace.slug}/{path}").status_code == 200


@pytest.mark.parametrize(
    ("dimension", "value"),
    [("user_id", "ann"), ("tenant_id", "acme"), ("feature_tag", "chat"), ("endpoint_tag", "a/b"), ("model", "m:1")],
)
def test_a_value_leads_to_what_is_behind_it(cast, browser, dimension, value):
    add(cast, **{dimension: value}, cost_usd=Decimal(4))
    add(cast, **{dimension: "another"}, cost_usd=Decimal(1))
    shown = page(browser.get(f"/w/{cast.workspace.slug}/"))
    table = shown.one("section", aria_labelledby=f"top-{dimension}")
    link = next(each for each in table.all("a") if each.text == value)
    behind = page(browser.get(unescape(link.attributes["href"]))).one("main").text
    assert "$4.00" in behind
    assert "$1.00" not in behind


def test_a_role_that_is_too_low_is_told_which_one_it_takes(cast, browser):
    response = browser.post(f"/w/{cast.workspace.slug}/settings/", {"name": "Mine now", "timezone": "UTC"})
    assert response.status_code == 403
    words = page(response).one("main").text
    assert "This needs the role admin or above. Nothing was changed." in words
