"""Budgets on one scope: every kind at every entry point, refused exactly when the spend before is above."""

import itertools
from datetime import timedelta
from decimal import Decimal

import pytest
import time_machine
from django.db import transaction

from ingest.models import Event, LimitAdjustment, LimitCrossing, Meter
from ingest.services import drop_limit, lock_ledger, note_limits_changed
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.periods import day_of
from tests.conftest import MODEL, PROVIDER, payload
from tests.ingest.gateway.limits import EVENT_USD, limit
from tests.otlp import PATH, chat, export
from workspaces import services as workspaces

# Every kind of scope: its name on the wire, and one value that events can carry.
KINDS = {
    "endpoint_tag": ("endpointTag", "support/reply"),
    "tenant_id": ("tenantId", 'Åcme "&" Söhne 🚀'),
    "user_id": ("userId", "o'neil\\1"),
    "model": ("model", MODEL),
    "provider": ("provider", PROVIDER),
    "prompt_version": ("promptVersion", "v2.1:draft/7"),
    "environment": ("environment", "staging"),
}
_spans = itertools.count(1)
OTHERS = {"model": "model-two", "provider": "otherhost", "environment": "prod"}


def single(meter, **labels):
    return meter.send(**labels).status == 200


def batch(meter, **labels):
    results = meter.send_batch([payload(**labels)]).json["results"]
    return results[0]["accepted"]


def otlp(meter, **labels):
    names = {"endpointTag": "opsmeter.endpoint_tag", "tenantId": "opsmeter.tenant_id", "userId": "opsmeter.user_id"}
    names |= {"promptVersion": "opsmeter.prompt_version", "environment": "deployment.environment.name"}
    names |= {"model": "gen_ai.response.model", "provider": "gen_ai.provider.name"}
    call = chat(next(_spans), **{names[name].replace(".", "__"): value for name, value in labels.items()})
    return "partialSuccess" not in meter.post(PATH, export(call)).json


@pytest.mark.parametrize("send", [single, batch, otlp])
@pytest.mark.parametrize("kind", KINDS)
def test_a_hard_stop_on_one_value_refuses_only_what_has_it(meter, kind, send):
    name, value = KINDS[kind]
    limit(meter, EVENT_USD * 2, scope_kind=kind, scope_value=value)

    assert [send(meter, **{name: value}) for _ in range(4)] == [True, True, True, False]
    assert send(meter, **{name: OTHERS.get(kind, "another")})


def test_a_hard_stop_on_an_api_key_follows_the_key_through_rotation(meter):
    limit(meter, EVENT_USD / 2, scope_kind="api_key_id", scope_value=str(meter.opened.api_key.pk))
    assert meter.send().status == 200

    new = workspaces.rotate_api_key(meter.opened.api_key, grace=timedelta(hours=1), acting_user=meter.opened.owner)
    _, other = workspaces.create_api_key(
        meter.opened.workspace, name="two", created_by=meter.opened.owner, acting_user=meter.opened.owner
    )

    def status(key):
        return meter.app.request("POST", "/v1/ingest/llm-request", payload(), {"X-API-Key": key}).status

    assert (status(new), status(other)) == (402, 200)


def test_a_limit_on_each_value_holds_every_value_by_itself(meter):
    limit(meter, EVENT_USD, scope_kind="tenant_id", is_each_value=True)

    for tenant in ("a", "never seen before"):
        assert [meter.send(tenantId=tenant).status for _ in range(3)] == [200, 200, 402]
    # Without a tenant they are all `unknown`.
    assert [meter.send().status for _ in range(3)] == [200, 200, 402]


def test_a_value_may_have_a_limit_besides_the_one_on_each_value(meter):
    limit(meter, EVENT_USD * 9, scope_kind="tenant_id", is_each_value=True, name="Everyone")
    limit(meter, EVENT_USD / 2, scope_kind="tenant_id", scope_value="small", name="Small")

    assert [meter.send(tenantId="small").status for _ in range(2)] == [200, 402]
    assert meter.send(tenantId="small").json["budget"]["name"] == "Small"
    assert [meter.send(tenantId="large").status for _ in range(2)] == [200, 200]


