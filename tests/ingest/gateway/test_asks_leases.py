"""The life of a lease: held, settled by its event, released, or over when its time is up."""

from datetime import timedelta
from decimal import Decimal

import pytest
import time_machine
from django.core.wsgi import get_wsgi_application
from django.db.models import Sum

from ingest.gateway.app import Gateway
from ingest.gateway.committer import Committer
from ingest.gateway.ledger import Ask, Submission
from ingest.models import Hold, Lease, WorkspacePolicy
from ingest.services import set_budget_policy
from opsmeter_site.lib.clock import utc_now
from opsmeter_site.lib.database import conninfo
from tests.conftest import MODEL, PROVIDER, payload
from tests.ingest.gateway.limits import EVENT_USD, limit
from tests.ingest.gateway.test_asks import CHECK, LEASE, RELEASE, question
from tests.otlp import PATH, TRACE, chat, export
from tests.wire import InProcess

NOON = utc_now().replace(hour=12, minute=0, second=0, microsecond=0)


@pytest.fixture
def clock():
    with time_machine.travel(NOON, tick=False) as traveller:
        yield traveller


def lease(meter, external_request_id="call-1", usd=1, **changes):
    reply = meter.post(LEASE, question(externalRequestId=external_request_id, estimatedCostUsd=usd, **changes))
    assert reply.status == 200, reply.json
    return reply.json


def release(meter, external_request_id="call-1", **changes):
    return meter.post(RELEASE, {"externalRequestId": external_request_id, **changes}).json


def held(meter, **labels):
    """What live leases hold of the tightest budget, as a check tells it."""
    return meter.post(CHECK, labels).json["budget"]["heldUsd"]


