"""The pages that add and end prices and name models: looked at twice, refused beside the field, audited."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from billing.services import change_workspace_plan
from ingest.models import ModelAlias, ModelPrice, WorkspacePolicy
from opsmeter_site.lib.clock import utc_now
from tests.factories import make_cast
from tests.ingest.price_pages import ENTRY, JANUARY, MODEL, Browser, enterprise, operator_in, text
from tests.prices import add, cost, usd
from workspaces.models import AuditEntry
from workspaces.services import update_workspace

pytestmark = pytest.mark.usefixtures("empty_catalogue")


@pytest.fixture
def cast():
    return enterprise()


# --- Adding a price -------------------------------------------------------------------------------------------------


def test_an_own_price_is_looked_at_before_it_is_stored(cast):
    browser = Browser(cast, cast.admin)
    review = browser.post("price-own-new", ENTRY, status=200)
    assert not ModelPrice.objects.filter(workspace=cast.workspace).exists()
    page = text(review)
    assert "A request would cost $0.0053 1,000 tokens in, 500 out" in page
    assert "Without this price $0.0060 the new one is −12%" in page
    response = browser.post("price-own-new", ENTRY | {"confirmed": "1"})
    assert response["Location"].startswith(browser.url("price"))
    [price] = ModelPrice.objects.filter(workspace=cast.workspace)
    assert (price.input_usd_per_1m, price.created_by, price.effective_from.year) == (Decimal("1.8"), cast.admin, 2026)
    entry = AuditEntry.objects.get(action="price.added", workspace=cast.workspace)
    assert (entry.actor, entry.data["output_usd_per_1m"]) == (cast.admin, "7")
    assert cost(workspace_id=cast.workspace.pk) == Decimal("1.8")
    assert "now has a price in" in text(browser.get("prices-own"))
    assert cost() == 2


def test_sent_twice_it_is_stored_once(cast):
    browser = Browser(cast, cast.admin)
    for _ in range(2):
        browser.post("price-own-new", ENTRY | {"confirmed": "1"})
    assert ModelPrice.objects.filter(workspace=cast.workspace).count() == 1
    assert AuditEntry.objects.filter(action="price.added", workspace=cast.workspace).count() == 1


def test_going_back_from_the_review_keeps_what_was_typed(cast):
    form = Browser(cast, cast.admin).post("price-own-new", ENTRY | {"edit": "1"}, status=200)
    assert b'value="1.8"' in form.content
    assert not ModelPrice.objects.filter(workspace=cast.workspace).exists()


@pytest.mark.parametrize(
    ("changes", "doubtful"),
    [
        ({"input_usd_per_1m": "1800"}, "Input: 900 times the catalogue's 2 USD"),
        ({"output_usd_per_1m": "0.007"}, "Output: 0.00088 times the catalogue's 8 USD"),
        ({"cached_input_usd_per_1m": "5"}, "Cached input: 10 times the catalogue's 0.5 USD"),
        ({"model": "gpt-latest"}, "Model: The catalogue knows this name as gpt"),
        ({"model": "gpt-preview", "input_usd_per_1m": "0.0018"}, "Input: 0.0009 times what openai/gpt costs at least"),
        ({"model": "sora", "output_usd_per_1m": "7000"}, "Output: 875 times what any model of openai costs at most"),
        ({"provider": "in-house", "input_usd_per_1m": "1800"}, "what any model of the catalogue costs at most"),
        ({"provider": "in-house", "cached_input_usd_per_1m": "2"}, "Cached input: Dearer than uncached input"),
    ],
)
def test_a_slip_of_a_unit_is_asked_about_once_more(cast, changes, doubtful):
    browser = Browser(cast, cast.admin)
    body = ENTRY | changes | {"confirmed": "1"}
    refused = browser.post("price-own-new", body, status=422)
    assert doubtful in text(refused)
    assert refused.context["form"].errors.keys() == {"is_meant"}
    assert not ModelPrice.objects.filter(workspace=cast.workspace).exists()
    browser.post("price-own-new", body | {"is_meant": "on"})
    assert ModelPrice.objects.filter(workspace=cast.workspace).count() == 1


@pytest.mark.parametrize("provider", ["openai", "in-house"])
def test_a_usual_price_of_a_new_name_is_not_doubted(cast, provider):
    review = Browser(cast, cast.admin).post(
        "price-own-new", ENTRY | {"provider": provider, "model": "something-new"}, status=200
    )
    assert review.context["doubts"] == {}
    assert "Without this price Unpriced no price is known" in text(review)


@pytest.mark.parametrize(
    ("changes", "at_fault"),
    [
        ({"input_usd_per_1m": "-1"}, "input_usd_per_1m"),
        ({"input_usd_per_1m": "NaN"}, "input_usd_per_1m"),
        ({"input_usd_per_1m": "1e400"}, "input_usd_per_1m"),
        ({"input_usd_per_1m": "1e99999999999999999999"}, "input_usd_per_1m"),
        ({"output_usd_per_1m": "Infinity"}, "output_usd_per_1m"),
        ({"output_usd_per_1m": "1,5"}, "output_usd_per_1m"),
        ({"output_usd_per_1m": "0." + "1" * 19}, "output_usd_per_1m"),
        ({"request_usd_per_1k": "1000001"}, "request_usd_per_1k"),
        ({"input_usd_per_1m": "", "output_usd_per_1m": "", "cached_input_usd_per_1m": "1"}, "input_usd_per_1m"),
        ({"provider": ""}, "provider"),
        ({"provider": "p" * 101}, "provider"),
        ({"model": "m" * 201}, "model"),
        ({"model": "a\x00b"}, "model"),
        ({"effective_from": ""}, "effective_from"),
        ({"effective_from": "yesterday"}, "effective_from"),
        ({"effective_from": "1969-12-31T15:59"}, "effective_from"),
        ({"effective_from": "2300-01-01T00:00"}, "effective_from"),
        ({"effective_from": "0001-01-01T00:00+14:00"}, "effective_from"),
        ({"effective_from": "2026-01-01T00:00+25:00"}, "effective_from"),
        ({"effective_from": "2026-03-08T02:30"}, "effective_from"),  # does not exist in Los Angeles
        ({"effective_from": "2026-11-01T01:30"}, "effective_from"),  # exists twice
        ({"service_tier": "fast"}, "service_tier"),
        ({"context_above": "-1"}, "context_above"),
        ({"context_above": "1.5"}, "context_above"),
        ({"source_url": "javascript:alert(1)"}, "source_url"),
    ],
)
def test_a_bad_entry_keeps_what_was_typed_and_stores_nothing(cast, changes, at_fault):
    update_workspace(cast.workspace, timezone="America/Los_Angeles", acting_user=cast.owner)
    for confirmed in ({}, {"confirmed": "1"}):
        refused = Browser(cast, cast.admin).post("price-own-new", ENTRY | changes | confirmed, status=422)
        assert at_fault in refused.context["form"].errors
        typed = changes.get(at_fault, "").replace("\x00", "")
        assert typed in refused.content.decode().replace("\x00", "")
    assert not ModelPrice.objects.filter(workspace=cast.workspace).exists()


def test_the_moment_is_local_and_shown_again_as_typed(cast):
    update_workspace(cast.workspace, timezone="Asia/Kathmandu", acting_user=cast.owner)
    browser = Browser(cast, cast.admin)
    form = browser.get("price-own-new", **MODEL, since="2026-02-01T10:00:00Z")
    assert 'value="2026-02-01T15:45"' in form.content.decode()
    browser.post("price-own-new", ENTRY | {"effective_from": "2026-02-01T15:45", "confirmed": "1"})
    assert ModelPrice.objects.get(workspace=cast.workspace).effective_from == datetime(2026, 2, 1, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    "since", ["", "soon", "2026-02-31T00:00Z", "0001-01-01T00:00Z", "9999-12-31T23:59Z", "2026-01-01"]
)
def test_a_strange_link_opens_the_form_from_now(cast, since):
    Browser(cast, cast.admin).get("price-own-new", provider="<", model="\x00", since=since)


def test_the_form_starts_from_the_price_in_force(cast):
    form = Browser(cast, cast.admin).get("price-own-new", **MODEL).content.decode()
    assert 'name="input_usd_per_1m" value="2"' in form
    assert 'name="cached_input_usd_per_1m" value="0.5"' in form


def test_a_plan_that_no_longer_includes_own_prices_keeps_and_ends_those_there_are(cast):
    browser = Browser(cast, cast.admin)
    browser.post("price-own-new", ENTRY | {"confirmed": "1"})
    change_workspace_plan(cast.workspace, plan_tier="pro", acting_user=None)
    assert not WorkspacePolicy.objects.get(workspace=cast.workspace).has_price_overrides
    assert cost(workspace_id=cast.workspace.pk) == Decimal("1.8")
    browser.post("price-own-new", ENTRY | {"input_usd_per_1m": "1.7", "confirmed": "1"}, status=403)
    assert "Your plan no longer includes prices of your own" in text(browser.get("prices-own"))
    price = ModelPrice.objects.get(workspace=cast.workspace)
    browser.post("price-own-withdraw", {"since": "now"}, price_id=price.pk)
    assert cost(at=utc_now(), workspace_id=cast.workspace.pk) == 2


def test_an_operator_prices_a_name_for_everybody(cast):
    operator = operator_in(cast, "add_modelprice")
    browser = Browser(cast, operator)
    body = ENTRY | {"model": "GPT-X "}
    assert "every workspace" in text(browser.post("price-new", body, status=200))
    browser.post("price-new", body | {"confirmed": "1"})
    price = ModelPrice.objects.get(model="gpt-x")
    assert (price.workspace, price.created_by) == (None, operator)
    assert AuditEntry.objects.get(action="price.added", workspace=None, actor=operator)
    assert cost("gpt-x", workspace_id=make_cast().workspace.pk) == Decimal("1.8")


# --- Ending a price -------------------------------------------------------------------------------------------------


@pytest.fixture
def own(cast, operator):
    """The workspace's own price of openai/gpt, since January: 1 USD in."""
    return add(operator, workspace=cast.workspace, unit_prices=usd("1"), effective_from=JANUARY)


