"""OpenTelemetry: every model call of a trace becomes one event, and nothing else does, in either encoding."""

import gzip
import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from ingest.audit import audit_workspace
from opsmeter_site.lib.clock import utc_now
from tests.conftest import MODEL, PROVIDER
from tests.otlp import GZIP, PATH, PROTOBUF, START, TRACE, chat, events, export, only_event, protobuf, send, span

# --- Golden spans -----------------------------------------------------------------------------------------------------


def test_a_chat_span_becomes_an_event_field_by_field(meter):
    body = send(
        meter,
        chat(
            0xEEE19B7EC3C1B174,
            gen_ai__request__model="an-alias",
            gen_ai__response__model=MODEL,
            gen_ai__usage__cache_read__input_tokens=40,
            gen_ai__usage__reasoning__output_tokens=30,
            gen_ai__response__finish_reasons={"arrayValue": {"values": [{"stringValue": "stop"}]}},
            opsmeter__endpoint_tag="support/summarize",
            opsmeter__prompt_version="summary_v3",
            opsmeter__user_id="user_7",
            opsmeter__tenant_id="acme",
            opsmeter__feature_tag="summaries",
            opsmeter__data_mode="test",
        ),
        service__name="ignored-here",
        deployment__environment__name="staging-eu",
    )

    event = only_event(meter)
    assert body == {}
    assert event.external_request_id == f"otel_{TRACE}_eee19b7ec3c1b174"
    assert (event.provider, event.model, event.status, event.error_code) == (PROVIDER, MODEL, "success", None)
    assert (event.uncached_input_tokens, event.cache_read_tokens, event.cache_write_tokens) == (60, 40, 0)
    assert (event.output_tokens, event.reasoning_tokens, event.total_tokens) == (50, 30, 150)
    assert event.cost_usd == Decimal("0.000042")
    assert (event.latency_ms, event.occurred_at) == (820, datetime.fromtimestamp(START // 10**9, UTC))
    assert (event.endpoint_tag, event.prompt_version) == ("support/summarize", "summary_v3")
    assert (event.user_id, event.tenant_id, event.feature_tag) == ("user_7", "acme", "summaries")
    assert (event.environment, event.data_mode, event.service_tier) == ("staging", "test", "standard")
    assert audit_workspace(meter.workspace_id, utc_now()).is_exact


def test_anthropic_with_cache_counts_every_token_once(meter):
    send(
        meter,
        chat(
            gen_ai__provider__name="anthropic",
            gen_ai__response__model="claude-sonnet-4-5",
            gen_ai__usage__input_tokens=1_000,
            gen_ai__usage__cache_read__input_tokens=700,
            gen_ai__usage__cache_creation__input_tokens=200,
        ),
    )

    event = only_event(meter)
    assert (event.uncached_input_tokens, event.cache_read_tokens, event.cache_write_tokens) == (100, 700, 200)
    assert event.total_tokens == 1_050


def test_cache_tokens_above_the_input_prove_that_they_come_on_top(meter):
    send(meter, chat(gen_ai__usage__cache_read__input_tokens=90, gen_ai__usage__cache_creation__input_tokens=20))

    event = only_event(meter)
    assert (event.uncached_input_tokens, event.cache_read_tokens, event.cache_write_tokens) == (100, 90, 20)


def test_a_process_may_say_that_its_cache_tokens_come_on_top(meter):
    send(meter, chat(gen_ai__usage__cache_read__input_tokens=90), opsmeter__usage_convention="exclusive")

    assert only_event(meter).uncached_input_tokens == 100


def test_embeddings_have_no_output(meter):
    send(meter, chat(gen_ai__operation__name="embeddings", gen_ai__usage__output_tokens=None))

    event = only_event(meter)
    assert (event.output_tokens, event.cost_usd) == (0, Decimal("0.000015"))


def test_an_agent_trace_counts_each_token_once(meter):
    root = chat(1, gen_ai__operation__name="invoke_agent", gen_ai__usage__input_tokens=200)
    children = [chat(number, fields={"parentSpanId": f"{1:016x}"}) for number in (2, 3)]
    others = [
        chat(4, gen_ai__operation__name="execute_tool"),
        chat(5, gen_ai__operation__name="create_agent"),
        chat(6, gen_ai__operation__name="invoke_workflow"),
        chat(7, gen_ai__operation__name=None),
        span(8, {"http.request.method": "POST"}),
        {"name": "without ids"},
    ]

    assert send(meter, root, *others, *children) == {}
    assert [event.external_request_id[-1] for event in events(meter)] == ["2", "3"]
    assert sum(event.total_tokens for event in events(meter)) == 300


@pytest.mark.parametrize("operation", ["chat", "text_completion", "generate_content", "embeddings"])
def test_every_kind_of_model_call_counts(meter, operation):
    send(meter, chat(gen_ai__operation__name=operation))

    assert only_event(meter).cost_usd == Decimal("0.000045")


# --- Attributes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("openai", "openai"),
        ("aws.bedrock", "aws"),
        ("azure.ai.openai", "azure"),
        ("azure.ai.inference", "azure"),
        ("gcp.vertex_ai", "google"),
        ("gcp.gemini", "google"),
        ("gcp.gen_ai", "google"),
        ("x_ai", "x-ai"),
        ("mistral_ai", "mistral"),
        ("moonshot_ai", "moonshotai"),
        ("Anthropic", "anthropic"),
        ("my-own-host", "my-own-host"),
    ],
)
@pytest.mark.parametrize("attribute", ["gen_ai__provider__name", "gen_ai__system"])
def test_providers_get_the_price_catalogues_names(meter, attribute, sent, stored):
    send(meter, chat(**{"gen_ai__provider__name": None, attribute: sent}))

    assert only_event(meter).provider == stored


