"""Bad input gets a 4xx JSON object that says which field and why, and nothing is stored."""

import json
from datetime import timedelta

import pytest

from ingest.models import Event
from opsmeter_site.lib.clock import utc_now
from tests.conftest import payload

SINGLE = "/v1/ingest/llm-request"
BATCH = "/v1/ingest/llm-requests"
DEMO = "/v1/ingest/demo"


def assert_refused(reply, status, reason):
    assert reply.status == status
    assert reply.headers["Content-Type"] == "application/json"
    body = reply.json
    assert (body["ok"], body["accepted"], body["reason"]) == (False, False, reason)
    assert body["providerCallsContinue"] is True
    return body


def fields_of(body):
    return [error["field"] for error in body["errors"]]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"provider": ...}, "provider"),
        ({"provider": None}, "provider"),
        ({"provider": "  "}, "provider"),
        ({"provider": "p" * 101}, "provider"),
        ({"model": 5}, "model"),
        ({"model": "m" * 201}, "model"),
        ({"inputTokens": ...}, "inputTokens"),
        ({"inputTokens": -1}, "inputTokens"),
        ({"inputTokens": "100"}, "inputTokens"),
        ({"inputTokens": 1.5}, "inputTokens"),
        ({"inputTokens": True}, "inputTokens"),
        ({"inputTokens": 10**30}, "inputTokens"),
        ({"outputTokens": None}, "outputTokens"),
        ({"totalTokens": -5}, "totalTokens"),
        ({"latencyMs": -1}, "latencyMs"),
        ({"latencyMs": 10**12}, "latencyMs"),
        ({"status": ...}, "status"),
        ({"status": "ok"}, "status"),
        ({"dataMode": "fake"}, "dataMode"),
        ({"environment": "production"}, "environment"),
        ({"serviceTier": "gold"}, "serviceTier"),
        ({"usageConvention": "maybe"}, "usageConvention"),
        ({"cachedInputTokens": 101}, "cachedInputTokens"),
        ({"cacheWriteTokens": 101}, "cacheWriteTokens"),
        ({"reasoningTokens": 51}, "reasoningTokens"),
        ({"costUsd": -0.1}, "costUsd"),
        ({"costUsd": 10**9}, "costUsd"),
        ({"userId": 17}, "userId"),
        ({"userId": "u" * 201}, "userId"),
        ({"tenantId": ["x"]}, "tenantId"),
        ({"endpointTag": "e" * 201}, "endpointTag"),
        ({"externalRequestId": "i" * 201}, "externalRequestId"),
        ({"externalRequestId": 7}, "externalRequestId"),
        ({"errorCode": "e" * 201}, "errorCode"),
        ({"errorCode": 10**250}, "errorCode"),
        ({"metadata": "text"}, "metadata"),
        ({"metadata": {"a": {"b": 1}}}, "metadata"),
        ({"metadata": {"a": "x" * 5000}}, "metadata"),
        ({"metadata": {"tenantId": "t" * 201}}, "metadata.tenantId"),
        ({"createdAt": "yesterday"}, "createdAt"),
        ({"createdAt": 1700000000}, "createdAt"),
        ({"occurredAt": "2026-13-01T00:00:00Z"}, "occurredAt"),
        ({"model": "a\x00b"}, "model"),
        ({"metadata": {"k": "\x00"}}, "k"),
    ],
)
def test_a_wrong_field_is_named(meter, changes, field):
    body = assert_refused(meter.send(**changes), 400, "invalid_payload")

    assert field in " ".join(fields_of(body))
    assert all(error["message"] for error in body["errors"])
    assert not Event.objects.filter(workspace_id=meter.workspace_id).exists()


def test_every_wrong_field_is_named_at_once(meter):
    body = assert_refused(meter.send(provider=1, inputTokens="a", status=...), 400, "invalid_payload")

    assert fields_of(body) == ["provider", "inputTokens", "status"]


@pytest.mark.parametrize("offset", [timedelta(days=-36), timedelta(minutes=6), timedelta(days=400)])
def test_a_clock_far_off_is_refused(meter, offset):
    body = assert_refused(meter.send(createdAt=(utc_now() + offset).isoformat()), 400, "invalid_payload")

    assert fields_of(body) == ["createdAt"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"not json",
        b'{"a": NaN}',
        b'{"provider": "\xff"}',
        json.dumps(payload()).encode("utf-16"),
        b"\xef\xbb\xbf{}",
        b'{"metadata": ' + b'{"a":' * 10_000 + b"1" + b"}" * 3,
        b'{"x": "\\ud800"}',
        json.dumps(payload()).encode() + b"{}",
    ],
)
def test_broken_json_is_refused(meter, body):
    assert_refused(meter.post(SINGLE, body), 400, "invalid_json")


