import re
from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from ingest import pricing
from ingest.admin_facts import CappedPaginator, usd
from ingest.models import (
    Event,
    Hold,
    Lease,
    LedgerAudit,
    LedgerCoverage,
    Limit,
    LimitAdjustment,
    LimitCrossing,
    Meter,
    MeteredScope,
    ModelAlias,
    ModelPrice,
    Refusal,
    Repricing,
    RepricingDay,
    Rollup,
    WorkspacePolicy,
)
from ingest.models.prices import SINCE_EVER, PriceState
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.periods import day_of, month_of
from tests.factories import OperatorFactory, make_workspace
from tests.ledger import make_event, make_events
from workspaces.models import AuditEntry, Workspace

pytestmark = pytest.mark.django_db

FACTS = [
    Event,
    Rollup,
    Refusal,
    Meter,
    Limit,
    LimitAdjustment,
    LimitCrossing,
    MeteredScope,
    Lease,
    Hold,
    Repricing,
    RepricingDay,
    WorkspacePolicy,
    LedgerCoverage,
    LedgerAudit,
]
LARGE = [Event, Rollup, Refusal, Meter, Lease, Hold]


def url(model, name="changelist", *args):
    return reverse(f"admin:ingest_{model._meta.model_name}_{name}", args=args)


@pytest.fixture
def opened():
    return make_workspace("pro")


@pytest.fixture
def operator():
    return OperatorFactory()


@pytest.fixture
def console(client, operator):
    client.force_login(operator)
    return client


@pytest.fixture
def rows(opened):
    """A row in every table of facts."""
    now = utc_now()
    workspace = opened.workspace
    make_event(workspace, occurred_at=now)
    limit = Limit.objects.filter(workspace=workspace).first()
    start = day_of(now).start
    LimitCrossing.objects.create(
        limit=limit, period_start=start, threshold=Decimal("0.8"), amount=10, value=8, crossed_at=now
    )
    sums = dict.fromkeys(
        (
            "uncached_input_tokens",
            "cache_read_tokens",
            "cache_write_tokens",
            "output_tokens",
            "reasoning_tokens",
        ),
        1,
    )
    Refusal.objects.create(
        workspace=workspace, bucket_start=start, reason="budget_exceeded", requests=3, cost_usd=Decimal("0.5"), **sums
    )
    LedgerCoverage.objects.update_or_create(workspace=workspace, defaults={"purged_at": now})
    LedgerAudit.objects.create(
        workspace=workspace,
        checked_at=now,
        events=1,
        is_exact=True,
        drift_usd=0,
        drift_requests=0,
        details={},
    )
    budgeted(opened, limit, now)
    repriced(opened, now)


def budgeted(opened, limit, now):
    """What limits count besides events."""
    workspace = opened.workspace
    LimitAdjustment.objects.create(limit=limit, period_start=day_of(now).start, usd=-2, reason="Load test")
    MeteredScope.objects.create(workspace=workspace, kind="tenant_id", value="acme", is_each_value=False)
    expires_at = now.replace(microsecond=0) + timedelta(minutes=5)
    columns = ("endpoint_tag", "prompt_version", "user_id", "tenant_id")
    Lease.objects.create(
        workspace=workspace,
        external_request_id="held",
        api_key_id=opened.api_key.pk,
        provider="openai",
        model="gpt-4o",
        environment="prod",
        data_mode="real",
        usd=Decimal("0.1"),
        unpriced_tokens=0,
        expires_at=expires_at,
        **dict.fromkeys(columns, "unknown"),
    )
    Hold.objects.create(workspace=workspace, expires_at=expires_at, usd=Decimal("0.1"), unpriced_tokens=0)


def repriced(opened, now):
    """A re-pricing that waits for an answer."""
    job = Repricing.objects.create(
        workspace=opened.workspace,
        created_by=opened.owner,
        reason="The price was wrong",
        start=now - timedelta(days=1),
        end=now,
        state="previewed",
        catalogue_version=1,
        last_id=1,
    )
    RepricingDay.objects.create(repricing=job, day=day_of(now).start, is_preview=True, rows=3, after_usd=1)


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("model", FACTS)
def test_facts_are_shown_and_never_changed(console, opened, model):
    row = model.objects.first()
    for query in ({}, {"workspace": str(opened.workspace.pk)} if model in LARGE else {"q": opened.workspace.name}):
        page = console.get(url(model), query)
        assert page.status_code == 200
        assert "unsafe" not in page["Content-Security-Policy"]
    assert console.get(url(model, "change", row.pk)).status_code == 200
    assert console.post(url(model, "change", row.pk), {}).status_code == 403
    assert console.get(url(model, "add")).status_code == 403
    assert console.post(url(model, "delete", row.pk), {"post": "yes"}).status_code == 403
    assert model.objects.filter(pk=row.pk).exists()


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("model", FACTS)
def test_a_list_costs_few_queries(console, model):
    with CaptureQueriesContext(connection) as queries:
        console.get(url(model))
    assert len(queries) <= 14