def test_a_lease_holds_its_estimate_until_its_time_is_up(meter, clock):
    limit(meter, 1)
    first = lease(meter, "a", 0.7, leaseSeconds=60)

    assert (first["allowed"], first["duplicate"], first["remainingUsd"]) == (True, False, 0.3)
    assert first["lease"] == {
        "state": "held",
        "heldUsd": 0.7,
        "expiresAt": (NOON + timedelta(seconds=60)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "createdAt": NOON.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    denied = lease(meter, "b", 0.4)
    assert (denied["allowed"], denied["reason"], denied["lease"]) == (False, "budget_exceeded", None)
    assert "live leases hold 0.7 USD" in denied["message"]
    clock.move_to(NOON + timedelta(seconds=59))
    assert held(meter) == 0.7
    clock.move_to(NOON + timedelta(seconds=60))
    assert held(meter) == 0
    assert lease(meter, "b", 1)["allowed"] is True


def test_without_words_a_lease_lasts_two_minutes_and_at_least_as_long_as_asked(meter, clock):
    clock.move_to(NOON + timedelta(milliseconds=1))

    assert lease(meter)["lease"]["expiresAt"] == f"{NOON + timedelta(seconds=121):%Y-%m-%dT%H:%M:%SZ}"


def test_a_denied_lease_holds_nothing(meter):
    limit(meter, 1)
    lease(meter, usd=2)

    assert held(meter) == 0
    assert not Lease.objects.filter(workspace_id=meter.workspace_id).exists()


@pytest.mark.parametrize("entry", ["single", "batch", "otlp"])
def test_its_event_settles_a_lease_wherever_it_comes_in(meter, entry):
    limit(meter, 1)
    name = f"otel_{TRACE}_{7:016x}" if entry == "otlp" else "call-1"
    lease(meter, name, 0.5)
    if entry == "single":
        meter.send(externalRequestId=name)
    elif entry == "batch":
        meter.send_batch([payload(), payload(externalRequestId=name)])
    else:
        assert meter.post(PATH, export(chat(7))).json == {}

    assert held(meter) == 0
    row = Lease.objects.get(workspace_id=meter.workspace_id)
    assert (row.outcome, row.settled_usd, row.usd) == ("settled", EVENT_USD, Decimal("0.5"))
    assert_holds_of_live_leases(meter)


def test_demo_data_settles_a_lease_of_its_own(meter):
    lease(meter, dataMode="demo")
    meter.post("/v1/ingest/demo", payload(externalRequestId="call-1"))

    assert Lease.objects.get(workspace_id=meter.workspace_id).outcome == "settled"


def test_the_answer_to_the_event_no_longer_holds_anything(meter):
    limit(meter, 1)
    lease(meter, usd=0.5)

    budget = meter.send(externalRequestId="call-1").json["budget"]

    assert (budget["heldUsd"], budget["currentSpendUsd"]) == (0, pytest.approx(0.000045))


def test_a_repeated_event_settles_only_once(meter):
    limit(meter, 1)
    lease(meter, "a", 0.5)
    lease(meter, "b", 0.25)
    for _ in range(2):
        meter.send(externalRequestId="a")

    assert held(meter) == 0.25


def test_an_event_may_cost_ten_times_its_estimate(meter):
    limit(meter, EVENT_USD * 2)
    lease(meter, usd=float(EVENT_USD))

    assert meter.send(externalRequestId="call-1", inputTokens=1_000, outputTokens=500).status == 200
    assert meter.post(CHECK, {}).json["allowed"] is False
    assert meter.send().status == 402


def test_an_event_after_its_lease_is_over_is_stored_and_takes_nothing_away(meter, clock):
    limit(meter, 1)
    lease(meter, "late", 0.5, leaseSeconds=1)
    clock.move_to(NOON + timedelta(seconds=2))
    lease(meter, "other", 0.25)

    assert meter.send(externalRequestId="late").status == 200
    assert held(meter) == 0.25
    assert_holds_of_live_leases(meter)


def test_leases_of_others_never_refuse_an_event(meter):
    limit(meter, 1)
    lease(meter, usd=1)

    assert meter.send(externalRequestId="without-asking").status == 200


def test_a_released_lease_is_free_at_once_and_says_so_once(meter):
    limit(meter, 1, scope_kind="tenant_id", scope_value="t")
    lease(meter, usd=0.8, tenantId="t")
    first, second = release(meter), release(meter)

    assert (first["ok"], first["allowed"], first["released"], first["reason"]) == (True, True, True, None)
    assert (first["lease"]["state"], first["lease"]["heldUsd"]) == ("released", 0.8)
    # Its own budgets, although the request named no tenant.
    assert (first["budget"]["scopeValue"], first["budget"]["heldUsd"], first["remainingUsd"]) == ("t", 0, 1)
    assert (second["ok"], second["allowed"], second["released"], second["reason"]) == (True, True, False, "no_lease")
    assert second["lease"] is None
    assert_holds_of_live_leases(meter)


def test_an_id_that_never_had_a_lease_is_no_error(meter):
    answer = release(meter, "nobody")

    assert (answer["released"], answer["reason"]) == (False, "no_lease")
    assert answer["message"].startswith("No lease is held")


def test_the_same_id_again_is_the_same_lease(meter):
    limit(meter, 1, scope_kind="tenant_id", scope_value="t")
    first = lease(meter, usd=0.6, tenantId="t")
    again = lease(meter, usd=0.6, tenantId="t")
    other = lease(meter, usd=0.9, tenantId="elsewhere")

    assert (again["duplicate"], again["lease"], again["warnings"]) == (True, first["lease"], [])
    assert (again["allowed"], again["budget"]["heldUsd"]) == (True, 0.6)
    assert (other["duplicate"], other["lease"]) == (True, first["lease"])
    assert other["warnings"] == ["A lease with another estimate is held under this externalRequestId; it was kept."]
    assert (other["estimatedCostUsd"], other["budget"]["heldUsd"]) == (0.6, 0.6)
    assert held(meter, tenantId="t") == 0.6


def test_after_release_or_expiry_the_id_may_be_leased_again(meter, clock):
    limit(meter, 5)
    lease(meter, usd=1, leaseSeconds=10)
    release(meter)
    second = lease(meter, usd=2, leaseSeconds=10)
    clock.move_to(NOON + timedelta(seconds=11))
    third = lease(meter, usd=3, leaseSeconds=10)

    assert (second["duplicate"], third["duplicate"]) == (False, False)
    assert held(meter) == 3
    assert_holds_of_live_leases(meter)


def test_after_its_event_an_id_gets_no_lease(meter):
    limit(meter, 1)
    meter.send(externalRequestId="call-1")

    answer = lease(meter)

    assert (answer["allowed"], answer["reason"], answer["lease"]) == (False, "already_recorded", None)
    assert held(meter) == 0


def test_a_lease_holds_of_every_budget_that_applies(meter):
    limit(meter, 9)
    limit(meter, 3, scope_kind="tenant_id", is_each_value=True)
    limit(meter, 5, scope_kind="api_key_id", scope_value=str(meter.opened.api_key.pk), period="month")
    lease(meter, usd=1, tenantId="new")

    budgets = meter.post(CHECK, {"tenantId": "new"}).json["budgets"]

    assert {(one["scope"], one["heldUsd"]) for one in budgets} == {("workspace", 1), ("tenantId", 1), ("apiKey", 1)}
    assert {one["heldUsd"] for one in meter.post(CHECK, {"tenantId": "old"}).json["budgets"]} == {1, 0}


def test_a_lease_of_a_data_mode_that_is_not_counted_holds_nothing_until_it_is(meter):
    limit(meter, 1)
    assert lease(meter, usd=5, dataMode="test")["allowed"] is True
    assert held(meter) == 0

    set_budget_policy(meter.workspace_id, observe_mode=False, counted_data_modes=["real", "test"])
    assert held(meter) == 5
    release(meter)
    assert held(meter) == 0


def test_tokens_without_a_price_are_held_for_budgets_that_estimate(meter):
    limit(meter, 1, name="Plain")
    limit(meter, 1, name="Estimates", unpriced="estimate", estimate_usd_per_1m=Decimal("0.5"))
    answer = lease(meter, model="secret-1", usd=..., estimatedInputTokens=900_000, estimatedOutputTokens=100_000)

    assert answer["lease"]["heldUsd"] == 0
    assert [(one["name"], one["heldUsd"]) for one in answer["budgets"]] == [("Estimates", 0.5), ("Plain", 0)]
    release(meter)
    assert_holds_of_live_leases(meter)


def test_leases_are_bounded_by_a_limit_that_was_set_after_them(meter):
    lease(meter, "a", 0.6, tenantId="t")
    limit(meter, 1, scope_kind="tenant_id", scope_value="t")

    assert lease(meter, "b", 0.5, tenantId="t")["allowed"] is False
    meter.send(externalRequestId="a", tenantId="t")
    assert lease(meter, "b", 0.5, tenantId="t")["allowed"] is True


def test_several_questions_in_one_commit_see_each_other(meter):
    limit(meter, 1)
    committer = Committer(conninfo())

    def ask(number, usd):
        return Ask(
            what="lease",
            external_request_id=f"call-{number}",
            api_key_id=1,
            provider=PROVIDER,
            model=MODEL,
            endpoint_tag="unknown",
            prompt_version="unknown",
            environment="prod",
            data_mode="real",
            user_id="unknown",
            tenant_id="unknown",
            usd=Decimal(usd),
            seconds=60,
        )

    group = [Submission(meter.workspace_id, [], ask(number, "0.4")) for number in (1, 2, 3, 1)]
    try:
        decisions = [receipt.decision for receipt in committer.commit(group)]
    finally:
        committer.close()

    assert [decision.is_allowed for decision in decisions] == [True, True, False, True]
    assert [decision.is_repeat for decision in decisions] == [False, False, False, True]
    assert held(meter) == pytest.approx(0.8)


def test_a_workspace_without_live_leases_is_known_as_such(meter, clock):
    limit(meter, 1)
    meter.send()
    assert WorkspacePolicy.objects.get(workspace_id=meter.workspace_id).leases_until is None

    lease(meter, "long", 0.1, leaseSeconds=600)
    lease(meter, "short", 0.1, leaseSeconds=5)

    until = WorkspacePolicy.objects.get(workspace_id=meter.workspace_id).leases_until
    assert until == NOON + timedelta(seconds=600)


def test_questions_while_the_database_is_away_are_503(meter):
    gateway = Gateway("host=127.0.0.1 port=1 connect_timeout=1", get_wsgi_application())
    reply = InProcess(gateway).request("POST", CHECK, {}, {"X-API-Key": meter.opened.api_key_plain})

    assert (reply.status, reply.json["reason"]) == (503, "unavailable")


def assert_holds_of_live_leases(meter):
    """Holds are the sums of the leases that are not closed, second by second, and never negative."""
    for row in Hold.objects.filter(workspace_id=meter.workspace_id, expires_at__gt=utc_now()):
        leases = Lease.objects.filter(workspace_id=meter.workspace_id, expires_at=row.expires_at, closed_at=None)
        assert row.usd >= 0
        if not row.scope_kind:
            assert row.usd == (leases.aggregate(usd=Sum("usd"))["usd"] or 0)
