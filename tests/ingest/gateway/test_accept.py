"""A well-formed event is priced, stored once and counted, and the answer says where the workspace stands."""

from datetime import timedelta
from decimal import Decimal

import pytest

from ingest.audit import audit_workspace
from ingest.models import Event, Rollup
from opsmeter_site.lib.clock import utc_now
from tests.conftest import payload
from workspaces.models import Workspace

SEED_KEYS = [
    "ok",
    "accepted",
    "duplicate",
    "reason",
    "warnings",
    "planTier",
    "telemetryPaused",
    "providerCallsContinue",
    "isPlanLimitReached",
    "budgetWarning",
    "budgetExceeded",
    "planLimitRequests",
    "freeLimitRemainingRequests",
    "externalRequestId",
    "costUsd",
    "budget",
]


def event_of(meter, external_request_id):
    return Event.objects.get(workspace_id=meter.workspace_id, external_request_id=external_request_id)


def test_the_answer_is_the_contract_key_for_key(client_of):
    meter = client_of("free")

    reply = meter.send(externalRequestId="ext_1")

    assert reply.status == 200
    assert list(reply.json) == SEED_KEYS
    assert reply.json == {
        "ok": True,
        "accepted": True,
        "duplicate": False,
        "reason": None,
        "warnings": [],
        "planTier": "Free",
        "telemetryPaused": False,
        "providerCallsContinue": True,
        "isPlanLimitReached": False,
        "budgetWarning": False,
        "budgetExceeded": False,
        "planLimitRequests": 10000,
        "freeLimitRemainingRequests": 9999,
        "externalRequestId": "ext_1",
        "costUsd": 0.000045,
        "budget": None,
    }


def test_every_answer_carries_the_rate_headers(client_of):
    meter = client_of("free")

    reply = meter.send()

    assert reply.headers["X-RateLimit-Limit"] == "120"
    assert reply.headers["X-RateLimit-Remaining"] == "119"
    assert abs(int(reply.headers["X-RateLimit-Reset"]) - utc_now().timestamp()) <= 61


def test_the_row_holds_what_was_sent_and_its_price(meter):
    meter.send(
        externalRequestId="full",
        promptVersion="v1.2:beta",
        endpointTag="chat/support.v2",
        cachedInputTokens=40,
        cacheWriteTokens=10,
        reasoningTokens=20,
        totalTokens=150,
        latencyMs=640,
        status=" Error ",
        errorCode=429,
        userId="u-1",
        tenantId="t-1",
        featureTag="help",
        dataMode="TEST",
        environment="Staging",
        serviceTier="batch",
        costUsd=0.0001,
        metadata={"a": 1, "b": None, "c": "ü"},
    )

    event = event_of(meter, "full")
    assert (event.uncached_input_tokens, event.cache_read_tokens, event.cache_write_tokens) == (50, 40, 10)
    assert (event.output_tokens, event.reasoning_tokens, event.total_tokens) == (50, 20, 150)
    # 50 uncached and 10 written at 0.15, 40 read at 0.075, 50 out at 0.60 USD per 1M.
    assert event.cost_usd == Decimal("0.000042000000")
    assert event.price_id is not None
    assert event.reported_cost_usd == Decimal("0.0001")
    assert (event.status, event.error_code, event.latency_ms) == ("error", "429", 640)
    assert (event.data_mode, event.environment, event.service_tier) == ("test", "staging", "batch")
    assert (event.endpoint_tag, event.prompt_version) == ("chat/support.v2", "v1.2:beta")
    assert (event.user_id, event.tenant_id, event.feature_tag) == ("u-1", "t-1", "help")
    assert event.metadata == {"a": 1, "b": None, "c": "ü"}


def test_missing_labels_group_as_unknown_and_metadata_fills_tenant_and_feature(meter):
    meter.send(externalRequestId="plain", metadata={"tenantId": "t-9", "feature": "search"})

    event = event_of(meter, "plain")
    assert (event.endpoint_tag, event.prompt_version, event.user_id) == ("unknown", "unknown", "unknown")
    assert (event.tenant_id, event.feature_tag) == ("t-9", "search")