def test_the_tightest_of_all_that_match_is_named(meter):
    limit(meter, 5, name="All")
    limit(meter, 3, name="Endpoint", scope_kind="endpoint_tag", scope_value="a")
    limit(meter, 4, name="Tenant", scope_kind="tenant_id", scope_value="t", period="month", enforce=False)

    named = [
        meter.send(**labels).json["budget"]["name"]
        for labels in ({}, {"tenantId": "t"}, {"tenantId": "t", "endpointTag": "a"})
    ]

    assert named == ["All", "Tenant", "Endpoint"]


def test_the_notice_says_where_the_budget_stands(meter):
    row = limit(meter, EVENT_USD * 3, name="Acme", scope_kind="tenant_id", scope_value="acme", source_id="b-1")

    budget = meter.send(tenantId="acme").json["budget"]

    assert list(budget) == [
        "id",
        "name",
        "scope",
        "scopeValue",
        "period",
        "limitUsd",
        "currentSpendUsd",
        "heldUsd",
        "remainingUsd",
        "resetsAt",
    ]
    assert (budget["id"], budget["name"]) == (row.source_id, "Acme")
    assert (budget["scope"], budget["scopeValue"], budget["period"]) == ("tenantId", "acme", "daily")
    assert (budget["currentSpendUsd"], budget["heldUsd"]) == (pytest.approx(0.000045), 0)
    assert budget["remainingUsd"] == pytest.approx(0.00009)
    assert budget["resetsAt"].endswith("T00:00:00Z")


def test_the_402_names_the_scoped_budget_and_nothing_is_left_of_it(meter):
    limit(meter, 0, scope_kind="endpoint_tag", scope_value="a", name="Tag")
    meter.send(endpointTag="a")

    refused = meter.send(endpointTag="a").json

    assert (refused["reason"], refused["budgetExceeded"]) == ("budget_exceeded", True)
    assert (refused["budget"]["name"], refused["budget"]["scopeValue"]) == ("Tag", "a")
    assert refused["budget"]["remainingUsd"] == 0
    assert "message" not in refused


def test_a_batch_says_the_tightest_of_its_events(meter):
    limit(meter, 5, name="Wide", scope_kind="endpoint_tag", scope_value="a")
    limit(meter, 1, name="Narrow", scope_kind="endpoint_tag", scope_value="b")

    reply = meter.send_batch([payload(endpointTag="a"), payload(endpointTag="b")])

    assert reply.json["budget"]["name"] == "Narrow"
    assert list(reply.json).index("budget") < list(reply.json).index("results")


def test_the_flags_of_an_answer_include_the_scopes_of_its_event(meter):
    limit(meter, EVENT_USD / 2, enforce=False, scope_kind="tenant_id", scope_value="acme")

    assert meter.send(tenantId="acme").json["budgetExceeded"] is True
    assert meter.send(tenantId="other").json["budgetExceeded"] is False


def test_a_monthly_and_a_daily_budget_of_one_scope_both_count(meter):
    limit(meter, EVENT_USD * 9, scope_kind="tenant_id", scope_value="t", name="Month", period="month")
    limit(meter, EVENT_USD, scope_kind="tenant_id", scope_value="t", name="Day")
    now = utc_now().replace(day=10, hour=12)
    with time_machine.travel(now, tick=False):
        assert [meter.send(tenantId="t").status for _ in range(3)] == [200, 200, 402]
    with time_machine.travel(now + timedelta(days=1), tick=False):
        assert meter.send(tenantId="t").status == 200


