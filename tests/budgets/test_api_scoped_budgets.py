import json
from datetime import timedelta
from decimal import Decimal
from uuid import uuid4

import pytest
import time_machine

from budgets.models import Budget
from ingest.models import Lease
from opsmeter_site.lib.clock import utc_now
from tests.budgets.scoped_api import NOON, PATH, WISH, body_of, create, place
from tests.client import ApiClient, assert_refused
from tests.factories import make_cast, make_workspace, token_for

pytestmark = pytest.mark.django_db


@pytest.fixture
def opened():
    return make_workspace("pro")


@pytest.fixture
def owner(opened):
    return ApiClient(token=opened.access_token_plain)


# --- Creating and reading ---------------------------------------------------------------------------------------------


def test_a_budget_is_answered_key_for_key(owner):
    with time_machine.travel(NOON, tick=False):
        response = owner.send("POST", PATH, WISH)
        body = body_of(response, 201)
        assert body == {
            "id": body["id"],
            "name": "Tenant acme, daily",
            "scope": "tenantId",
            "scopeValue": "acme",
            "eachValue": False,
            "period": "daily",
            "limitUsd": 50,
            "thresholds": [{"percent": 50}, {"percent": 80}, {"percent": 100}],
            "enforcement": "soft",
            "unpriced": "ignore",
            "estimateUsdPer1MTokens": None,
            "raise": None,
            "managedBy": "budgets",
            "createdAt": "2026-03-10T12:00:00Z",
            "updatedAt": "2026-03-10T12:00:00Z",
            "countsFrom": None,
            "lastSeenAt": None,
            "current": {
                "periodStart": "2026-03-10T00:00:00Z",
                "resetsAt": "2026-03-11T00:00:00Z",
                "limitUsd": 50,
                "currentSpendUsd": 0,
                "heldUsd": 0,
                "remainingUsd": 50,
                "adjustedUsd": 0,
                "utilizationRatio": 0,
                "isWarning": False,
                "isExceeded": False,
                "isEnforced": False,
                "asOf": "2026-03-10T12:00:00Z",
            },
            "values": [],
            "warnings": ["No traffic of the last 30 days matches this scope."],
        }
        assert response["Location"] == place(body)
        assert body_of(owner.get(place(body))) == body


def test_all_that_can_be_said_comes_back_with_its_digits(owner):
    wish = {
        "name": 'Zoë’s "budget" / 🦊',
        "scope": "userId",
        "eachValue": True,
        "period": "monthly",
        "limitUsd": Decimal("9999999.999999999999"),
        "thresholds": [{"usd": Decimal("0.000000000001")}, {"percent": Decimal("99.99")}, {"percent": 5}],
        "enforcement": "hard",
        "unpriced": "estimate",
        "estimateUsdPer1MTokens": Decimal("0.000001"),
    }
    raw = json.dumps(wish, default=lambda value: f"<{value:f}>").replace('"<', "").replace('>"', "")
    body = body_of(owner.send("POST", PATH, raw.encode()), 201)
    ordered = [{"percent": 5}, {"percent": Decimal("99.99")}, {"percent": 100}, {"usd": Decimal("1E-12")}]
    assert {name: body[name] for name in wish} == {**wish, "thresholds": ordered}
    assert (body["scopeValue"], body["values"], body["current"]["isEnforced"]) == (None, [], True)


@pytest.mark.parametrize("value", ["a/b/c", 'O\'Neil "&" <b>', "🦊", "שלום", "%2F?#", "a\\b"])
def test_any_value_is_found_again(owner, value):
    budget = create(owner, scopeValue=value)
    found = body_of(owner._client.get(PATH, {"scopeValue": value}, headers=owner.headers))
    assert [one["id"] for one in found["budgets"]] == [budget["id"]]
    assert found["budgets"][0]["scopeValue"] == value