def test_withdrawing_is_asked_about_and_holds_from_now_on(cast, own):
    browser = Browser(cast, cast.admin)
    question = text(browser.get("price-own-withdraw", args={"price_id": own.pk}))
    assert "costs what the catalogue says for gpt: $2.00 per 1M input tokens" in question
    assert cost(at=utc_now(), workspace_id=cast.workspace.pk) == 1
    browser.post("price-own-withdraw", {"since": "now"}, price_id=own.pk)
    assert cost(at=utc_now(), workspace_id=cast.workspace.pk) == 2
    assert cost(at=JANUARY, workspace_id=cast.workspace.pk) == 1
    assert AuditEntry.objects.get(action="price.withdrawn", workspace=cast.workspace).actor == cast.admin
    page = browser.get("prices-own")
    assert "The own price of openai/gpt is withdrawn." in text(page)
    assert page.context["live"] == []
    assert len(page.context["page"]) == 2


def test_withdrawing_from_its_beginning_is_as_if_it_had_not_been(cast, own):
    Browser(cast, cast.admin).post("price-own-withdraw", {"since": "start"}, price_id=own.pk)
    assert cost(at=JANUARY, workspace_id=cast.workspace.pk) == 2


def test_withdrawn_twice_it_ends_once(cast, own):
    browser = Browser(cast, cast.admin)
    for _ in range(2):
        browser.post("price-own-withdraw", {"since": "now"}, price_id=own.pk)
    assert ModelPrice.objects.filter(workspace=cast.workspace).count() == 2
    assert "had ended before" in text(browser.get("prices-own"))