@pytest.mark.parametrize("model", LARGE)
def test_large_tables_are_never_counted_in_full(console, opened, model):
    make_events(opened.workspace, 3, apart=timedelta(minutes=20))
    with CaptureQueriesContext(connection) as queries:
        console.get(url(model), {"workspace": str(opened.workspace.pk)})
    table = model._meta.db_table
    counts = [each["sql"] for each in queries if "COUNT(" in each["sql"] and table in each["sql"]]
    assert counts
    assert all(f"LIMIT {CappedPaginator.CAP})" in sql for sql in counts)


@pytest.mark.parametrize("model", LARGE)
def test_large_tables_are_not_read_before_a_workspace_is_chosen(console, opened, model):
    make_event(opened.workspace)
    with CaptureQueriesContext(connection) as queries:
        page = console.get(url(model))
    assert "Choose a workspace to see its rows" in page.content.decode()
    assert [each["sql"] for each in queries if model._meta.db_table in each["sql"]] == []


def test_a_row_that_is_opened_from_a_list_is_found_through_its_workspace(console, opened):
    event = make_event(opened.workspace)
    listed = console.get(url(Event), {"workspace": str(opened.workspace.pk)}).content.decode()
    address = re.search(r'href="(/admin/ingest/event/\d+/change/[^"]*)"', listed)[1].replace("&amp;", "&")
    with CaptureQueriesContext(connection) as queries:
        page = console.get(address)
    assert event.external_request_id in page.content.decode()
    (read,) = [each["sql"] for each in queries if 'FROM "ingest_event"' in each["sql"]]
    assert opened.workspace.pk.hex in read
    assert console.get(url(Event, "change", event.pk) + "?_changelist_filters=workspace%3Dnonsense").status_code == 200


def test_the_pages_of_a_large_table_end_at_the_cap(console, opened, monkeypatch):
    monkeypatch.setattr(CappedPaginator, "CAP", 60)
    make_events(opened.workspace, 70, apart=timedelta(seconds=1))
    query = {"workspace": str(opened.workspace.pk)}
    first = console.get(url(Event), query)
    assert first.context["cl"].result_count == 60
    assert len(first.context["cl"].result_list) == 50
    assert len(console.get(url(Event), query | {"p": 2}).context["cl"].result_list) == 10


def test_events_of_one_workspace_by_time(console, opened):
    other = make_workspace()
    newest = make_event(opened.workspace, external_request_id="the-newest")
    make_event(opened.workspace, external_request_id="older", occurred_at=newest.occurred_at - timedelta(days=1))
    make_event(other.workspace, external_request_id="not-mine")
    query = {"workspace": str(opened.workspace.pk)}
    shown = [event.external_request_id for event in console.get(url(Event), query).context["cl"].result_list]
    assert shown == ["the-newest", "older"]
    found = console.get(url(Event), {**query, "q": "older"}).context["cl"].result_list
    assert [event.external_request_id for event in found] == ["older"]
    by_mode = console.get(url(Event), {**query, "data_mode__exact": "demo"})
    assert len(by_mode.context["cl"].result_list) == 0
    assert b"workspace_filter" not in by_mode.content
    assert b'name="data_mode__exact" value="demo"' in by_mode.content


def test_the_workspace_filter_asks_as_one_types(console, opened):
    page = console.get(url(Event), {"workspace": str(opened.workspace.pk)}).content.decode()
    assert opened.workspace.name in page
    assert "admin/js/autocomplete.js" in page
    assert "style=" not in re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL)
    query = {"app_label": "ingest", "model_name": "event", "field_name": "workspace", "term": opened.workspace.name}
    found = console.get(reverse("admin:autocomplete"), query).json()["results"]
    assert [entry["id"] for entry in found] == [str(opened.workspace.pk)]


