"""The list of budgets, one budget and the explainer, as people of every role see them."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
import time_machine
from django.urls import reverse
from django.utils.html import escape

from budgets.models import Budget
from budgets.scoped import services
from budgets.scoped.drafts import BudgetDraft
from budgets.scoped.outlook import Outlook, TrackRecord
from budgets.scoped.pages import lists
from budgets.services import update_budget_settings
from ingest.models import Hold, Lease, WorkspacePolicy
from tests.factories import make_cast
from tests.ledger import make_event, make_events
from tests.pages import page, signed_in
from workspaces.models import AuditEntry

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 11, 10, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
QUERIES_LIST = 20


@pytest.fixture(autouse=True)
def _noon():
    with time_machine.travel(NOON, tick=False):
        yield


@pytest.fixture
def cast():
    return make_cast("pro", timezone="Europe/Berlin")


def url(cast, name="budgets", *args):
    return reverse(name, args=[cast.workspace.slug, *args])


def budget_on(cast, value="acme", limit=10, **wanted):
    wanted = {"scope_kind": "tenant_id", "scope_value": value, "limit_usd": Decimal(limit)} | wanted
    return services.create_budget(cast.workspace, BudgetDraft(**wanted), acting_user=cast.owner)


def spend(cast, usd, tenant="acme", **fields):
    fields = {"occurred_at": NOON - HOUR, "tenant_id": tenant, "cost_usd": Decimal(usd)} | fields
    return make_event(cast.workspace, **fields)


def lease(cast, number, usd="0.5", tenant="acme"):
    """A live lease, held for the workspace and, if there is a budget, for its tenant."""
    ends = NOON + HOUR / 2
    made = Lease.objects.create(
        workspace=cast.workspace,
        external_request_id=f"call-{number}",
        api_key_id=cast.opened.api_key.pk,
        provider="openai",
        model="gpt-4o",
        endpoint_tag="chat",
        prompt_version="v1",
        environment="prod",
        data_mode="real",
        user_id="u",
        tenant_id=tenant,
        usd=Decimal(usd),
        unpriced_tokens=0,
        expires_at=ends,
    )
    for kind, value in (("", ""), ("tenant_id", tenant)):
        hold, is_new = Hold.objects.get_or_create(
            workspace=cast.workspace,
            scope_kind=kind,
            scope_value=value,
            expires_at=ends,
            defaults={"usd": usd, "unpriced_tokens": 0},
        )
        if not is_new:
            Hold.objects.filter(pk=hold.pk).update(usd=Decimal(hold.usd) + Decimal(usd))
    WorkspacePolicy.objects.filter(workspace=cast.workspace).update(leases_until=ends)
    return made


def names(shown):
    return [heading.text for heading in shown.all("h3")]


def look(cast, name="budgets", *args, by="viewer", **query):
    response = signed_in(getattr(cast, by)).get(url(cast, name, *args), query)
    assert response.status_code == 200
    return page(response)


def toasts(response):
    return [str(message) for message in response.context["messages"]]


# --- The list -------------------------------------------------------------------------------------------------------


def test_the_workspaces_budgets_come_first_and_then_the_tightest(cast):
    update_budget_settings(cast.workspace, acting_user=cast.owner, daily_limit_usd=Decimal(100))
    for tenant, limit, usd in (("roomy", 100, 1), ("tight", 10, 9), ("over", 2, 3)):
        spend(cast, usd, tenant)
        budget_on(cast, tenant, limit)
    shown = look(cast)
    assert names(shown) == ["Daily budget", "Tenant over, daily", "Tenant tight, daily", "Tenant roomy, daily"]
    assert "Monthly budget: no limit is set." in shown.text
    assert "$3.00 of $2.00" in shown.text
    assert "Nothing, $1.00 over" in shown.text
    assert "Exceeded, 150% used" in shown.text


def test_a_card_says_what_holds_and_until_when(cast):
    spend(cast, 4)
    budget = budget_on(cast, enforcement="hard", thresholds=(Decimal("0.5"),), thresholds_usd=(Decimal(8),))
    services.raise_budget(budget, Decimal(20), NOON + 6 * HOUR, "A launch", acting_user=cast.owner)
    lease(cast, 1)
    shown = look(cast).one("article")
    assert "$4.00 of $20.00 + $0.50 held by leases" in shown.text
    assert "alerts at $8.00, $10.00" in shown.text
    assert "Hard stop" in shown.text
    assert "Raised until Tue 19:00" in shown.text
    assert "Left $15.50" in shown.text
    assert "at 00:00 UTC on 11 November (01:00 in Europe/Berlin)" in shown.text
    assert "held by leases" in shown.one(role="meter").attributes["aria-valuetext"]


@pytest.mark.parametrize(
    ("spent", "words"),
    [
        (4, "Within the limit, 40% used"),
        (6, "1 of 2 thresholds passed, 60% used"),
        (8, "Near the limit, 80% used"),
        (11, "Exceeded, 110% used"),
    ],
)
def test_near_is_what_has_passed_the_last_threshold(cast, spent, words):
    spend(cast, spent)
    budget_on(cast)
    assert words in look(cast).one("article").text


def test_a_little_is_not_nothing_and_small_limits_are_exact(cast):
    spend(cast, "0.0001")
    budget_on(cast, limit="0.125")
    shown = look(cast).one("article").text
    assert "of $0.125" in shown
    assert "under 1% used" in shown
    assert "alerts at $0.0625, $0.10" in shown


def test_what_leases_hold_above_the_rest_is_no_overspend(cast):
    spend(cast, 9)
    budget_on(cast)
    lease(cast, 1, usd="1.5")
    assert "Left Nothing: leases hold $0.50 more" in look(cast).one("article").text


def test_a_budget_on_each_value_says_how_many_are_near_and_over(cast):
    for tenant, usd in (("a", 12), ("b", 9), ("c", 1)):
        spend(cast, usd, tenant)
    budget_on(cast, "", is_each_value=True)
    shown = look(cast).one("article")
    assert "Each tenant, a UTC day" in shown.text
    assert "3 seen, 1 past a threshold, 1 over" in shown.text
    assert [item.one("code").text for item in shown.one("ul", "budget-top").all("li")] == ["a", "b", "c"]


def test_the_kill_switch_is_seen(cast):
    budget_on(cast, enforcement="hard")
    assert "The kill switch is on." not in look(cast).text
    update_budget_settings(cast.workspace, acting_user=cast.owner, observe_mode=True)
    shown = look(cast)
    assert "The kill switch is on." in shown.text
    assert "Hard stop, only observed" in shown.text


def test_a_scope_without_traffic_is_told(cast):
    budget_on(cast, "acmee")
    assert "No traffic of the last 30 days matches this scope." in look(cast).text
    spend(cast, 1, "acmee")
    assert "No traffic" not in look(cast).text


def test_what_leases_and_tokens_without_a_price_are_is_told(cast):
    spend(cast, 0, cost_usd=None)
    budget_on(cast)
    assert "150 tokens had no price. They count as nothing." in look(cast).text


def test_budgets_are_found_by_kind_name_and_value(cast):
    key = cast.opened.api_key
    budget_on(cast, "acme")
    budget_on(cast, "gpt-4o", scope_kind="model", name="The dear one")
    budget_on(cast, str(key.pk), scope_kind="api_key_id")
    of_key = f"API key {key.name}, daily"
    assert set(names(look(cast))) == {"Tenant acme, daily", "The dear one", of_key}
    assert names(look(cast, kind="model")) == ["The dear one"]
    assert names(look(cast, q="GPT-4")) == ["The dear one"]
    assert names(look(cast, q=key.name[:5].upper())) == [of_key]
    assert names(look(cast, q="acme", kind="model")) == ["No such budget"]
    assert len(names(look(cast, kind="nonsense"))) == 3


def test_twenty_are_on_a_page(cast):
    for number in range(23):
        budget_on(cast, f"t{number:02}")
    first, second = look(cast), look(cast, page="2")
    assert (len(first.all("article")), len(second.all("article"))) == (20, 3)
    assert "21 to 23 of 23" in second.text
    assert set(names(first)).isdisjoint(names(second))
    assert len(look(cast, page="99").all("article")) == 3
    assert len(look(cast, page="nonsense").all("article")) == 20


def test_the_empty_list_says_what_such_budgets_are_good_for(cast):
    shown = look(cast, by="admin").one("div", "budget-empty")
    links = [link.attributes["href"] for link in shown.all("a")]
    assert [link.partition("?")[2] for link in links] == ["kind=tenant_id", "kind=tenant_id&each=1", "kind=model"]
    assert not look(cast).one("div", "budget-empty").all("a")


def test_the_list_takes_few_statements_however_many_there_are(cast, django_assert_max_num_queries):
    spend(cast, 4)
    client = signed_in(cast.admin)
    for number in range(12):
        budget_on(cast, f"t{number}")
        budget_on(cast, f"m{number}", scope_kind="model", period="month")
    client.get(url(cast))
    with django_assert_max_num_queries(QUERIES_LIST):
        client.get(url(cast))


def test_how_right_forecasts_were_is_told(cast, monkeypatch):
    budget_on(cast)
    record = TrackRecord(NOON, tries=11, mean_error=Decimal("0.084"), inside_range=9)
    outlook = Outlook(Decimal("1.5"), None, record)
    monkeypatch.setattr(lists, "outlooks", lambda workspace_id, shown, now: [outlook] * len(shown))
    shown = look(cast)
    assert "Last month’s forecasts were off by 8% on average, 9 of 11 inside the range." in shown.text
    assert "$1.50 an hour" in shown.text
    assert "None yet: it needs three whole UTC days" in shown.text


# --- One budget -----------------------------------------------------------------------------------------------------


def test_everybody_looks_and_only_admins_get_forms(cast):
    budget = budget_on(cast)
    for role in ("viewer", "member"):
        shown = look(cast, "budget", budget.pk, by=role)
        assert not shown.all("form", method="post", id="raise")
        assert "Delete" not in shown.text
    shown = look(cast, "budget", budget.pk, by="admin")
    assert shown.all("form", id="raise")
    assert shown.all("a", href=url(cast, "budget-delete", budget.pk))


def test_the_day_of_the_last_traffic_is_told_not_a_time_that_nobody_knows(cast):
    budget = budget_on(cast)
    spend(cast, 1)
    assert f"Last traffic on {NOON:%-d %B %Y} (UTC)." in look(cast, "budget", budget.pk).text


def test_the_workspaces_own_budget_links_to_its_settings(cast):
    update_budget_settings(cast.workspace, acting_user=cast.owner, daily_limit_usd=Decimal(100))
    budget = Budget.objects.get(workspace=cast.workspace)
    shown = look(cast, "budget", budget.pk, by="owner")
    assert shown.all("a", href=url(cast, "settings-budgets"))
    assert not shown.all("a", href=url(cast, "budget-edit", budget.pk))
    assert "changed the budgets" in shown.text
    for name in ("budget-edit", "budget-delete"):
        response = signed_in(cast.owner).post(url(cast, name, budget.pk))
        assert response.url == url(cast, "settings-budgets")
    assert Budget.objects.filter(pk=budget.pk).exists()


def test_values_of_a_budget_on_each_are_listed_from_the_top(cast):
    for tenant, usd in (("a", 12), ("b", 9), ("c", 1)):
        spend(cast, usd, tenant)
    budget = budget_on(cast, "", is_each_value=True)
    rows = look(cast, "budget", budget.pk).rows()
    assert rows[:3] == [
        ["a", "$12.00", "$0.00", "120.0%", "Over"],
        ["b", "$9.00", "$0.00", "90.0%", "Past a threshold"],
        ["c", "$1.00", "$0.00", "10.0%", "Within"],
    ]


def test_a_raise_holds_until_a_moment_of_the_workspaces_clocks(cast):
    budget = budget_on(cast, limit=10)
    client = signed_in(cast.admin)
    typed = {"limit_usd": "25", "until": "2026-11-10T18:00", "reason": "A launch"}
    answer = client.post(url(cast, "budget-raise", budget.pk), typed, follow=True)
    budget.refresh_from_db()
    assert budget.raised_until == datetime(2026, 11, 10, 17, tzinfo=UTC)
    assert "$0.00 of $25.00" in page(answer).text
    (raised, created) = (item.text for item in page(answer).one("ul", "budget-history").all("li"))
    assert "The admin raised" in raised
    assert "Raised to – → $25.00 Until – → 10 Nov 2026, 18:00 Why – → A launch" in raised
    assert "Limit $10.00 Alert at 50%, 80%" in created
    client.post(url(cast, "budget-raise-end", budget.pk))
    assert "$0.00 of $10.00" in look(cast, "budget", budget.pk).text


@pytest.mark.parametrize(
    ("typed", "field", "error"),
    [
        ({"limit_usd": "5"}, "limit_usd", "Must be above the limit"),
        ({"limit_usd": "much"}, "limit_usd", "Enter a number of USD"),
        ({"until": "2026-11-10T11:00"}, "until", "Must lie ahead"),
        ({"until": "soon"}, "until", "Enter a date and a time"),
        ({"reason": ""}, "reason", "required"),
    ],
)
def test_a_bad_raise_is_told_beside_its_field_and_nothing_typed_is_lost(cast, typed, field, error):
    budget = budget_on(cast, limit=10)
    typed = {"limit_usd": "25", "until": "2026-11-10T18:00", "reason": "A launch"} | typed
    answer = signed_in(cast.admin).post(url(cast, "budget-raise", budget.pk), typed)
    assert answer.status_code == 422
    form = page(answer).one("form", id="raise")
    assert error in form.text
    assert {
        box.attributes["name"]: box.attributes.get("value", "") for box in form.all("input")
    }.items() >= typed.items()
    budget.refresh_from_db()
    assert budget.raised_until is None


def test_the_end_of_a_raise_that_refuses_at_once_is_asked_about(cast):
    spend(cast, 12)
    budget = budget_on(cast, limit=10, enforcement="hard")
    services.raise_budget(budget, Decimal(20), NOON + 6 * HOUR, "A launch", acting_user=cast.owner)
    client, end = signed_in(cast.admin), url(cast, "budget-raise-end", budget.pk)
    asked = page(client.post(end))
    assert "Tenant acme: telemetry would be refused (402) from now until 00:00 UTC on 11 November" in asked.text
    assert look(cast, "budget", budget.pk).one("p", "budget-tags").text == "Hard stop Raised until Tue 19:00"
    kept = {
        box.attributes["name"]: box.attributes.get("value", "") for box in asked.one("form", "confirm").all("input")
    }
    client.post(end, kept)
    assert look(cast, "budget", budget.pk).one("p", "budget-tags").text == "Hard stop"


def test_an_adjustment_counts_and_is_listed(cast):
    spend(cast, 4)
    budget = budget_on(cast, limit=10)
    client, adjust = signed_in(cast.admin), url(cast, "budget-adjust", budget.pk)
    client.post(adjust, {"usd": "−1.50", "reason": "Credit note 7"})
    shown = look(cast, "budget", budget.pk)
    assert "$2.50 of $10.00" in shown.text
    assert "Adjusted by hand by −$1.50." in shown.text
    assert ["10 Nov 2026, 13:00", "10 Nov 2026", "−$1.50", "Credit note 7", "The admin"] in shown.rows()
    refused = client.post(adjust, {"usd": "a lot", "reason": "?"})
    assert refused.status_code == 422
    assert "Enter a number of USD, such as 5 or -12.50." in page(refused).text
    assert 'value="a lot"' in refused.content.decode()


def test_an_adjustment_of_one_value(cast):
    budget = budget_on(cast, "", is_each_value=True)
    client, adjust = signed_in(cast.admin), url(cast, "budget-adjust", budget.pk)
    assert client.post(adjust, {"usd": "3", "reason": "Calls by hand", "scope_value": ""}).status_code == 422
    client.post(adjust, {"usd": "3", "reason": "Calls by hand", "scope_value": "acme"})
    assert look(cast, "budget", budget.pk).rows()[0][:2] == ["acme", "$3.00"]


def test_live_leases_are_listed_and_can_be_released_by_admins(cast):
    budget = budget_on(cast, limit=10)
    lease(cast, 1), lease(cast, 2, "0.25"), lease(cast, 3, tenant="other")
    shown = look(cast, "budget", budget.pk)
    assert [row[:3] for row in shown.rows()] == [
        ["call-1", "$0.50", "in 30 minutes"],
        ["call-2", "$0.25", "in 30 minutes"],
    ]
    address = url(cast, "budget-lease-release", budget.pk)
    assert signed_in(cast.member).post(address, {"lease": "call-1"}).status_code == 403
    answer = signed_in(cast.admin).post(address, {"lease": "call-1"}, follow=True)
    assert toasts(answer) == ["The lease is released: $0.50 is free again."]
    assert [row[0] for row in page(answer).rows()] == ["call-2"]
    assert "+ $0.25 held by leases" in page(answer).text
    assert AuditEntry.objects.get(action="lease.released").target == "call-1"
    for gone in ("call-1", "", "call-2\x00"):
        again = signed_in(cast.admin).post(address, {"lease": gone}, follow=True)
        assert "There is no live lease with this id" in toasts(again)[0]


def test_deleting_names_the_live_leases_and_asks_first(cast):
    budget = budget_on(cast, limit=10)
    lease(cast, 1), lease(cast, 2)
    client, delete = signed_in(cast.admin), url(cast, "budget-delete", budget.pk)
    asked = page(client.get(delete))
    assert "2 live leases hold $1.00 in its scope: call-1, call-2." in asked.text
    assert Budget.objects.filter(pk=budget.pk).exists()
    answer = client.post(delete, follow=True)
    assert toasts(answer) == ["The budget “Tenant acme, daily” is deleted."]
    assert not Budget.objects.filter(pk=budget.pk).exists()
    assert Lease.objects.filter(closed_at=None).count() == 2


def test_names_are_escaped(cast):
    budget = budget_on(cast, "<b>x</b>", name="<i>y</i>")
    for address in (url(cast), url(cast, "budget", budget.pk)):
        text = signed_in(cast.admin).get(address).content.decode()
        assert "<b>x</b>" not in text
        assert "<i>y</i>" not in text
        assert escape("<i>y</i>") in text


# --- Which budgets apply --------------------------------------------------------------------------------------------


def test_a_stored_request_is_explained(cast):
    budget_on(cast, "acme", limit=10)
    budget_on(cast, "other")
    budget_on(cast, "", scope_kind="model", is_each_value=True, limit=5)
    event = spend(cast, 4, external_request_id="call/7 ä")
    shown = look(cast, "budgets-explain", request="call/7 ä")
    assert shown.all("a", href=url(cast, "request", event.pk))
    assert names(shown) == ["Each model, daily", "Tenant acme, daily"]
    assert "Tenant is acme: applies" in shown.text
    assert "Only for tenant other; this request has acme" in shown.one("ul", "budget-others").text


def test_the_explainer_says_what_would_become_of_a_request(cast):
    spend(cast, 4)
    budget_on(cast, "acme", limit=3)
    budget = budget_on(cast, "acme", limit=5, enforcement="hard", unpriced="block", name="Strict")
    assert (
        "refused (402) if its model has no price, by “Strict”" in look(cast, "budgets-explain", tenant_id="acme").text
    )
    assert "by “Strict”" not in look(cast, "budgets-explain", tenant_id="other", model="m").text
    services.adjust_budget(budget, Decimal(2), "A bill", acting_user=cast.owner)
    assert "is refused now (402), by “Strict”." in look(cast, "budgets-explain", tenant_id="acme").text
    update_budget_settings(cast.workspace, acting_user=cast.owner, observe_mode=True)
    assert "No budget refuses telemetry like this now." in look(cast, "budgets-explain", tenant_id="acme").text


def test_a_request_that_is_typed_in_is_explained(cast):
    key = cast.opened.api_key
    budget_on(cast, str(key.pk), scope_kind="api_key_id")
    budget_on(cast, "acme")
    shown = look(cast, "budgets-explain", api_key_id=key.name, tenant_id="nobody")
    assert names(shown) == [f"API key {key.name}, daily"]
    assert "Tenant acme, daily" in shown.one("ul", "budget-others").text
    assert names(look(cast, "budgets-explain", tenant_id="acme", data_mode="test")) == []


def test_a_request_that_is_not_there_or_not_ours_is_told(cast):
    elsewhere = make_cast("pro")
    make_events(elsewhere.workspace, 1, external_request_id="theirs")
    answer = signed_in(cast.viewer).get(url(cast, "budgets-explain"), {"request": "theirs"})
    assert answer.status_code == 404
    assert "No stored request has this id" in page(answer).text
    bad = signed_in(cast.viewer).get(url(cast, "budgets-explain"), {"api_key_id": "no such key", "tenant_id": "x"})
    assert bad.status_code == 422
    assert "There is no API key with this name." in page(bad).text


@pytest.mark.parametrize("name", ["budgets", "budgets-explain"])
def test_outsiders_find_nothing(cast, name):
    assert signed_in(cast.outsider).get(url(cast, name)).status_code == 404