@pytest.mark.parametrize(
    ("field", "wish"),
    [
        ("limitUsd", WISH | {"limitUsd": 0}),
        ("limitUsd", WISH | {"limitUsd": -1}),
        ("limitUsd", WISH | {"limitUsd": "50"}),
        ("limitUsd", WISH | {"limitUsd": True}),
        ("limitUsd", WISH | {"limitUsd": None}),
        ("limitUsd", WISH | {"limitUsd": 10_000_001}),
        ("limitUsd", {"scope": "tenantId", "scopeValue": "acme"}),
        ("scope", WISH | {"scope": "tenant_id"}),
        ("scope", WISH | {"scope": "workspace"}),
        ("scope", {"limitUsd": 5}),
        ("scopeValue", {"scope": "tenantId", "limitUsd": 5}),
        ("scopeValue", WISH | {"eachValue": True}),
        ("scopeValue", WISH | {"scopeValue": 7}),
        ("scopeValue", WISH | {"scopeValue": "x" * 201}),
        ("scopeValue", WISH | {"scope": "apiKey", "scopeValue": "1"}),
        ("eachValue", WISH | {"eachValue": "true"}),
        ("period", WISH | {"period": "day"}),
        ("thresholds", WISH | {"thresholds": [{"percent": 101}]}),
        ("thresholds", WISH | {"thresholds": [{"percent": 50}, {"percent": 50}]}),
        ("thresholds", WISH | {"thresholds": [{"usd": 50}]}),
        ("thresholds", WISH | {"thresholds": {"percent": 50}}),
        ("thresholds", WISH | {"thresholds": [{"percent": n} for n in range(1, 13)]}),
        ("thresholds[0]", WISH | {"thresholds": [50]}),
        ("thresholds[1]", WISH | {"thresholds": [{"percent": 50}, {"percent": 60, "usd": 5}]}),
        ("thresholds[0]", WISH | {"thresholds": [{"percent": "50"}]}),
        ("enforcement", WISH | {"enforcement": "HARD"}),
        ("unpriced", WISH | {"unpriced": "block"}),
        ("estimateUsdPer1MTokens", WISH | {"unpriced": "estimate"}),
        ("estimateUsdPer1MTokens", WISH | {"estimateUsdPer1MTokens": 2}),
        ("name", WISH | {"name": "n" * 101}),
        ("name", WISH | {"name": None}),
        ("limit", WISH | {"limit": 5}),
        ("raise", WISH | {"raise": None}),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_bad_field_is_named_as_the_client_wrote_it(owner, field, wish):
    assert_refused(owner.send("POST", PATH, wish), 400, "invalid_payload", field)
    assert not Budget.objects.filter(limit_usd=50).exists()


@pytest.mark.parametrize("percent", [0, 101, 50.001])
def test_a_share_that_is_none_is_refused_in_percent(owner, percent):
    answer = assert_refused(
        owner.send("POST", PATH, WISH | {"thresholds": [{"percent": percent}]}), 400, "invalid_payload", "thresholds"
    )
    assert answer["errors"][0]["message"] == "A share must be above 0% and at most 100%, with at most 2 decimals."


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity"])
def test_what_is_no_json_number_is_no_json(owner, number):
    raw = b'{"scope": "tenantId", "scopeValue": "acme", "limitUsd": ' + number + b"}"
    assert_refused(owner.send("POST", PATH, raw), 400, "invalid_json")


def test_a_name_that_is_taken_is_a_conflict(owner):
    create(owner, name="Acme")
    assert_refused(owner.send("POST", PATH, WISH | {"name": "ACME"}), 409, "conflict", "name")


# --- Listing ----------------------------------------------------------------------------------------------------------


def test_lists_are_filtered(owner):
    owner.patch("/v1/settings/budgets", {"dailyLimitUsd": 5})
    create(owner)
    create(owner, period="monthly")
    create(owner, scope="model", scopeValue="gpt-4o-mini")
    for query, names in {
        "": {"Daily budget", "Tenant acme, daily", "Tenant acme, monthly", "Model gpt-4o-mini, daily"},
        "?scope=tenantId": {"Tenant acme, daily", "Tenant acme, monthly"},
        "?scope=workspace": {"Daily budget"},
        "?scopeValue=acme&period=monthly": {"Tenant acme, monthly"},
        "?scope=userId": set(),
    }.items():
        body = body_of(owner.get(PATH + query))
        assert {budget["name"] for budget in body["budgets"]} == names
        assert (body["count"], body["nextCursor"]) == (len(names), None)


def test_pages_hold_every_budget_once_while_others_are_added(owner):
    made = [create(owner, scopeValue=str(n))["id"] for n in range(5)]
    seen, query = [], "?limit=2"
    for _ in range(3):
        page = body_of(owner.get(PATH + query))
        seen += [budget["id"] for budget in page["budgets"]]
        query = f"?limit=2&cursor={page['nextCursor']}"
        create(owner, scopeValue="later")
    assert seen == made[::-1]
    assert page["nextCursor"] is None


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=five", "limit"),
        ("limit=", "limit"),
        ("limit=-1", "limit"),
        ("limit=²", "limit"),
        ("cursor=x", "cursor"),
        ("scope=tenant_id", "scope"),
        ("period=day", "period"),
        ("scopeValue=" + "x" * 201, "scopeValue"),
        ("scopeValue=%00", "scopeValue"),
    ],
)
def test_a_bad_parameter_is_named(owner, query, field):
    assert_refused(owner.get(f"{PATH}?{query}"), 400, "invalid_payload", field)