@pytest.mark.parametrize(
    ("attributes", "field", "stored"),
    [
        ({"gen_ai.usage.input_tokens": None, "gen_ai.usage.prompt_tokens": 7}, "uncached_input_tokens", 7),
        ({"gen_ai.usage.output_tokens": None, "gen_ai.usage.completion_tokens": 7}, "output_tokens", 7),
        ({"gen_ai.usage.prompt_tokens": 7}, "uncached_input_tokens", 100),
        ({"gen_ai.usage.input_tokens": 7.0}, "uncached_input_tokens", 7),
        ({"gen_ai.usage.cache_read_input_tokens": 7}, "cache_read_tokens", 7),
        ({"gen_ai.usage.cache_creation_input_tokens": 7}, "cache_write_tokens", 7),
        ({"gen_ai.usage.reasoning_tokens": 7}, "reasoning_tokens", 7),
        ({"gen_ai.usage.details.audio": 7, "gen_ai.usage.cost": 1.5}, "total_tokens", 150),
        ({"error.type": "timeout"}, "error_code", "timeout"),
        ({"error.type": "timeout"}, "status", "error"),
        ({"enduser.id": "u1"}, "user_id", "u1"),
        ({"user.id": 42}, "user_id", "42"),
        ({"user.id": "no", "opsmeter.user_id": "yes"}, "user_id", "yes"),
        ({"opsmeter.tenant_id": True}, "tenant_id", "true"),
        ({"opsmeter.tenant_id": " "}, "tenant_id", "unknown"),
        ({"openai.response.service_tier": "flex"}, "service_tier", "flex"),
        ({"gen_ai.request.service_tier": "batch"}, "service_tier", "batch"),
        (
            {"gen_ai.request.service_tier": "auto", "openai.response.service_tier": "priority"},
            "service_tier",
            "priority",
        ),
        (
            {"gen_ai.request.service_tier": "flex", "openai.response.service_tier": "default"},
            "service_tier",
            "standard",
        ),
        ({"openai.response.service_tier": "unheard-of"}, "service_tier", "standard"),
    ],
)
def test_attributes_of_a_span(meter, attributes, field, stored):
    send(meter, chat(**attributes))

    assert getattr(only_event(meter), field) == stored


@pytest.mark.parametrize(
    ("resource", "field", "stored"),
    [
        ({"service.name": "checkout"}, "endpoint_tag", "checkout"),
        ({"opsmeter.tenant_id": "acme"}, "tenant_id", "acme"),
        ({"deployment.environment": "production"}, "environment", "prod"),
        ({"deployment.environment": "Development"}, "environment", "dev"),
        ({"deployment.environment.name": "stage", "deployment.environment": "dev"}, "environment", "staging"),
        ({"deployment.environment.name": "qa"}, "environment", "prod"),
        ({}, "environment", "prod"),
        ({"gen_ai.response.model": "not from here"}, "model", MODEL),
    ],
)
def test_attributes_of_the_resource(meter, resource, field, stored):
    send(meter, chat(), **resource)

    assert getattr(only_event(meter), field) == stored