@pytest.mark.parametrize("body", [b"[]", b"null", b'"text"', b"1"])
def test_json_that_is_no_object_is_refused(meter, body):
    assert_refused(meter.post(SINGLE, body), 400, "invalid_payload")


def test_a_field_that_appears_twice_is_refused(meter):
    twice = json.dumps(payload())[:-1] + ', "inputTokens": 1}'

    body = assert_refused(meter.post(SINGLE, twice.encode()), 400, "invalid_payload")

    assert fields_of(body) == ["inputTokens"]


def test_a_field_that_appears_twice_under_an_escaped_name_is_refused(meter):
    twice = json.dumps(payload())[:-1] + r', "input\u0054okens": 1}'

    assert_refused(meter.post(SINGLE, twice.encode()), 400, "invalid_payload")


def test_the_same_name_at_two_depths_is_no_repetition(meter):
    assert meter.send(tenantId="a", metadata={"tenantId": "b", "model": "c"}).status == 200


def test_a_body_over_64_kib_is_refused(meter):
    body = json.dumps(payload(unknown="x" * 65 * 1024)).encode()

    assert_refused(meter.post(SINGLE, body), 413, "payload_too_large")
    assert_refused(meter.post(SINGLE, body, **{"Content-Length": ""}), 413, "payload_too_large")


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json; charset=latin-1"},
        {"Content-Encoding": "gzip"},
    ],
)
def test_an_unknown_content_type_is_refused(meter, headers):
    assert_refused(meter.post(SINGLE, payload(), **headers), 415, "unsupported_media_type")


@pytest.mark.parametrize("path", [SINGLE, BATCH, DEMO])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"])
def test_every_other_method_is_405_with_allow(meter, path, method):
    reply = meter.app.request(method, path, b"", {"X-API-Key": meter.opened.api_key_plain})

    assert reply.status == 405
    assert reply.headers["Allow"] == "POST"
    assert method == "HEAD" or reply.json["reason"] == "method_not_allowed"


def test_without_a_key_nothing_is_said_about_the_payload(app):
    assert_refused(app.request("POST", SINGLE, b"{"), 401, "missing_api_key")
    assert_refused(app.request("POST", SINGLE, b"{", {"X-API-Key": "  "}), 401, "missing_api_key")


@pytest.mark.parametrize("key", ["x", "om_live_abcdefgh_" + "a" * 32, "om_live_abc", "ä", "k" * 10_000, "\x00"])
def test_a_malformed_or_unknown_key_is_refused(app, key):
    assert_refused(app.request("POST", SINGLE, payload(), {"X-API-Key": key}), 401, "invalid_api_key")


@pytest.mark.parametrize("path", [SINGLE + "/", "/v1/ingest", "/v1/ingest/other", "/v1//ingest/llm-request"])
def test_other_paths_are_404_json_and_never_a_redirect(meter, path):
    reply = meter.post(path, payload())

    assert reply.status == 404
    assert reply.json["ok"] is False
    assert "Location" not in reply.headers


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "events"),
        ({"events": []}, "events"),
        ({"events": {}}, "events"),
        ({"events": [{}] * 1001}, "events"),
        ([], "events"),
    ],
)
def test_a_wrong_batch_envelope_is_refused(meter, body, field):
    assert fields_of(assert_refused(meter.post(BATCH, body), 400, "invalid_payload")) == [field]


def test_a_batch_over_5_mib_is_refused(meter):
    assert_refused(meter.post(BATCH, b" " * (5 * 1024 * 1024 + 1)), 413, "payload_too_large")


def test_a_batch_stores_the_good_events_and_says_what_is_wrong_with_each_other(meter):
    good = [payload(externalRequestId=f"good-{number}") for number in range(3)]
    events = [
        good[0],
        payload(externalRequestId="bad-1", inputTokens=-1),
        good[1],
        17,
        payload(externalRequestId="bad-2", model="a\x00"),
        good[0],
        good[2],
    ]

    reply = meter.send_batch(events)

    assert reply.status == 200
    assert [result["accepted"] for result in reply.json["results"]] == [True, False, True, False, False, True, True]
    assert [result["duplicate"] for result in reply.json["results"]] == [False] * 5 + [True, False]
    assert (reply.json["accepted"], reply.json["duplicates"], reply.json["rejected"]) == (3, 1, 3)
    bad = reply.json["results"][1]
    assert (bad["externalRequestId"], bad["reason"], bad["costUsd"]) == ("bad-1", "invalid_payload", None)
    assert fields_of(bad) == ["inputTokens"]
    stored = Event.objects.filter(workspace_id=meter.workspace_id).values_list("external_request_id", flat=True)
    assert sorted(stored) == ["good-0", "good-1", "good-2"]