# --- Changing and deleting --------------------------------------------------------------------------------------------


def test_a_change_is_only_what_it_names(owner):
    budget = create(owner, enforcement="hard", unpriced="estimate", estimateUsdPer1MTokens=2)
    after = body_of(owner.patch(place(budget), {"limitUsd": 60, "unpriced": "block"}))
    changed = {name for name in after if after[name] != budget[name]} - {"updatedAt", "current"}
    assert changed == {"limitUsd", "unpriced", "estimateUsdPer1MTokens"}
    assert (after["limitUsd"], after["unpriced"], after["estimateUsdPer1MTokens"]) == (60, "block", None)
    assert body_of(owner.patch(place(budget), {}))["updatedAt"] == after["updatedAt"]


@pytest.mark.parametrize(("field", "value"), [("scope", "userId"), ("scopeValue", "b"), ("period", "monthly")])
def test_scope_and_period_stay(owner, field, value):
    budget = create(owner)
    assert_refused(owner.patch(place(budget), {field: value}), 400, "invalid_payload", field)


def test_the_budgets_of_the_whole_workspace_are_managed_by_settings(owner):
    owner.patch("/v1/settings/budgets", {"dailyLimitUsd": 5, "warningThresholdRatio": 0.7, "enforcement": "hard"})
    (budget,) = body_of(owner.get(PATH))["budgets"]
    assert (budget["managedBy"], budget["scope"], budget["scopeValue"]) == ("settings", "workspace", None)
    assert budget["thresholds"] == [{"percent": 70}, {"percent": 100}]
    assert (budget["enforcement"], budget["current"]["isEnforced"]) == ("hard", True)
    for wish in ({"limitUsd": 6}, {"enforcement": "soft"}, {"name": "Mine"}):
        refusal = assert_refused(owner.patch(place(budget), wish), 409, "conflict")
        assert "/v1/settings/budgets" in refusal["message"]
    assert_refused(owner.send("DELETE", place(budget)), 409, "conflict")
    assert body_of(owner.patch(place(budget), {"unpriced": "block"}))["unpriced"] == "block"
    assert body_of(owner.patch("/v1/settings/budgets", {"dailyLimitUsd": 6}))["dailyLimitUsd"] == 6
    after = body_of(owner.get(place(budget)))
    assert (after["limitUsd"], after["unpriced"]) == (6, "block")


def lease(opened, number=0, **changes):
    now = utc_now()
    fields = {
        "workspace": opened.workspace,
        "external_request_id": f"lease-{number}",
        "api_key_id": opened.workspace.api_keys.get().pk,
        "provider": "openai",
        "model": "gpt-4o-mini",
        "endpoint_tag": "checkout",
        "prompt_version": "v1",
        "environment": "prod",
        "data_mode": "real",
        "user_id": "ann",
        "tenant_id": "acme",
        "usd": Decimal("0.25"),
        "unpriced_tokens": 0,
        "created_at": now - timedelta(seconds=number),
        "expires_at": now + timedelta(minutes=5),
    }
    return Lease.objects.create(**fields | changes)


def test_deleting_says_what_leases_still_hold(owner, opened):
    budget = create(owner)
    lease(opened)
    lease(opened, 1)
    lease(opened, 2, tenant_id="other")
    lease(opened, 3, closed_at=utc_now())
    assert body_of(owner.send("DELETE", place(budget))) == {"ok": True, "liveLeases": 2, "heldUsd": Decimal("0.5")}
    for method, path in (("GET", place(budget)), ("DELETE", place(budget)), ("GET", place(budget, "adjustments"))):
        assert_refused(owner.send(method, path), 404, "not_found")
    entries = body_of(owner.get(place(budget, "history")))["entries"]
    assert [entry["action"] for entry in entries] == ["budget.deleted", "budget.created"]