def test_a_price_that_has_not_begun_is_ended_from_its_start(cast, operator, own):
    later = utc_now() + timedelta(days=10)
    ahead = add(operator, workspace=cast.workspace, unit_prices=usd("3"), effective_from=later)
    Browser(cast, cast.admin).post("price-own-withdraw", {"since": "now"}, price_id=ahead.pk)
    assert cost(at=utc_now(), workspace_id=cast.workspace.pk) == 1
    assert cost(at=later, workspace_id=cast.workspace.pk) == 2


def test_only_own_prices_of_this_workspace_are_withdrawn_here_and_only_by_its_admins(cast, own, operator):
    foreign = make_cast("enterprise")
    theirs = add(operator, workspace=foreign.workspace)
    catalogues = ModelPrice.objects.get(workspace=None)
    browser = Browser(cast, cast.owner)
    for price_id in (theirs.pk, catalogues.pk, 999_999, 10**30):
        browser.get("price-own-withdraw", status=404, args={"price_id": price_id})
        browser.post("price-own-withdraw", {"since": "now"}, status=404, price_id=price_id)
    Browser(cast, cast.member).post("price-own-withdraw", {"since": "now"}, status=403, price_id=own.pk)
    Browser(foreign, cast.owner).get("price-own-withdraw", status=404, args={"price_id": theirs.pk})
    refused = browser.post("price-own-withdraw", {"since": "whenever"}, status=422, price_id=own.pk)
    assert refused.context["form"].errors.keys() == {"since"}
    assert cost(at=utc_now(), workspace_id=cast.workspace.pk) == 1


# --- Other names ----------------------------------------------------------------------------------------------------


def test_an_operator_gives_a_model_another_name(cast):
    operator = operator_in(cast, "add_modelalias")
    browser = Browser(cast, operator)
    question = text(browser.get("price-alias", provider="openai", alias="gpt-x", model="gpt"))
    assert "That is, for gpt: $2.00 per 1M input tokens, $8.00 per 1M output tokens." in question
    browser.post("price-alias", {"provider": "openai", "alias": "GPT-X", "model": "gpt"})
    assert ModelAlias.objects.get(alias="gpt-x").model == "gpt"
    assert cost("gpt-x") == 2
    assert AuditEntry.objects.get(action="price_alias.set").actor == operator


@pytest.mark.parametrize(
    ("changes", "at_fault"),
    [
        ({"model": "nothing"}, "model"),
        ({"alias": "gpt"}, "alias"),
        ({"provider": "azure"}, "model"),
        ({"alias": ""}, "alias"),
        ({"alias": "x" * 201}, "alias"),
        ({"model": "\x00"}, "model"),
    ],
)
def test_a_bad_name_is_refused_beside_its_field(cast, changes, at_fault):
    body = {"provider": "openai", "alias": "gpt-x", "model": "gpt", **changes}
    refused = Browser(cast, operator_in(cast, "add_modelalias")).post("price-alias", body, status=422)
    assert at_fault in refused.context["form"].errors
    assert not ModelAlias.objects.filter(alias="gpt-x").exists()
