"""The pages that show prices, as the people of a workspace and those who run the service see them."""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from urllib.parse import urlencode

import pytest
from django.test import Client

from ingest import pricing
from ingest.models import ModelPrice
from opsmeter_site.lib.clock import utc_now
from tests.factories import make_cast
from tests.ingest.price_pages import ENTRY, JANUARY, MODEL, Browser, enterprise, operator_in, text
from tests.ledger import make_event, make_events, new_event, store_events
from tests.prices import add, bring_in, says, usd
from workspaces.services import update_workspace

NAMES = ("prices", "price-test", "prices-unpriced", "prices-own")

pytestmark = pytest.mark.usefixtures("empty_catalogue")


@pytest.fixture
def cast():
    return enterprise()


# --- Who sees what --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_member_reads_and_outsiders_see_nothing(cast, name):
    for role in ("viewer", "member", "admin", "owner"):
        Browser(cast, getattr(cast, role)).get(name)
    Browser(cast, cast.outsider).get(name, status=404)
    assert Client().get(Browser(cast, cast.owner).url(name)).status_code == 302


@pytest.mark.parametrize(("role", "status"), [("viewer", 403), ("member", 403), ("admin", 200), ("owner", 200)])
def test_own_prices_are_for_admins_and_owners(cast, role, status):
    Browser(cast, getattr(cast, role)).get("price-own-new", status=status)
    Browser(cast, getattr(cast, role)).post("price-own-new", ENTRY, status=status)
    shows_button = b"prices/own/new/" in Browser(cast, getattr(cast, role)).get("prices").content
    assert shows_button is (status == 200)


@pytest.mark.parametrize("name", ["price-new", "price-alias"])
def test_the_catalogue_is_changed_by_operators_with_the_permission_only(cast, name):
    may, may_not = operator_in(cast, "add_modelprice", "add_modelalias"), operator_in(cast, "view_modelprice")
    Browser(cast, may).get(name)
    for person in (may_not, cast.owner, cast.viewer):
        Browser(cast, person).get(name, status=403)
        Browser(cast, person).post(name, ENTRY | {"alias": "x"}, status=403)
    Browser(cast, cast.outsider).get(name, status=404)
    assert ModelPrice.objects.count() == 1


def test_an_operator_without_the_second_factor_is_a_viewer(cast, settings):
    browser = Browser(cast, operator_in(cast, "add_modelprice", "add_modelalias"))
    assert b"prices/catalogue/new/" in browser.get("prices").content
    settings.OPERATORS_NEED_MFA = True
    assert b"prices/catalogue/new/" not in browser.get("prices").content
    browser.post("price-new", ENTRY, status=403)


@pytest.mark.parametrize("name", [*NAMES, "price"])
def test_pages_that_read_refuse_other_methods(cast, name):
    Browser(cast, cast.owner).post(name, {}, status=405)


# --- The catalogue --------------------------------------------------------------------------------------------------


def test_the_catalogue_is_searched_by_words_of_name_alias_and_provider(cast, operator):
    add(operator, provider="azure", model="gpt-5-mini")
    add(operator, model="omni/large")
    browser = Browser(cast, cast.viewer)

    def found(**query):
        rows = browser.get("prices", headers={"HX-Request": "true"}, **query).context["page"]
        return [f"{row.provider}/{row.model}" for row in rows]

    assert found() == ["azure/gpt-5-mini", "openai/gpt", "openai/omni/large"]
    assert found(q="GPT azure") == ["azure/gpt-5-mini"]
    assert found(q="latest") == ["openai/gpt"]
    assert found(q="openai/omni") == ["openai/omni/large"]
    assert found(provider="azure") == ["azure/gpt-5-mini"]
    assert found(q="\x00") == found(provider="nobody") == []
    assert found(page="-1") == found(page="9e9") == found()
    assert "No such model" in text(browser.get("prices", q="nothing like it"))


def test_it_shows_dates_source_and_unit_prices(cast):
    page = text(Browser(cast, cast.viewer).get("prices"))
    assert "gpt openai $2.00 $8.00 $0.50 – – always genai-prices 9.9.9" in page
    assert "Catalogue from genai-prices 9.9.9, checked just now" in page