def test_unpriced_events_are_nothing_an_estimate_or_refused(meter):
    common = {"scope_kind": "tenant_id", "amount": 1}
    limit(meter, **common, scope_value="ignores")
    limit(meter, **common, scope_value="estimates", unpriced="estimate", estimate_usd_per_1m=Decimal(1_000_000))
    limit(meter, **common, scope_value="blocks", unpriced="block", name="Known prices only")

    def statuses(tenant):
        return [meter.send(tenantId=tenant, model="secret-1", inputTokens=1, outputTokens=1).status for _ in range(2)]

    assert statuses("ignores") == [200, 200]
    assert statuses("estimates") == [200, 402]
    assert statuses("blocks") == [402, 402]
    assert meter.send(tenantId="blocks").status == 200


def test_a_refusal_for_want_of_a_price_says_which_model(meter):
    limit(meter, 1, unpriced="block", name="Known prices only")

    refused = meter.send(model="secret-1")
    mixed = meter.send_batch([payload(model="secret-1"), payload()])

    sentence = f'The budget "Known prices only" refuses events without a known price, and none is known for {PROVIDER}/'
    assert (refused.status, refused.json["reason"]) == (402, "budget_exceeded")
    assert refused.json["message"] == f"{sentence}secret-1."
    assert refused.json["budget"]["name"] == "Known prices only"
    assert mixed.json["results"][0]["warnings"] == [f"{sentence}secret-1."]
    assert mixed.json["results"][1]["accepted"] is True


def test_a_soft_budget_blocks_nothing_and_estimates_still(meter):
    limit(meter, 1, enforce=False, unpriced="estimate", estimate_usd_per_1m=Decimal(1_000_000))

    reply = meter.send(model="secret-1", inputTokens=2, outputTokens=1)

    assert (reply.status, reply.json["budgetExceeded"]) == (200, True)
    assert reply.json["budget"]["currentSpendUsd"] == 3
    day = Meter.objects.get(workspace_id=meter.workspace_id, scope_kind="", measure="usd", period="day")
    assert (day.value, day.unpriced_tokens) == (0, 3)


def test_a_raise_ends_by_the_clock_without_anybody_touching_it(meter):
    noon = utc_now().replace(hour=12, minute=0, second=0, microsecond=0)
    with time_machine.travel(noon, tick=False) as clock:
        limit(meter, EVENT_USD / 2, raised_amount=EVENT_USD * 5, raised_until=noon + timedelta(hours=1))
        assert [meter.send().status for _ in range(2)] == [200, 200]
        assert meter.send().json["budget"]["limitUsd"] == pytest.approx(float(EVENT_USD * 5))
        clock.move_to(noon + timedelta(hours=1))
        assert meter.send().status == 402


def test_an_adjustment_counts_like_spend_in_its_period_only(meter):
    row = limit(meter, 1, scope_kind="tenant_id", scope_value="t")
    meter.send(tenantId="t")

    adjust(row, "2.5")
    assert meter.send(tenantId="t").json["budget"]["currentSpendUsd"] == pytest.approx(2.500045)
    adjust(row, "-2")

    assert meter.send(tenantId="t").status == 200
    yesterday = (utc_now() - timedelta(days=1)).isoformat()
    assert meter.send(tenantId="t", createdAt=yesterday).status == 200


def test_an_adjustment_of_a_limit_on_each_value_is_of_one_value(meter):
    row = limit(meter, 1, scope_kind="tenant_id", is_each_value=True)
    adjust(row, "2", scope_value="t")

    assert [meter.send(tenantId=tenant).status for tenant in ("t", "u")] == [402, 200]


def adjust(row, usd, scope_value=""):
    with transaction.atomic():
        lock_ledger(row.workspace_id)
        LimitAdjustment.objects.create(
            limit=row,
            period_start=day_of(utc_now()).start,
            scope_value=scope_value,
            usd=Decimal(usd),
            reason="credit",
        )
        note_limits_changed(row.workspace_id)