# --- Simulating, leases -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "changes"), [("days", {"days": 31}), ("days", {"days": True}), ("scope", {"scope": "x"})]
)
def test_a_bad_simulation_is_refused_by_field(owner, field, changes):
    assert_refused(owner.send("POST", f"{PATH}/simulate", WISH | changes), 400, "invalid_payload", field)


def test_a_simulation_stores_nothing_and_needs_only_to_read(opened):
    reader = ApiClient(token=token_for(opened.owner, opened.workspace, "read"))
    body = body_of(reader.send("POST", f"{PATH}/simulate", WISH | {"days": 90}))
    assert (body["sentRequests"], body["alerts"], body["periods"], body["periodCount"]) == (0, 0, [], 0)
    assert (body["exactFrom"], body["knownFrom"]) == (None, None)
    assert not Budget.objects.filter(workspace=opened.workspace).exists()


def test_live_leases_are_listed_page_by_page(owner, opened):
    for number in range(3):
        lease(opened, number)
    lease(opened, 3, closed_at=utc_now())
    lease(opened, 4, expires_at=utc_now() - timedelta(seconds=1))
    lease(make_workspace(), 5)
    first = body_of(owner.get(f"{PATH}/leases?limit=2"))
    rest = body_of(owner.get(f"{PATH}/leases?limit=2&cursor={first['nextCursor']}"))
    shown = [one["externalRequestId"] for one in (*first["leases"], *rest["leases"])]
    assert shown == ["lease-0", "lease-1", "lease-2"]
    assert (first["count"], rest["nextCursor"]) == (3, None)
    assert (
        first["leases"][0].items()
        >= {
            "heldUsd": Decimal("0.25"),
            "tenantId": "acme",
            "endpointTag": "checkout",
            "apiKey": str(opened.workspace.api_keys.get().pk),
        }.items()
    )


# --- Who may ---------------------------------------------------------------------------------------------------------


def test_keys_and_members_read_and_only_managers_change():
    people = make_cast("pro")
    budget = create(ApiClient(token=token_for(people.admin, people.workspace)))
    readers = [
        ApiClient(api_key=people.opened.api_key_plain),
        ApiClient(token=token_for(people.viewer, people.workspace)),
        ApiClient(token=token_for(people.owner, people.workspace, "read")),
    ]
    for reader in readers:
        for path in (PATH, place(budget), place(budget, "history"), place(budget, "adjustments"), f"{PATH}/leases"):
            assert reader.get(path).status_code == 200
        for method, path in (
            ("POST", PATH),
            ("PATCH", place(budget)),
            ("DELETE", place(budget)),
            ("POST", place(budget, "raise")),
            ("DELETE", place(budget, "raise")),
            ("POST", place(budget, "adjustments")),
        ):
            assert_refused(reader.send(method, path, WISH), 403, "not_allowed")


@pytest.mark.parametrize(
    ("method", "rest"),
    [
        ("GET", ()),
        ("PATCH", ()),
        ("DELETE", ()),
        ("POST", ("raise",)),
        ("DELETE", ("raise",)),
        ("GET", ("adjustments",)),
        ("POST", ("adjustments",)),
        ("GET", ("history",)),
    ],
)
def test_budgets_of_others_are_not_there(owner, method, rest):
    foreign = create(ApiClient(token=make_workspace("pro").access_token_plain))
    for one in (foreign, {"id": str(uuid4())}):
        assert_refused(owner.send(method, place(one, *rest), {"limitUsd": 60}), 404, "not_found")
    assert Budget.objects.get(pk=foreign["id"]).limit_usd == 50


def test_other_methods_are_405_and_other_ids_404(owner):
    budget = create(owner)
    response = owner.send("PUT", place(budget), WISH)
    assert_refused(response, 405, "method_not_allowed")
    assert response["Allow"] == "GET, HEAD, PATCH, DELETE"
    assert_refused(owner.get(f"{PATH}/seventeen"), 404, "not_found")
