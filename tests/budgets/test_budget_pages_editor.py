"""The editor of budgets on scopes: what is saved, asked, refused, and simulated."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
import time_machine
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from budgets.models import Budget
from budgets.scoped import services
from budgets.scoped.drafts import BudgetDraft, draft_of
from budgets.services import update_budget_settings
from ingest.models import Event, LedgerCoverage, Limit
from tests.factories import make_cast
from tests.ledger import make_event, make_events
from tests.pages import page, signed_in

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 11, 10, 12, tzinfo=UTC)
DAY = timedelta(days=1)
PART = {"headers": {"HX-Request": "true"}}
TYPED = {
    "scope_kind": "tenant_id",
    "which": "one",
    "scope_value": "acme",
    "period": "day",
    "limit_usd": "10",
    "thresholds": "50%, 80%",
    "enforcement": "soft",
    "unpriced": "ignore",
    "estimate_usd_per_1m": "",
    "name": "",
}


@pytest.fixture(autouse=True)
def _noon():
    with time_machine.travel(NOON, tick=False):
        yield


@pytest.fixture
def cast():
    return make_cast("pro", timezone="Europe/Berlin")


@pytest.fixture
def admin(cast):
    return signed_in(cast.admin)


def new(cast):
    return reverse("budget-new", args=[cast.workspace.slug])


def edit(cast, budget):
    return reverse("budget-edit", args=[cast.workspace.slug, budget.pk])


def only(cast):
    return Budget.objects.exclude(scope_kind="").get(workspace=cast.workspace)


def budget_on(cast, **wanted):
    wanted = {"scope_kind": "tenant_id", "scope_value": "acme", "limit_usd": Decimal(10)} | wanted
    return services.create_budget(cast.workspace, BudgetDraft(**wanted), acting_user=cast.owner)


def fields(shown):
    """What a browser would post from the editor."""
    form = shown.one("form", id="budget-form")
    boxes = [box for box in form.all("input") if box.attributes.get("type") not in {"radio", "checkbox"}]
    found = {box.attributes["name"]: box.attributes.get("value", "") for box in boxes}
    chosen = [box for box in form.all("input", type="radio") if "checked" in box.attributes]
    found |= {box.attributes["name"]: box.attributes["value"] for box in chosen}
    for select in form.all("select"):
        found[select.attributes["name"]] = next(
            option.attributes["value"] for option in select.all("option") if "selected" in option.attributes
        )
    found.pop("csrfmiddlewaretoken", None)
    return found


def kept_in(asked):
    """What a browser would post from a second question."""
    return {
        box.attributes["name"]: box.attributes.get("value", "") for box in asked.one("form", "confirm").all("input")
    }


def toasts(response):
    return [str(message) for message in response.context["messages"]]


# --- Saving ---------------------------------------------------------------------------------------------------------


def test_ingest_does_not_wait_while_a_new_budget_adds_up_what_was_spent(cast, admin):
    make_event(cast.workspace, occurred_at=NOON, tenant_id="acme")
    with CaptureQueriesContext(connection) as queries:
        admin.post(new(cast), TYPED)
    statements = [query["sql"] for query in queries]
    adding_up = [place for place, sql in enumerate(statements) if "INSERT INTO ingest_meter" in sql]
    locks = [place for place, sql in enumerate(statements) if "FOR NO KEY UPDATE" in sql]
    assert adding_up[0] < locks[0]


def test_a_budget_is_saved_with_all_that_was_typed(cast, admin):
    make_event(cast.workspace, occurred_at=NOON, tenant_id="acme")
    typed = {
        "thresholds": "25 usd, 50%, $30, 87.5 %",
        "limit_usd": "100.50",
        "unpriced": "estimate",
        "estimate_usd_per_1m": "2.5",
        "name": "Acme’s",
    }
    answer = admin.post(new(cast), TYPED | typed, follow=True)
    budget = only(cast)
    assert answer.redirect_chain == [(reverse("budget", args=[cast.workspace.slug, budget.pk]), 302)]
    assert toasts(answer) == ["The budget is saved and holds from now on."]
    assert draft_of(budget) == BudgetDraft(
        scope_kind="tenant_id",
        scope_value="acme",
        limit_usd=Decimal("100.5"),
        name="Acme’s",
        thresholds=(Decimal("0.5"), Decimal("0.875")),
        thresholds_usd=(Decimal(25), Decimal(30)),
        unpriced="estimate",
        estimate_usd_per_1m=Decimal("2.5"),
    )
    assert Limit.objects.filter(workspace=cast.workspace, source_id=str(budget.pk)).exists()


def test_each_value_needs_none(cast, admin):
    admin.post(new(cast), TYPED | {"which": "each", "scope_value": "left over", "scope_kind": "model"})
    assert (only(cast).is_each_value, only(cast).scope_value, only(cast).scope_kind) == (True, "", "model")


def test_api_keys_go_by_their_names(cast, admin):
    key = cast.opened.api_key
    shown = page(admin.get(new(cast), {"kind": "api_key_id"}))
    assert key.name in [option.attributes["value"] for option in shown.one("datalist").all("option")]
    admin.post(new(cast), TYPED | {"scope_kind": "api_key_id", "scope_value": key.name})
    assert only(cast).scope_value == str(key.pk)
    other = make_cast("pro")
    refused = admin.post(new(cast), TYPED | {"scope_kind": "api_key_id", "scope_value": str(other.opened.api_key.pk)})
    assert "There is no API key with this name." in page(refused).text


def test_values_that_were_seen_can_be_chosen(cast, admin):
    make_events(cast.workspace, 2, tenant_id="acme", model="gpt-4o")
    make_event(cast.workspace, tenant_id="zeta", model="gpt-4o")
    address = reverse("budgets-values", args=[cast.workspace.slug])

    def chosen(kind):
        return [option.attributes["value"] for option in page(admin.get(address, {"scope_kind": kind})).all("option")]

    assert chosen("tenant_id") == ["acme", "zeta"]
    assert chosen("model") == ["gpt-4o"]
    assert chosen("environment") == ["dev", "staging", "prod"] or "prod" in chosen("environment")
    assert chosen("nonsense") == []


def test_a_link_fills_the_editor_in(cast, admin):
    found = fields(page(admin.get(new(cast), {"kind": "model", "each": "1"})))
    assert (found["scope_kind"], found["which"], found["thresholds"]) == ("model", "each", "50%, 80%")


def test_a_scope_without_traffic_is_warned_about(cast, admin):
    assert "No traffic of the last 30 days" in toasts(admin.post(new(cast), TYPED, follow=True))[1]


@pytest.mark.parametrize(
    ("field", "typed", "error"),
    [
        ("scope_value", "  ", "Say which one, or choose each value."),
        ("limit_usd", "", "required"),
        ("limit_usd", "ten", "Enter a number of USD"),
        ("limit_usd", "0", "Must be above 0"),
        ("limit_usd", "1e999999", "Must be above 0"),
        ("thresholds", "80", "neither like 80% nor like 20 USD"),
        ("thresholds", "$20%", "neither like 80% nor like 20 USD"),
        ("thresholds", "0%", "above 0"),
        ("thresholds", "50%, 20 USD", "below the limit"),
        ("unpriced", "block", "Only a hard stop"),
        ("unpriced", "estimate", "Say what 1M tokens"),
        ("name", "x" * 101, "100 characters"),
        ("name", "Daily budget", "has this name"),
    ],
)
def test_what_is_wrong_is_told_beside_its_field_and_nothing_typed_is_lost(cast, admin, field, typed, error):
    answer = admin.post(new(cast), TYPED | {field: typed})
    shown = page(answer)
    assert answer.status_code == 422
    assert error in shown.one("form", id="budget-form").text
    told = fields(shown)
    assert {name: told[name] for name in TYPED} == TYPED | {field: typed}
    assert not Budget.objects.exclude(scope_kind="").exists()


@pytest.mark.parametrize("role", ["viewer", "member"])
def test_only_admins_come_in(cast, role):
    budget, client = budget_on(cast), signed_in(getattr(cast, role))
    for address in (new(cast), edit(cast, budget)):
        assert client.get(address).status_code == 403
        assert client.post(address, TYPED).status_code == 403
        assert client.post(address, TYPED | {"simulate": "1"}).status_code == 403
    assert only(cast).limit_usd == 10


# --- Second question ------------------------------------------------------------------------------------------------


def test_a_hard_stop_that_refuses_at_once_is_asked_about(cast, admin):
    make_event(cast.workspace, occurred_at=NOON, tenant_id="acme", cost_usd=Decimal(12))
    typed = TYPED | {"enforcement": "hard"}
    asked = page(admin.post(new(cast), typed))
    assert (
        "Tenant acme: telemetry would be refused (402) from now until 00:00 UTC on 11 November (01:00 in "
        "Europe/Berlin). $12.00 of $10.00 is spent this day." in asked.text
    )
    assert "Calls to your providers always continue." in asked.text
    assert not Budget.objects.exclude(scope_kind="").exists()
    assert not Limit.objects.filter(workspace=cast.workspace, source="budgets").exists()
    assert admin.post(new(cast), kept_in(asked)).status_code == 302
    assert only(cast).enforcement == "hard"


def test_the_way_back_from_the_second_question_keeps_what_was_typed(cast, admin):
    make_event(cast.workspace, occurred_at=NOON, tenant_id="acme", cost_usd=Decimal(12))
    asked = page(admin.post(new(cast), TYPED | {"enforcement": "hard", "name": "Mine"}))
    back = next(button for button in asked.all("button") if button.text == "Back to the form")
    kept = kept_in(asked) | {back.attributes["name"]: back.attributes["value"]}
    typed = fields(page(admin.post(new(cast), kept)))
    assert (typed["name"], typed["limit_usd"], typed["enforcement"]) == ("Mine", TYPED["limit_usd"], "hard")
    assert "confirmed" not in typed
    assert not Budget.objects.exclude(scope_kind="").exists()


def test_the_values_that_would_be_refused_are_named(cast, admin):
    for tenant, usd in (("a", 30), ("b", 20), ("c", 1)):
        make_event(cast.workspace, occurred_at=NOON, tenant_id=tenant, cost_usd=Decimal(usd))
    asked = page(admin.post(new(cast), TYPED | {"which": "each", "enforcement": "hard"}))
    assert "Each tenant: telemetry of 2 of them would be refused (402) from now until" in asked.text
    assert "a ($30.00), b ($20.00) are above $10.00 this day." in asked.text
    typed = TYPED | {"which": "each", "enforcement": "hard", "limit_usd": "25"}
    assert "a ($30.00) is above $25.00 this day." in page(admin.post(new(cast), typed)).text


def test_a_soft_budget_that_is_exceeded_at_once_says_that_nothing_is_refused(cast, admin):
    make_event(cast.workspace, occurred_at=NOON, tenant_id="acme", cost_usd=Decimal(12))
    asked = page(admin.post(new(cast), TYPED))
    assert "exceeded at once" in asked.text
    assert "nothing is refused" in asked.text


def test_while_the_kill_switch_is_on_nothing_would_be_refused(cast, admin):
    update_budget_settings(cast.workspace, acting_user=cast.owner, observe_mode=True)
    assert admin.post(new(cast), TYPED | {"enforcement": "hard"}).status_code == 302


def test_a_new_hard_stop_with_room_left_is_asked_about_too(cast, admin):
    asked = page(admin.post(new(cast), TYPED | {"enforcement": "hard", "unpriced": "block"}))
    assert "From now on telemetry of what it covers is refused (402) whenever spend is above the limit" in asked.text
    assert "Requests whose model has no price are refused at once" in asked.text


def test_a_hard_stop_that_is_made_wider_is_not_asked_about(cast, admin):
    budget = budget_on(cast, enforcement="hard")
    typed = fields(page(admin.get(edit(cast, budget)))) | {"limit_usd": "20"}
    assert admin.post(edit(cast, budget), typed).status_code == 302


# --- Changing -------------------------------------------------------------------------------------------------------


def test_a_change_is_saved_and_can_be_undone(cast, admin):
    budget = budget_on(cast, thresholds=(Decimal("0.5"),), thresholds_usd=(Decimal(9),))
    typed = fields(page(admin.get(edit(cast, budget))))
    assert typed["thresholds"] == "50%, 9 USD"
    answer = admin.post(edit(cast, budget), typed | {"limit_usd": "20", "enforcement": "soft"}, follow=True)
    assert only(cast).limit_usd == 20
    undo = page(answer).one("div", "toast").one("form")
    data = {box.attributes["name"]: box.attributes["value"] for box in undo.all("input")}
    admin.post(undo.attributes["action"], data)
    assert draft_of(only(cast)) == draft_of(budget)


def test_saving_what_it_says_already_changes_nothing(cast, admin):
    budget = budget_on(cast)
    typed = fields(page(admin.get(edit(cast, budget))))
    assert toasts(admin.post(edit(cast, budget), typed, follow=True)) == [
        "This is the budget already; nothing was changed."
    ]
    assert len(services.history(budget.pk, cast.workspace.pk)) == 1


def test_scope_and_period_cannot_be_changed(cast, admin):
    budget = budget_on(cast)
    admin.post(edit(cast, budget), fields(page(admin.get(edit(cast, budget)))) | TYPED | {"scope_value": "other"})
    assert only(cast).scope_value == "acme"


def test_somebody_elses_change_is_not_overwritten_unseen(cast, admin):
    budget = budget_on(cast)
    typed = fields(page(admin.get(edit(cast, budget)))) | {"limit_usd": "20"}
    theirs = BudgetDraft(**{**vars_of(budget), "limit_usd": Decimal(30)})
    services.change_budget(budget, theirs, acting_user=cast.owner)
    answer = admin.post(edit(cast, budget), typed)
    shown = page(answer)
    assert answer.status_code == 409
    assert ["Limit", "$30.00 a UTC day", "$20.00 a UTC day"] in shown.rows()
    assert cast.owner.name in shown.text or cast.owner.email in shown.text
    assert only(cast).limit_usd == 30
    again = fields(shown)
    assert again["limit_usd"] == "20"
    assert admin.post(edit(cast, budget), again).status_code == 302
    assert only(cast).limit_usd == 20


def test_a_raise_meanwhile_is_shown_too(cast, admin):
    budget = budget_on(cast)
    typed = fields(page(admin.get(edit(cast, budget)))) | {"limit_usd": "20"}
    services.raise_budget(budget, Decimal(50), NOON + timedelta(hours=1), "A launch", acting_user=cast.owner)
    answer = admin.post(edit(cast, budget), typed)
    assert answer.status_code == 409
    [limit, raised] = page(answer).rows()[-2:]
    assert limit[0] == "Limit"
    assert raised == ["Raise", "$50.00 until Tue 14:00", "Stays as it is now"]


def vars_of(budget):
    draft = draft_of(budget)
    return {name: getattr(draft, name) for name in draft.__dataclass_fields__}


# --- Simulator ------------------------------------------------------------------------------------------------------


def replayed(client, address, **typed):
    answer = client.post(address, TYPED | {"simulate": "1"} | typed, **PART)
    assert answer.status_code == 200
    return page(answer)


@pytest.fixture
def sent(cast):
    """Each of two tenants sent 6 USD twice a day, on three days."""
    for tenant in ("acme", "zeta"):
        make_events(cast.workspace, 6, occurred_at=NOON - 3 * DAY, apart=DAY / 2, tenant_id=tenant, cost_usd=Decimal(6))


@pytest.mark.usefixtures("sent")
def test_the_simulator_says_what_would_have_been_told_and_refused(cast, admin):
    soft = replayed(admin, new(cast))
    assert "6 requests, $36.00" in soft.text
    assert "a soft stop refuses nothing" in soft.text
    assert "Exact: every stored request was replayed" in soft.text
    hard = replayed(admin, new(cast), enforcement="hard", limit_usd="5")
    assert "Nothing: a soft stop" not in hard.text
    assert "refused" in hard.one("table").text
    assert not Budget.objects.exclude(scope_kind="").exists()


@pytest.mark.usefixtures("sent")
def test_the_simulator_says_since_when_it_knows_anything(cast, admin):
    Event.objects.filter(occurred_at__lt=NOON - 2 * DAY).delete()
    LedgerCoverage.objects.create(workspace=cast.workspace, events_purged_before=NOON - 2 * DAY)
    assert "on; what came before is no longer stored." in replayed(admin, new(cast)).text
    of_model = replayed(admin, new(cast), scope_kind="model", which="each").text
    assert "on; before that, from the sums of quarter hours, each taken as one request." in of_model


@pytest.mark.usefixtures("sent")
def test_the_simulator_names_the_values(cast, admin):
    shown = replayed(admin, new(cast), which="each")
    assert {item.one("code").text for item in shown.one("ul", "budget-top").all("li")} == {"acme", "zeta"}


def test_the_simulator_says_that_nothing_matches(cast, admin):
    assert "No traffic of these days matches this scope." in replayed(admin, new(cast), days="90").text


def test_half_a_form_is_no_mistake_while_somebody_types(cast, admin):
    assert "Limit (USD): This field is required." in replayed(admin, new(cast), limit_usd="").text


@pytest.mark.usefixtures("sent")
def test_without_scripts_the_whole_page_comes_back_with_the_answer(cast, admin):
    budget = budget_on(cast)
    for address in (new(cast), edit(cast, budget)):
        shown = page(admin.post(address, TYPED | {"simulate": "1", "limit_usd": "7"}))
        assert fields(shown)["limit_usd"] == "7"
        assert "6 requests, $36.00" in shown.one("div", id="simulation").text
    assert only(cast).limit_usd == 10
