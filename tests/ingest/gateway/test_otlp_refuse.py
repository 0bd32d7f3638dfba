"""OpenTelemetry: refused model calls are a partial success, refused requests a status that exporters act on."""

import gzip
from decimal import Decimal

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from budgets.services import update_budget_settings
from ingest.audit import audit_workspace
from ingest.gateway.committer import Committer, UnavailableError
from ingest.models import Refusal
from opsmeter_site.lib.clock import utc_now
from tests.otlp import GZIP, PATH, PROTOBUF, TRACE, chat, events, export, only_event, protobuf, rejected, send

MIB = 1024 * 1024

# --- Refused model calls ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "problem"),
    [
        (chat(gen_ai__provider__name=None), "provider: Required."),
        (chat(gen_ai__request__model=None), "model: Required."),
        (chat(gen_ai__usage__input_tokens=-1), "inputTokens: "),
        (chat(gen_ai__usage__input_tokens="many"), "inputTokens: "),
        (chat(gen_ai__usage__input_tokens=1.5), "inputTokens: "),
        (chat(gen_ai__usage__input_tokens=1e300), "inputTokens: "),
        (chat(gen_ai__usage__input_tokens={"doubleValue": "NaN"}), "inputTokens: "),
        (chat(gen_ai__usage__input_tokens=2**63 - 1), "inputTokens: "),
        (chat(gen_ai__usage__cache_read__input_tokens=-5), "cachedInputTokens: "),
        (chat(gen_ai__usage__reasoning__output_tokens=51), "reasoningTokens: "),
        (chat(opsmeter__data_mode="fake"), "dataMode: "),
        (chat(opsmeter__usage_convention="maybe"), "usageConvention: "),
        (chat(gen_ai__request__model="a\x00b"), "model: Must not contain NUL"),
        (chat(opsmeter__tenant_id="t" * 201), "tenantId: "),
        (chat(fields={"startTimeUnixNano": "1000000000", "endTimeUnixNano": "0"}), "createdAt: "),
        (chat(fields={"startTimeUnixNano": "9999999999999999999"}), "createdAt: "),
        (chat(fields={"traceId": "0" * 32}), "The trace id must be"),
        (chat(fields={"traceId": "abcd"}), "The trace id must be"),
        (chat(fields={"spanId": ""}), "The trace id must be"),
    ],
)
@pytest.mark.parametrize("is_protobuf", [False, True])
def test_an_invalid_model_call_is_rejected_and_the_others_are_stored(meter, one, problem, is_protobuf):
    body = export(one, chat(0xB), chat(0xC, gen_ai__operation__name="invoke_agent"))
    if is_protobuf:
        reply = meter.post(PATH, protobuf(body), **PROTOBUF)
        partial = ExportTraceServiceResponse.FromString(reply.body).partial_success
        found = partial.rejected_spans, partial.error_message
    else:
        reply = meter.post(PATH, body)
        found = rejected(reply.json)

    assert reply.status == 200
    assert found[0] == 1
    assert found[1].startswith("1 of 2 model calls were not stored: invalid_payload (1). The first invalid one: span ")
    assert problem in found[1]
    assert only_event(meter).external_request_id == f"otel_{TRACE}_{0xB:016x}"


@pytest.mark.parametrize("field", ["traceId", "spanId"])
@pytest.mark.parametrize("wrong", ["z" * 16, "W47/95gDgQPSabYzgT/GDA==", "\x00", "é" * 16, None])
def test_ids_in_json_are_hexadecimal(meter, field, wrong):
    assert rejected(send(meter, chat(fields={field: wrong})))[0] == 1
    assert events(meter) == []


def test_a_full_plan_is_a_partial_success_with_the_reason(client_of):
    meter = client_of(monthly_requests=1)

    count, message = rejected(send(meter, chat(1), chat(2), chat(3, gen_ai__request__model=None)))

    assert count == 2
    assert message.startswith("2 of 3 model calls were not stored: plan_limit_reached (1), invalid_payload (1). ")
    assert rejected(send(meter, chat(4)))[1] == "1 of 1 model calls were not stored: plan_limit_reached (1)."
    assert send(meter, chat(1)) == {}
    assert Refusal.objects.get(workspace_id=meter.workspace_id).requests == 2


def test_a_hard_stop_is_a_partial_success_with_the_reason(meter):
    update_budget_settings(
        meter.opened.workspace,
        acting_user=meter.opened.owner,
        daily_limit_usd=Decimal("0.00002"),
        monthly_limit_usd=Decimal("0.00002"),
        enforcement="hard",
    )

    assert send(meter, chat(1)) == {}
    assert rejected(send(meter, chat(2), chat(3))) == (2, "2 of 2 model calls were not stored: budget_exceeded (2).")


# --- Refused requests -------------------------------------------------------------------------------------------------


def assert_refused(reply, status, reason):
    assert (reply.status, reply.json["reason"], reply.json["ok"]) == (status, reason, False)
    assert reply.headers["Content-Type"] == "application/json"
    return reply


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"spanId": "\xff"}]}]}]}',
        b'{"a": NaN}',
        b'{"a":' * 100_000,
        b"{}{}",
    ],
)
def test_broken_json_is_400(meter, body):
    reply = assert_refused(meter.post(PATH, body), 400, "invalid_json")
    assert "X-RateLimit-Limit" in reply.headers