def test_limits_are_listed_by_where_they_stand(console, opened):
    now, workspace = utc_now(), opened.workspace
    limit = Limit.objects.get(workspace=workspace, measure="requests")
    meter = Meter.objects.create(
        workspace=workspace, measure="requests", period="month", period_start=month_of(now).start, value=0
    )
    for value, standing in ((limit.amount - 1, "near"), (limit.amount, "over"), (limit.amount / 2, None)):
        Meter.objects.filter(pk=meter.pk).update(value=value)
        shown = {
            wanted: list(console.get(url(Limit), {"standing": wanted}).context["cl"].result_list)
            for wanted in ("near", "over")
        }
        assert shown == {wanted: [limit] if wanted == standing else [] for wanted in ("near", "over")}


def test_policies_are_listed_by_what_their_ledgers_need(console, opened):
    now, workspace = utc_now(), opened.workspace
    policy = WorkspacePolicy.objects.get(workspace=workspace)

    def listed(**query):
        return policy in console.get(url(WorkspacePolicy), query).context["cl"].result_list

    assert not listed(ledger="late")
    assert not listed(retention="late")
    Workspace.objects.filter(pk=workspace.pk).update(created_at=now - timedelta(days=9))
    assert listed(ledger="late")
    assert listed(retention="late")
    audit = {"events": 1, "drift_usd": 0, "drift_requests": 2, "details": {}}
    LedgerAudit.objects.create(workspace=workspace, checked_at=now, is_exact=False, **audit)
    LedgerCoverage.objects.create(workspace=workspace, purged_at=now)
    assert not listed(ledger="late")
    assert not listed(retention="late")
    assert listed(ledger="drift")


@pytest.mark.django_db(transaction=True)
def test_ledgers_are_audited_again_from_the_list(console, opened):
    audit = {"events": 0, "drift_usd": 1, "drift_requests": 2, "details": {}}
    row = LedgerAudit.objects.create(workspace=opened.workspace, checked_at=utc_now(), is_exact=False, **audit)
    response = console.post(url(LedgerAudit), {"action": "audit_again", "_selected_action": [row.pk]}, follow=True)
    assert "exact, 0 raw rows compared" in response.content.decode()
    row.refresh_from_db()
    assert row.is_exact


@pytest.mark.parametrize("value", ["nonsense", "00000000-0000-0000-0000-000000000000", "%00"])
def test_an_odd_workspace_in_the_address_is_no_error(console, value):
    assert console.get(url(Event) + "?workspace=" + value).status_code in {200, 302}


def test_an_unpriced_event_says_so(console, opened):
    make_event(opened.workspace, cost_usd=None)
    assert b"unpriced" in console.get(url(Event), {"workspace": str(opened.workspace.pk)}).content


@pytest.mark.parametrize(
    ("amount", "shown"), [("0.010000000001", "0.010000000001"), ("1200.50", "1,200.5"), ("100", "100")]
)
def test_amounts_show_their_digits(amount, shown):
    assert usd(Decimal(amount)) == shown


# --- Prices -----------------------------------------------------------------------------------------------------------

PRICE = {
    "provider": "Acme",
    "model": "Large-1",
    "effective_from_0": "2026-01-01",
    "effective_from_1": "00:00:00",
    "service_tier": "standard",
    "context_above": "0",
    "input_usd_per_1m": "2.5",
    "output_usd_per_1m": "10",
    "is_meant": "on",
}


@pytest.fixture(autouse=True)
def _fresh_book():
    pricing.forget_book()
    yield
    pricing.forget_book()


def add(**fields):
    return ModelPrice.objects.create(
        **{
            "provider": "acme",
            "model": "large-1",
            "effective_from": SINCE_EVER,
            "input_usd_per_1m": Decimal(2),
            "output_usd_per_1m": Decimal(8),
            "source": "genai-prices 0",
            "checked_on": utc_now().date(),
            **fields,
        }
    )


def test_an_operator_adds_a_price(console, operator):
    response = console.post(url(ModelPrice, "add"), PRICE)
    assert response.status_code == 302, response.context["errors"]
    price = ModelPrice.objects.get(provider="acme")
    assert (price.model, price.input_usd_per_1m, price.source, price.created_by) == (
        "large-1",
        Decimal("2.5"),
        "operator",
        operator,
    )
    assert AuditEntry.objects.get(action="price.added", actor=operator).target == str(price)