def test_what_the_workspace_uses_comes_first_under_any_of_its_names(cast, operator):
    add(operator, model="aaa")
    workspace, now = cast.workspace, utc_now()
    make_event(workspace, model="GPT-Latest", occurred_at=now)
    make_event(workspace, model="gpt-2024-05-13", occurred_at=now)
    make_event(workspace, model="aaa", occurred_at=now - timedelta(days=31))
    browser = Browser(cast, cast.viewer)
    first, second = browser.get("prices").context["page"]
    assert (first.model, first.use.requests, first.use.cost_usd) == ("gpt", 2, Decimal("0.020000000002"))
    assert (second.model, second.use) == ("aaa", None)
    assert [row.model for row in browser.get("prices", used="1").context["page"]] == ["gpt"]


def test_the_workspaces_own_price_is_what_it_shows(cast, operator):
    add(operator, workspace=cast.workspace, model="gpt-latest", unit_prices=usd("1", "2"))
    add(operator, workspace=cast.workspace, provider="in-house", model="llama", unit_prices=usd("0.1"))
    rows = {row.model: row for row in Browser(cast, cast.viewer).get("prices").context["page"]}
    own = {model: row.price.unit_prices.input for model, row in rows.items() if row.is_own}
    assert (rows.keys(), own) == ({"gpt", "gpt-latest", "llama"}, {"gpt-latest": 1, "llama": Decimal("0.1")})
    assert "another name of gpt" in text(Browser(cast, cast.viewer).get("price", provider="openai", model="gpt-latest"))
    other = make_cast("enterprise")
    assert [row.is_own for row in Browser(other, other.viewer).get("prices").context["page"]] == [False]


def test_an_empty_catalogue_says_so(db):
    people = make_cast("pro")
    page = text(Browser(people, people.viewer).get("prices"))
    assert "The catalogue is empty" in page
    assert "No prices have been imported yet" in page


def test_approvals_that_wait_are_shown_to_those_who_decide(cast):
    bring_in(says(usd("9")))
    assert "1 price waits for an operator" in text(Browser(cast, operator_in(cast, "change_modelprice")).get("prices"))
    assert "waits for" not in text(Browser(cast, cast.owner).get("prices"))


# --- One model ------------------------------------------------------------------------------------------------------


def test_a_model_with_all_its_prices_names_and_history(cast, operator):
    add(operator, unit_prices=usd("4", "16"), context_above=200_000)
    add(operator, unit_prices=usd("1", "4"), service_tier="batch")
    add(operator, workspace=cast.workspace, unit_prices=usd("1.5", "6"), effective_from=JANUARY)
    response = Browser(cast, cast.viewer).get("price", **MODEL)
    live = [(row.price.key.service_tier, row.price.key.context_above, cost) for row, cost in response.context["live"]]
    assert live == [
        ("standard", 0, Decimal("0.0045")),
        ("standard", 0, Decimal("0.006")),
        ("standard", 200_000, Decimal("0.012")),
        ("batch", 0, Decimal("0.003")),
    ]
    assert response.context["paid"] == ModelPrice.objects.get(workspace=cast.workspace).pk
    page = text(response)
    assert "gpt-latest" in page
    assert "above 200,000 input tokens" in page
    assert len(response.context["history"]) == 4


def test_the_sample_request_is_the_readers(cast):
    browser = Browser(cast, cast.viewer)
    response = browser.get("price", **MODEL, input="1000000", output="0")
    assert [cost for _, cost in response.context["live"]] == [2]
    for bad in ("-1", "1e400", "many", "99999999999"):
        refused = browser.get("price", status=422, **MODEL, input=bad)
        assert f'value="{bad}"' in refused.content.decode()
        assert refused.context["sample"].errors.keys() == {"input"}


def test_what_the_workspace_spent_on_it(cast):
    make_events(cast.workspace, 2, model="gpt-latest", occurred_at=utc_now())
    make_event(cast.workspace, model="gpt", cost_usd=None, occurred_at=utc_now())
    make_event(make_cast().workspace, model="gpt", occurred_at=utc_now())
    response = Browser(cast, cast.viewer).get("price", **MODEL)
    use = response.context["use"]
    assert (use.requests, use.unpriced_requests, use.tokens) == (3, 1, 450)
    assert use.cost_usd == Decimal("0.020000000002")
    assert "You spent $0.02 last 30 days" in text(response)


@pytest.mark.parametrize(
    ("asked", "leads_to"),
    [
        ({"provider": "OpenAI", "model": "GPT-Latest"}, {"name": "price", **MODEL}),
        ({"provider": "open_ai", "model": "gpt-2024-05-13"}, {"name": "price", **MODEL}),
        ({"provider": "azure", "model": "gpt"}, {"name": "price-test", "provider": "azure", "model": "gpt"}),
        ({"provider": "\x00", "model": "\x00%"}, {"name": "price-test", "provider": "\x00", "model": "\x00%"}),
        ({"provider": "", "model": "gpt"}, {"name": "prices"}),
        ({}, {"name": "prices"}),
    ],
)
def test_other_names_lead_to_the_model_and_unknown_ones_to_the_test(cast, asked, leads_to):
    browser = Browser(cast, cast.viewer)
    target = browser.url(leads_to.pop("name")) + ("?" + urlencode(leads_to) if leads_to else "")
    assert browser.get("price", status=302, **asked)["Location"] == target