@pytest.mark.parametrize(
    "body",
    [
        [],
        {"resourceSpans": {}},
        {"resourceSpans": [5]},
        export({"attributes": "x"}),
        export(chat(fields={"startTimeUnixNano": "soon"})),
        export(chat(fields={"startTimeUnixNano": -1})),
        export(chat(fields={"startTimeUnixNano": 10**30})),
        export(chat(fields={"endTimeUnixNano": "1_000"})),
        export(chat(fields={"endTimeUnixNano": "9" * 5_000})),
        export(chat(gen_ai__usage__input_tokens={"intValue": "1.5"})),
        export(chat(gen_ai__usage__input_tokens={"intValue": 10**30})),
        export(chat(gen_ai__usage__input_tokens={"intValue": True})),
    ],
)
def test_json_that_is_no_export_is_400(meter, body):
    assert_refused(meter.post(PATH, body), 400, "invalid_payload")
    assert events(meter) == []


def _invalid_utf8():
    return protobuf(export(chat(gen_ai__request__model="MARK"))).replace(b"MARK", b"\xff\xfe\xff\xfe")


@pytest.mark.parametrize("body", [b"{}", b"\xff", b"\x0a\xff", b"\x0a\x05\x12", _invalid_utf8(), b"\x0b" * 5_000])
def test_broken_protobuf_is_400(meter, body):
    assert_refused(meter.post(PATH, body, **PROTOBUF), 400, "invalid_payload")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        gzip.compress(b"{}", mtime=0)[:-1],
        gzip.compress(b"{}", mtime=0) + b"x",
        gzip.compress(b"{}", mtime=0) * 2,
        b"\x1f\x8b\x08",
    ],
)
def test_broken_gzip_is_400(meter, body):
    assert_refused(meter.post(PATH, body, **GZIP), 400, "invalid_payload")


def test_bodies_over_5_mib_are_413_before_and_after_inflation(meter):
    blanks = b" " * (5 * MIB - 2)
    assert meter.post(PATH, b"{}" + blanks).status == 200
    assert meter.post(PATH, gzip.compress(b"{}" + blanks, mtime=0), **GZIP).status == 200
    assert_refused(meter.post(PATH, b"{} " + blanks), 413, "payload_too_large")
    assert_refused(meter.post(PATH, gzip.compress(b"{} " + blanks, mtime=0), **GZIP), 413, "payload_too_large")
    assert_refused(meter.post(PATH, gzip.compress(b" " * (500 * MIB), 1), **GZIP), 413, "payload_too_large")


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/grpc"},
        {"Content-Type": "application/json; charset=latin-1"},
        {"Content-Encoding": "br"},
        {"Content-Encoding": "gzip, gzip"},
    ],
)
def test_other_content_types_and_encodings_are_415(meter, headers):
    reply = assert_refused(meter.post(PATH, b"{}", **headers), 415, "unsupported_media_type")
    assert "X-RateLimit-Limit" in reply.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "Application/JSON; charset=UTF-8"},
        {"Content-Type": ""},
        {"Content-Encoding": "identity"},
        {"Content-Encoding": ""},
    ],
)
def test_the_usual_spellings_are_taken(meter, headers):
    assert meter.post(PATH, b"{}", **headers).status == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_are_405(meter, method):
    reply = meter.app.request(method, PATH, b"", {"X-API-Key": meter.opened.api_key_plain})
    assert assert_refused(reply, 405, "method_not_allowed").headers["Allow"] == "POST"


def test_without_a_good_key_401(app):
    assert_refused(app.request("POST", PATH, export(chat())), 401, "missing_api_key")
    assert_refused(app.request("POST", PATH, export(chat()), {"X-API-Key": "x"}), 401, "invalid_api_key")


def test_over_the_rate_429_tells_exporters_when_to_retry(client_of):
    meter = client_of(requests_per_minute=1)
    send(meter, chat(1))

    reply = assert_refused(meter.post(PATH, protobuf(export(chat(2))), **PROTOBUF), 429, "rate_limited")

    assert int(reply.headers["Retry-After"]) >= 1
    assert reply.headers["X-RateLimit-Remaining"] == "0"
    assert len(events(meter)) == 1


def test_a_database_that_goes_away_between_commits_is_503_and_a_retry_completes(meter, monkeypatch):
    body = export(*(chat(number) for number in range(1, 1_201)))
    commit, commits = Committer.commit, []

    def second_fails(committer, group):
        commits.append(sum(len(submission.events) for submission in group))
        if len(commits) == 2:
            raise UnavailableError
        return commit(committer, group)

    monkeypatch.setattr(Committer, "commit", second_fails)

    assert "Retry-After" in assert_refused(meter.post(PATH, body), 503, "unavailable").headers
    assert len(events(meter)) == 1_000
    assert meter.post(PATH, body).json == {}
    assert commits == [1_000, 200, 1_000, 200]
    assert len(events(meter)) == 1_200
    assert audit_workspace(meter.workspace_id, utc_now()).is_exact


def test_texts_of_prompts_are_never_stored(meter):
    send(meter, chat(**{"gen_ai.input.messages": "SECRET", "gen_ai.prompt": "SECRET"}, fields={"name": "SECRET"}))

    assert "SECRET" not in str(vars(only_event(meter)))