@pytest.mark.parametrize("code", [2, "STATUS_CODE_ERROR"])
def test_a_failed_call_without_usage_is_an_error_that_cost_nothing(meter, code):
    nothing = {"gen_ai__usage__input_tokens": None, "gen_ai__usage__output_tokens": None}
    send(meter, chat(fields={"status": {"code": code, "message": "a secret"}}, **nothing))

    event = only_event(meter)
    assert (event.status, event.error_code, event.total_tokens, event.cost_usd) == ("error", None, 0, 0)


def test_a_span_without_times_happened_now_and_took_unknown_long(meter):
    send(meter, chat(fields={"startTimeUnixNano": None, "endTimeUnixNano": "0"}))

    event = only_event(meter)
    assert event.latency_ms is None
    assert abs((event.occurred_at - event.received_at).total_seconds()) < 10


# --- Encodings --------------------------------------------------------------------------------------------------------


def trace():
    """One of everything."""
    return export(
        chat(1, gen_ai__usage__cache_read__input_tokens=40, opsmeter__tenant_id="ä漢"),
        chat(2, **{"error.type": "429"}, fields={"status": {"code": 2}}),
        chat(3, gen_ai__operation__name="invoke_agent"),
        chat(4, gen_ai__usage__input_tokens=7.0, user__id=5, unheard__of={"kvlistValue": {"values": []}}),
        service__name="svc",
        deployment__environment="dev",
    )


def _without_own(event):
    own = {"id", "workspace_id", "received_at", "api_key_id", "_state"}
    return {name: value for name, value in vars(event).items() if name not in own}


@pytest.mark.parametrize("is_gzip", [False, True])
def test_json_protobuf_and_gzip_make_the_same_rows(client_of, is_gzip):
    pack = gzip.compress if is_gzip else bytes
    headers = GZIP if is_gzip else {}
    by_json, by_protobuf = client_of(), client_of()

    first = by_json.post(PATH, pack(json.dumps(trace()).encode()), **headers)
    second = by_protobuf.post(PATH, pack(protobuf(trace())), **headers, **PROTOBUF)

    assert (first.status, first.headers["Content-Type"], first.body) == (200, "application/json", b"{}")
    assert (second.status, second.headers["Content-Type"], second.body) == (200, "application/x-protobuf", b"")
    rows = [[_without_own(event) for event in events(meter)] for meter in (by_json, by_protobuf)]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 3


def test_a_resend_in_either_encoding_adds_nothing(meter):
    assert send(meter, chat(1), chat(2), chat(1)) == {}
    upper = chat(0xABC)
    upper["spanId"] = upper["spanId"].upper()
    assert send(meter, upper) == {}

    assert send(meter, chat(1), chat(2)) == {}
    reply = meter.post(PATH, protobuf(export(chat(2), chat(0xABC))), **PROTOBUF)

    assert reply.status == 200
    assert len(events(meter)) == 3
    assert audit_workspace(meter.workspace_id, utc_now()).is_exact


@pytest.mark.parametrize(
    "body", [{}, {"resourceSpans": []}, {"resourceSpans": None}, {"resourceSpans": [{"scopeSpans": [{}]}], "new": 1}]
)
def test_an_export_of_nothing_is_fine(meter, body):
    assert (meter.post(PATH, body).json, meter.post(PATH, b"", **PROTOBUF).status) == ({}, 200)
    assert events(meter) == []


def test_numbers_in_json_may_be_numbers(meter):
    one = chat(fields={"startTimeUnixNano": START, "endTimeUnixNano": START + 1_000_000})
    one["attributes"] += [{"key": "gen_ai.usage.input_tokens", "value": {"intValue": 9}}, {}, {"key": "x"}]

    assert send(meter, one) == {}
    assert (only_event(meter).uncached_input_tokens, only_event(meter).latency_ms) == (9, 1)


def test_1500_spans_are_one_request_for_the_rate_and_1500_for_the_quota(client_of):
    meter = client_of(monthly_requests=1_400, requests_per_minute=10)

    reply = meter.post(PATH, protobuf(export(*(chat(number) for number in range(1, 1_501)))), **PROTOBUF)

    partial = ExportTraceServiceResponse.FromString(reply.body).partial_success
    assert (reply.status, reply.headers["Content-Type"]) == (200, "application/x-protobuf")
    assert reply.headers["X-RateLimit-Remaining"] == "9"
    assert partial.rejected_spans == 100
    assert partial.error_message == "100 of 1500 model calls were not stored: plan_limit_reached (100)."
    assert len(events(meter)) == 1_400
    assert audit_workspace(meter.workspace_id, utc_now()).is_exact