def test_names_with_slashes_colons_and_markup_are_addresses(cast, operator):
    name = "acme/<b>&large:v1?x=1"
    add(operator, model=name)
    browser = Browser(cast, cast.viewer)
    listing = browser.get("prices", q="acme").content.decode()
    link = re.search(r'href="([^"]*prices/model/[^"]*)"', listing)[1].replace("&amp;", "&")
    page = browser.client.get(link)
    assert page.context["model"] == name
    assert b"<b>&" not in page.content


def test_waiting_prices_and_refused_ones_are_in_the_history(cast, operator):
    bring_in(says(usd("9")))
    assert "Waiting for approval" in text(Browser(cast, cast.viewer).get("price", **MODEL))


# --- Test this name -------------------------------------------------------------------------------------------------


def test_the_decision_is_printed_step_by_step(cast):
    browser = Browser(cast, cast.viewer)
    page = text(browser.get("price-test", provider="Open-AI", model="GPT-2024-05-13", output="0"))
    assert "$0.002 for 1,000 input and 0 output tokens." in page
    steps = ("Exactly gpt-2024-05-13 no", "Another name known for gpt-2024-05-13 no", "Without the date: gpt → gpt")
    assert [page.index(step) for step in steps] == sorted(page.index(step) for step in steps)
    assert "Price list: the catalogue's, standard" in page


def test_the_workspaces_own_price_is_the_first_step(cast, operator):
    add(operator, workspace=cast.workspace, unit_prices=usd("1"))
    page = text(Browser(cast, cast.viewer).get("price-test", **MODEL, output="0"))
    assert "at your workspace’s own price" in page
    assert page.index("Your workspace’s own price of gpt → gpt") < page.index("Exactly gpt → gpt")


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ({"provider": "azure", "model": "gpt"}, "The catalogue knows no provider called azure"),
        ({"provider": "openai", "model": "gpt-9"}, "openai has no model of this name"),
        ({"provider": "<i>", "model": "'\"--"}, "Unpriced."),
    ],
)
def test_an_unknown_name_is_unpriced_and_told_why(cast, asked, answer):
    page = text(Browser(cast, cast.viewer).get("price-test", **asked))
    assert answer in page.replace("&lt;", "<")
    assert "which is not the same as zero" in page


def test_tier_size_and_local_time_decide(cast, operator):
    update_workspace(cast.workspace, timezone="Asia/Kathmandu", acting_user=cast.owner)
    start = datetime(2026, 3, 1, tzinfo=UTC)
    add(operator, workspace=cast.workspace, unit_prices=usd("1"), effective_from=start)
    browser = Browser(cast, cast.viewer)

    def rule(**asked):
        return browser.get("price-test", **MODEL, **asked).context["decision"].rule

    assert (rule(at="2026-03-01T05:44"), rule(at="2026-03-01T05:45")) == ("exact", "workspace_override")
    assert rule(at="2026-03-01T00:00Z") == "workspace_override"
    assert rule(tier="batch") == "workspace_override"


@pytest.mark.parametrize(
    ("asked", "at_fault"),
    [
        ({"model": ""}, "model"),
        ({"provider": "p" * 101}, "provider"),
        ({"model": "m\x00"}, "model"),
        ({"tier": "fast"}, "tier"),
        ({"at": "soon"}, "at"),
        ({"at": "2026-03-01T00:00+99:99"}, "at"),
        ({"at": "0001-01-01T00:00+14:00"}, "at"),
        ({"input": "-5"}, "input"),
        ({"output": "1e400"}, "output"),
    ],
)
def test_a_bad_test_keeps_what_was_typed(cast, asked, at_fault):
    for headers in ({}, {"HX-Request": "true"}):
        refused = Browser(cast, cast.viewer).get("price-test", status=422, headers=headers, **{**MODEL, **asked})
        assert refused.context["form"].errors.keys() == {at_fault}
        assert "decision" not in refused.context


def test_partial_answers_are_parts_of_pages(cast):
    browser = Browser(cast, cast.viewer)
    for name, query in (("prices", {}), ("price-test", MODEL)):
        part = browser.get(name, headers={"HX-Request": "true"}, **query)
        assert b"<html" not in part.content
        assert b"<html" in browser.get(name, **query).content


