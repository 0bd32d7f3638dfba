"""Rate limits, plan limits and hard stops: refused exactly when the contract says so."""

from datetime import timedelta
from decimal import Decimal

import pytest
import time_machine

from billing.plans import Overrides
from billing.services import change_workspace_plan
from budgets.services import update_budget_settings
from ingest.models import Event, LimitCrossing, Refusal
from ingest.services import set_budget_policy
from opsmeter_site.lib.clock import utc_now
from tests.conftest import payload
from workspaces import services as workspaces

EVENT_USD = Decimal("0.000045")


def test_the_first_request_over_the_rate_is_429_with_all_headers(client_of):
    meter = client_of(requests_per_minute=3)
    replies = [meter.send() for _ in range(4)]

    assert [reply.status for reply in replies] == [200, 200, 200, 429]
    assert [reply.headers["X-RateLimit-Remaining"] for reply in replies] == ["2", "1", "0", "0"]
    refused = replies[3]
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert refused.headers["X-RateLimit-Limit"] == "3"
    assert 0 < int(refused.headers["X-RateLimit-Reset"]) - utc_now().timestamp() <= 61
    assert refused.json["reason"] == "rate_limited"
    assert refused.json["providerCallsContinue"] is True
    assert Event.objects.filter(workspace_id=meter.workspace_id).count() == 3


def test_the_rate_comes_before_the_payload_and_counts_bad_ones(client_of):
    meter = client_of(requests_per_minute=1)

    assert meter.post("/v1/ingest/llm-request", b"{").status == 400
    assert meter.post("/v1/ingest/llm-request", b"{").status == 429


def test_a_batch_is_one_request_for_the_rate_and_many_for_the_quota(client_of):
    meter = client_of(requests_per_minute=2, monthly_requests=100)

    reply = meter.send_batch([payload() for _ in range(50)])

    assert reply.headers["X-RateLimit-Remaining"] == "1"
    assert reply.json["freeLimitRemainingRequests"] == 50


def test_the_rate_belongs_to_the_workspace_not_to_the_key(client_of):
    meter = client_of(requests_per_minute=1)
    _, second_key = workspaces.create_api_key(
        meter.opened.workspace, name="two", created_by=meter.opened.owner, acting_user=meter.opened.owner
    )

    assert meter.send().status == 200
    assert meter.app.request("POST", "/v1/ingest/llm-request", payload(), {"X-API-Key": second_key}).status == 429


def test_the_plan_limit_is_402_in_the_seeds_words(client_of):
    meter = client_of("starter", monthly_requests=2)
    meter.send()
    last = meter.send()
    refused = meter.send()

    assert (last.status, last.json["freeLimitRemainingRequests"]) == (200, 0)
    assert last.json["isPlanLimitReached"] is True
    assert last.json["telemetryPaused"] is True
    assert refused.status == 402
    assert refused.json == {
        "ok": False,
        "accepted": False,
        "reason": "plan_limit_reached",
        "telemetryPaused": True,
        "providerCallsContinue": True,
        "isPlanLimitReached": True,
        "budgetWarning": False,
        "budgetExceeded": False,
        "planLimitRequests": 2,
        "freeLimitRemainingRequests": 0,
    }


def test_a_repeat_of_a_stored_row_stays_200_after_the_limit(client_of):
    meter = client_of(monthly_requests=1)
    meter.send(externalRequestId="kept")

    assert meter.send(externalRequestId="new").status == 402
    again = meter.send(externalRequestId="kept")
    assert (again.status, again.json["duplicate"], again.json["telemetryPaused"]) == (200, True, True)


def test_refused_events_are_tallied_with_what_they_would_have_cost(client_of):
    meter = client_of(monthly_requests=0)
    meter.send()
    meter.send()

    tally = Refusal.objects.get(workspace_id=meter.workspace_id)
    assert (tally.reason, tally.requests, tally.cost_usd) == ("plan_limit_reached", 2, 2 * EVENT_USD)
    assert (tally.uncached_input_tokens, tally.output_tokens) == (200, 100)


def test_a_larger_plan_lifts_the_pause_for_the_next_request(client_of):
    meter = client_of(monthly_requests=1)
    meter.send()
    assert meter.send().status == 402

    change_workspace_plan(
        meter.opened.workspace,
        plan_tier="team",
        overrides=Overrides(monthly_requests=5, requests_per_minute=77),
        acting_user=meter.opened.owner,
    )

    reply = meter.send()
    assert (reply.status, reply.json["planTier"]) == (200, "Team")
    assert reply.headers["X-RateLimit-Limit"] == "77"


def test_demo_rows_use_no_quota_and_are_never_refused_for_it(client_of):
    meter = client_of(monthly_requests=0)

    reply = meter.send(dataMode="demo")

    assert (reply.status, reply.json["isPlanLimitReached"]) == (200, True)


def test_a_new_month_is_a_new_count(client_of):
    with time_machine.travel("2026-03-31T23:59:50Z", tick=False):
        meter = client_of(monthly_requests=1)
        assert meter.send().status == 200
        assert meter.send().status == 402
    with time_machine.travel("2026-04-01T00:00:00Z", tick=False):
        assert meter.send().status == 200


def test_without_a_plan_limit_the_answer_says_zero(client_of):
    reply = client_of("enterprise").send()

    assert (reply.json["planLimitRequests"], reply.json["isPlanLimitReached"]) == (0, False)


def budget(meter, **changes):
    update_budget_settings(meter.opened.workspace, acting_user=meter.opened.owner, **changes)