def test_limits_that_change_between_two_events_hold_at_once(meter):
    first = limit(meter, EVENT_USD / 2, scope_kind="tenant_id", scope_value="t", source_id="one")
    meter.send(tenantId="t")
    assert meter.send(tenantId="t").status == 402

    drop_limit(meter.workspace_id, "budgets", first.source_id)
    assert meter.send(tenantId="t").json["budget"] is None

    limit(meter, 0, scope_kind="endpoint_tag", scope_value="e")
    assert [meter.send(tenantId="t", endpointTag="e").status for _ in range(2)] == [200, 402]


def test_thresholds_in_usd_and_shares_are_crossed_once_and_named_by_value(meter):
    limit(
        meter,
        EVENT_USD * 4,
        enforce=False,
        scope_kind="tenant_id",
        is_each_value=True,
        thresholds=(Decimal("0.5"), Decimal(1)),
        thresholds_usd=(EVENT_USD, EVENT_USD * 100),
    )
    for _ in range(5):
        meter.send(tenantId="t")
    meter.send(tenantId="u")

    crossings = LimitCrossing.objects.filter(limit__workspace_id=meter.workspace_id).order_by(
        "scope_value", "threshold"
    )
    assert [(one.scope_value, one.threshold, one.threshold_usd) for one in crossings] == [
        ("t", Decimal("0.25"), EVENT_USD),
        ("t", Decimal("0.5"), None),
        ("t", Decimal(1), None),
        ("u", Decimal("0.25"), EVENT_USD),
    ]


@pytest.mark.parametrize("is_each_value", [False, True], ids=["one", "each"])
def test_a_threshold_in_usd_is_crossed_once_a_period_whatever_the_limit_is(meter, is_each_value):
    scope = {"scope_kind": "tenant_id", "scope_value": "" if is_each_value else "t", "is_each_value": is_each_value}
    rule = {"enforce": False, "thresholds": (Decimal("0.5"), Decimal(1)), "thresholds_usd": (EVENT_USD * 2,), **scope}
    one = limit(meter, EVENT_USD * 8, source_id="one", **rule)
    for _ in range(2):
        meter.send(tenantId="t")
    # Shares of another amount are other promises, an amount is the same.
    for amount in (EVENT_USD * 3, EVENT_USD * 6, EVENT_USD * 8):
        limit(meter, amount, source_id="one", **rule)
    adjust(one, -EVENT_USD, "t" if is_each_value else "")
    for _ in range(2):
        meter.send(tenantId="t")

    crossings = LimitCrossing.objects.filter(limit=one).order_by("pk")
    assert [(row.threshold_usd, row.threshold, row.amount / EVENT_USD) for row in crossings] == [
        (EVENT_USD * 2, Decimal("0.25"), 8),
        (None, Decimal("0.5"), 3),
    ]


def test_a_share_and_an_amount_that_meet_are_two_thresholds(meter):
    rule = {"enforce": False, "thresholds": (Decimal("0.5"), Decimal(1)), "thresholds_usd": (EVENT_USD,)}
    rule |= {"source_id": "one", "scope_kind": "tenant_id", "scope_value": "t"}
    one = limit(meter, EVENT_USD * 2, **rule)
    meter.send(tenantId="t")
    limit(meter, EVENT_USD * 4, **rule)
    meter.send(tenantId="t")

    crossings = LimitCrossing.objects.filter(limit=one).order_by("pk")
    assert [(row.threshold_usd, row.amount / EVENT_USD) for row in crossings] == [
        (EVENT_USD, 2),
        (None, 2),
        (None, 4),
    ]


def test_refused_events_count_in_no_scope(meter):
    limit(meter, 0, scope_kind="tenant_id", scope_value="t")
    limit(meter, 9, scope_kind="endpoint_tag", scope_value="e")
    meter.send(tenantId="t", endpointTag="e")
    assert meter.send(tenantId="t", endpointTag="e").status == 402

    values = Meter.objects.filter(workspace_id=meter.workspace_id, measure="usd").values_list("value", flat=True)
    assert set(values) == {EVENT_USD}
    assert len(values) == 6
    assert Event.objects.filter(workspace_id=meter.workspace_id).count() == 1