def test_exclusive_usage_counts_cached_tokens_on_top_of_input(meter):
    reply = meter.send(
        externalRequestId="ex", inputTokens=10, cachedInputTokens=1000, cacheWriteTokens=5, usageConvention="exclusive"
    )

    event = event_of(meter, "ex")
    assert reply.status == 200
    assert (event.uncached_input_tokens, event.cache_read_tokens, event.cache_write_tokens) == (10, 1000, 5)
    assert event.total_tokens == 1065


def test_an_unknown_model_is_stored_unpriced_and_says_so(meter):
    reply = meter.send(externalRequestId="new", model="model-of-tomorrow")

    assert reply.status == 200
    assert reply.json["costUsd"] is None
    assert "model-of-tomorrow" in reply.json["warnings"][0]
    assert event_of(meter, "new").cost_usd is None
    assert Rollup.objects.get(workspace_id=meter.workspace_id).is_priced is False


def test_a_different_total_is_stored_and_warned_about(meter):
    reply = meter.send(externalRequestId="t", totalTokens=999)

    assert "999" in reply.json["warnings"][0]
    assert event_of(meter, "t").total_tokens == 999


@pytest.mark.parametrize("missing", [..., None, "", "  "])
def test_without_an_id_the_event_is_taken_under_a_generated_one_with_a_warning(meter, missing):
    first = meter.send(externalRequestId=missing)
    second = meter.send(externalRequestId=missing)

    assert (first.status, second.status) == (200, 200)
    assert first.json["warnings"]
    assert first.json["externalRequestId"] != second.json["externalRequestId"]
    assert Event.objects.filter(workspace_id=meter.workspace_id).count() == 2


def test_a_repeat_is_200_and_adds_nothing(meter):
    sent = payload(externalRequestId="same", createdAt=utc_now().isoformat())
    first = meter.post("/v1/ingest/llm-request", sent)
    again = meter.post("/v1/ingest/llm-request", sent)

    assert (again.status, again.json["duplicate"], again.json["accepted"]) == (200, True, True)
    assert again.json["costUsd"] == first.json["costUsd"]
    assert again.json["warnings"] == []
    assert again.json["freeLimitRemainingRequests"] == first.json["freeLimitRemainingRequests"]
    assert Event.objects.filter(workspace_id=meter.workspace_id).count() == 1


def test_another_event_under_a_known_id_keeps_the_first_row_and_warns(meter):
    meter.send(externalRequestId="same", inputTokens=1)
    again = meter.send(externalRequestId="same", inputTokens=2)

    assert (again.status, again.json["duplicate"]) == (200, True)
    assert again.json["warnings"]
    assert event_of(meter, "same").uncached_input_tokens == 1


def test_the_same_id_in_two_workspaces_is_two_events(client_of):
    one, two = client_of(), client_of()

    assert one.send(externalRequestId="x").json["duplicate"] is False
    assert two.send(externalRequestId="x").json["duplicate"] is False


def test_a_late_event_counts_when_it_happened(meter):
    happened = utc_now() - timedelta(days=34)
    meter.send(externalRequestId="late", occurredAt=happened.isoformat())

    assert event_of(meter, "late").occurred_at == happened
    bucket = Rollup.objects.get(workspace_id=meter.workspace_id).bucket_start
    assert bucket <= happened < bucket + timedelta(minutes=15)


def test_the_ledger_agrees_with_itself(meter):
    for number in range(20):
        meter.send(model="other" if number % 5 == 0 else "model-one", dataMode="test" if number % 3 else "real")

    assert audit_workspace(meter.workspace_id, utc_now()).is_exact


def test_a_workspace_that_was_deleted_takes_nothing_although_its_key_is_still_remembered(meter):
    assert meter.send().status == 200

    Workspace.objects.get(pk=meter.workspace_id).delete()

    reply = meter.send()
    assert (reply.status, reply.json["reason"]) == (401, "invalid_api_key")