def test_warning_at_the_threshold_and_exceeded_only_above_the_limit(meter):
    budget(meter, daily_limit_usd=EVENT_USD * 5, warning_threshold_ratio=Decimal("0.8"))
    flags = [(reply.json["budgetWarning"], reply.json["budgetExceeded"]) for reply in (meter.send() for _ in range(6))]

    assert flags == [(False, False)] * 3 + [(True, False)] * 2 + [(True, True)]


def test_a_soft_stop_says_so_and_keeps_taking_telemetry(meter):
    budget(meter, daily_limit_usd=EVENT_USD / 2)

    assert [meter.send().status for _ in range(3)] == [200, 200, 200]


def test_a_hard_stop_refuses_once_the_spend_before_is_above_the_limit(meter):
    budget(meter, monthly_limit_usd=EVENT_USD * 2, enforcement="hard")
    replies = [meter.send() for _ in range(4)]

    assert [reply.status for reply in replies] == [200, 200, 200, 402]
    refused = replies[3].json
    assert refused["reason"] == "budget_exceeded"
    assert (refused["telemetryPaused"], refused["isPlanLimitReached"], refused["budgetExceeded"]) == (
        False,
        False,
        True,
    )
    named = refused["budget"]
    assert (named["name"], named["scope"], named["period"]) == ("Monthly budget", "workspace", "monthly")
    assert named["limitUsd"] == pytest.approx(0.00009)
    assert named["currentSpendUsd"] == pytest.approx(0.000135)
    assert named["resetsAt"].endswith("-01T00:00:00Z")
    assert Refusal.objects.get(workspace_id=meter.workspace_id).reason == "budget_exceeded"


def test_observe_mode_evaluates_and_enforces_nothing(meter):
    budget(meter, daily_limit_usd=EVENT_USD / 2, enforcement="hard", observe_mode=True)
    replies = [meter.send() for _ in range(3)]

    assert [reply.status for reply in replies] == [200, 200, 200]
    assert replies[-1].json["budgetExceeded"] is True


def test_observe_mode_does_not_lift_the_plan_limit(client_of):
    meter = client_of(monthly_requests=0)
    budget(meter, observe_mode=True)

    assert meter.send().status == 402


def test_test_rows_do_not_count_unless_the_workspace_says_so(meter):
    budget(meter, daily_limit_usd=EVENT_USD / 2, enforcement="hard")
    assert [meter.send(dataMode="test").status for _ in range(2)] == [200, 200]

    budget(meter, counted_data_modes=["real", "test"])

    assert meter.send(dataMode="test").status == 402
    assert meter.send().status == 402


def test_a_limit_set_in_mid_period_counts_what_was_already_spent(meter):
    meter.send()
    meter.send()

    budget(meter, daily_limit_usd=EVENT_USD, enforcement="hard")

    assert meter.send().status == 402


def test_each_threshold_is_crossed_once_a_period(meter):
    budget(meter, daily_limit_usd=EVENT_USD * 2)
    for _ in range(5):
        meter.send()

    crossings = LimitCrossing.objects.filter(limit__workspace_id=meter.workspace_id).order_by("threshold")
    assert [crossing.threshold for crossing in crossings] == [Decimal("0.8"), Decimal(1)]
    assert [crossing.value for crossing in crossings] == [EVENT_USD * 2, EVENT_USD * 3]


def test_an_event_counts_in_the_day_it_happened(meter):
    budget(meter, daily_limit_usd=EVENT_USD / 2, enforcement="hard")
    yesterday = (utc_now() - timedelta(days=1)).isoformat()
    meter.send(createdAt=yesterday)

    assert meter.send(createdAt=yesterday).status == 402
    assert meter.send().status == 200


def test_a_batch_is_402_only_if_every_event_was_refused_for_the_same_limit(client_of):
    meter = client_of(monthly_requests=2)
    mixed = meter.send_batch([payload() for _ in range(3)])
    refused = meter.send_batch([payload() for _ in range(2)])

    assert mixed.status == 200
    assert [result["reason"] for result in mixed.json["results"]] == [None, None, "plan_limit_reached"]
    assert (refused.status, refused.json["reason"], refused.json["rejected"]) == (402, "plan_limit_reached", 2)
    assert meter.send_batch([payload(), payload(inputTokens=-1)]).status == 200


def test_a_revoked_key_is_refused_at_once(meter):
    assert meter.send().status == 200

    workspaces.revoke_api_key(meter.opened.api_key, acting_user=meter.opened.owner)

    reply = meter.send()
    assert (reply.status, reply.json["reason"]) == (401, "invalid_api_key")


def test_a_rotated_key_works_until_its_grace_ends(meter):
    new = workspaces.rotate_api_key(meter.opened.api_key, grace=timedelta(hours=1), acting_user=meter.opened.owner)
    old = meter.opened.api_key_plain

    def status(key):
        return meter.app.request("POST", "/v1/ingest/llm-request", payload(), {"X-API-Key": key}).status

    assert (status(old), status(new)) == (200, 200)
    with time_machine.travel(utc_now() + timedelta(hours=1, seconds=1), tick=False):
        assert (status(old), status(new)) == (401, 200)


def test_the_policy_can_change_between_two_events_of_the_same_key(meter):
    budget(meter, daily_limit_usd=EVENT_USD / 2, enforcement="hard")
    meter.send()
    assert meter.send().status == 402

    set_budget_policy(meter.workspace_id, observe_mode=True, counted_data_modes=["real"])

    assert meter.send().status == 200