def test_a_second_price_of_the_same_key_is_a_revision(console):
    console.post(url(ModelPrice, "add"), PRICE)
    console.post(url(ModelPrice, "add"), {**PRICE, "input_usd_per_1m": "3"})
    assert list(ModelPrice.objects.filter(provider="acme").order_by("revision").values_list("revision", flat=True)) == [
        1,
        2,
    ]


def test_a_slip_of_the_unit_is_asked_about_first(console):
    add()
    doubtful = {**PRICE, "input_usd_per_1m": "2000", "is_meant": ""}
    response = console.post(url(ModelPrice, "add"), doubtful)
    assert "input_usd_per_1m" in response.context["adminform"].form.errors
    assert console.post(url(ModelPrice, "add"), {**doubtful, "is_meant": "on"}).status_code == 302


@pytest.mark.parametrize(
    "changes",
    [
        {"input_usd_per_1m": "-1"},
        {"input_usd_per_1m": "", "output_usd_per_1m": ""},
        {"is_withdrawn": "on"},
        {"provider": ""},
        {"window_start": "08:00"},
        {"effective_from_0": "soon"},
        {"context_above": "-1"},
        {"input_usd_per_1m": "999999999999"},
    ],
)
def test_a_bad_price_is_explained_and_not_stored(console, changes):
    response = console.post(url(ModelPrice, "add"), {**PRICE, **changes}, follow=True)
    assert response.status_code == 200
    assert not ModelPrice.objects.filter(provider="acme").exists()
    explained = [str(message) for message in response.context.get("messages") or []]
    assert explained or response.context["errors"]


def test_prices_are_never_changed_or_deleted(console):
    price = add()
    assert console.get(url(ModelPrice, "change", price.pk)).status_code == 200
    assert console.post(url(ModelPrice, "change", price.pk), PRICE).status_code == 403
    assert console.post(url(ModelPrice, "delete", price.pk), {"post": "yes"}).status_code == 403


@pytest.mark.parametrize(
    ("action", "state", "audit"),
    [("approve", PriceState.ACTIVE, "price.approved"), ("reject", PriceState.REJECTED, "price.rejected")],
)
def test_waiting_prices_are_decided_together(console, operator, action, state, audit):
    add()
    waiting = [
        add(state=PriceState.PENDING, revision=2, input_usd_per_1m=9),
        add(state=PriceState.PENDING, service_tier="batch"),
    ]
    page = console.get(url(ModelPrice), {"state__exact": "pending"})
    assert b"2.000000000000000000 / 8.000000000000000000" in page.content
    body = {"action": action, "_selected_action": [price.pk for price in waiting]}
    assert "these prices?" in console.post(url(ModelPrice), body).content.decode()
    assert ModelPrice.objects.filter(state=PriceState.PENDING).count() == 2
    response = console.post(url(ModelPrice), body | {"confirmed": "yes"}, follow=True)
    assert next(str(message) for message in response.context["messages"]).endswith("2 prices.")
    assert {price.state for price in ModelPrice.objects.filter(pk__in=[each.pk for each in waiting])} == {state}
    assert AuditEntry.objects.filter(action=audit, actor=operator).count() == 2


def test_deciding_on_what_does_not_wait_is_explained(console):
    price = add()
    body = {"action": "approve", "_selected_action": [price.pk], "confirmed": "yes"}
    response = console.post(url(ModelPrice), body, follow=True)
    assert "does not wait" in next(str(message) for message in response.context["messages"])


def test_an_alias_is_added_and_moved(console):
    add()
    add(model="large-2")
    body = {"provider": "ACME", "alias": "Large", "model": "large-1"}
    assert console.post(url(ModelAlias, "add"), body).status_code == 302
    alias = ModelAlias.objects.get(provider="acme")
    assert (alias.alias, alias.model, alias.source) == ("large", "large-1", "operator")
    assert console.post(url(ModelAlias, "change", alias.pk), {"model": "large-2"}).status_code == 302
    alias.refresh_from_db()
    assert alias.model == "large-2"
    console.get(url(ModelAlias))  # shows, and so takes away, the messages of before
    refused = console.post(url(ModelAlias, "change", alias.pk), {"model": "large-9"}, follow=True)
    assert "has no price" in next(str(message) for message in refused.context["messages"])