# --- Without a price ------------------------------------------------------------------------------------------------


def unpriced(cast, **fields):
    make_event(cast.workspace, **{"model": "gpt-x", "cost_usd": None, "occurred_at": utc_now(), **fields})


def test_the_inbox_says_what_is_missing_and_what_it_weighs(cast):
    unpriced(cast, endpoint_tag="chat")
    make_event(cast.workspace, model="gpt", occurred_at=utc_now())
    page = text(Browser(cast, cast.viewer).get("prices-unpriced"))
    assert "gpt-x openai Unknown model" in page
    assert "1 request, 150 tokens (50.0% of all)" in page
    assert "in chat" in page
    assert "Requests that are stored already stay unpriced" in page


def test_each_span_reaches_further_back(cast):
    for days in (1, 40, 200):
        unpriced(cast, model=f"days-{days}", occurred_at=utc_now() - timedelta(days=days))
    browser = Browser(cast, cast.viewer)
    found = {
        span: len(browser.get("prices-unpriced", span=span).context["names"]) for span in ("30d", "90d", "all", "x")
    }
    assert found == {"30d": 1, "90d": 2, "all": 3, "x": 1}


def test_a_full_inbox_has_pages(cast):
    bring_in(says(usd("1")))
    store_events(
        [new_event(cast.workspace, model=f"made-up-{n}", cost_usd=None, occurred_at=utc_now()) for n in range(60)]
    )
    browser = Browser(cast, cast.viewer)
    assert [len(browser.get("prices-unpriced", page=page).context["names"]) for page in (1, 2, 99)] == [50, 10, 10]


def test_who_can_do_something_sees_it_and_others_whom_to_ask(cast):
    unpriced(cast, model="gpt-latest-preview")
    member = Browser(cast, cast.member).get("prices-unpriced")
    assert b"prices/own/new/" not in member.content
    assert b"prices/catalogue/" not in member.content
    assert "Owners and admins of this workspace can add them: " in text(member)
    assert cast.admin.name in text(member)
    assert b"prices/own/new/?provider=openai&model=gpt-latest-preview" in Browser(cast, cast.admin).get(
        "prices-unpriced"
    ).content.replace(b"&amp;", b"&")
    operators = Browser(cast, operator_in(cast, "add_modelprice", "add_modelalias")).get("prices-unpriced").content
    assert b"alias=gpt-latest-preview&model=gpt" in operators.replace(b"&amp;", b"&")
    assert b"prices/catalogue/new/?provider=openai" in operators


def test_other_plans_are_told_what_enterprise_adds(db):
    people = make_cast("team")
    unpriced(people)
    page = Browser(people, people.owner).get("prices-unpriced")
    assert "The Enterprise plan adds prices of your own" in text(page)
    assert b"prices/own/new/" not in page.content
    Browser(people, people.owner).get("price-own-new", status=403)
    Browser(people, people.owner).post("price-own-new", ENTRY, status=403)
    assert not ModelPrice.objects.exists()


def test_what_has_been_priced_since_is_listed_apart(cast, operator):
    unpriced(cast)
    add(operator, model="gpt-x")
    page = Browser(cast, cast.viewer).get("prices-unpriced")
    assert page.context["names"] == []
    assert "Priced since New requests have a cost" in text(page)


# --- What a page costs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "query", "queries"),
    [
        ("prices", {}, 11),
        ("price", MODEL, 11),
        ("price-test", MODEL, 9),
        ("prices-unpriced", {}, 11),
        ("prices-own", {}, 10),
        ("price-own-new", MODEL, 9),
    ],
)
def test_queries_do_not_grow_with_what_is_shown(cast, operator, name, query, queries, django_assert_num_queries):
    browser = Browser(cast, cast.owner)
    for number in range(4):
        add(operator, model=f"gpt-{number}")
        add(operator, workspace=cast.workspace, model=f"own-{number}")
        unpriced(cast, model=f"unknown-{number}")
        make_event(cast.workspace, model=f"gpt-{number}", occurred_at=utc_now())
    browser.get(name, **query)
    with django_assert_num_queries(queries):
        browser.get(name, **query)


def test_a_change_elsewhere_is_seen_by_the_next_page(cast, operator):
    browser = Browser(cast, cast.viewer)
    browser.get("prices")
    version = pricing.current_book().version
    add(operator, model="brand-new")
    assert pricing.current_book().version == version
    assert "brand-new" in text(browser.get("prices"))
