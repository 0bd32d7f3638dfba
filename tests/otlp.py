"""OpenTelemetry exports as tests send them: written as OTLP/JSON, and in protobuf by its JSON mapping."""

import json
import time

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from ingest.models import Event
from tests.conftest import MODEL, PROVIDER

PATH = "/v1/otlp/v1/traces"
PROTOBUF = {"Content-Type": "application/x-protobuf"}
GZIP = {"Content-Encoding": "gzip"}
TRACE = "5b8efff798038103d269b633813fc60c"
START = time.time_ns() // 1_000_000_000 * 1_000_000_000 - 60_000_000_000


def value_of(value):
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    return value if isinstance(value, dict) else {"stringValue": value}


def pairs(attributes):
    return [{"key": key, "value": value_of(value)} for key, value in attributes.items()]


def span(number, attributes, **fields):
    return {
        "traceId": TRACE,
        "spanId": f"{number:016x}",
        "name": "a span",
        "kind": 3,
        "startTimeUnixNano": str(START),
        "endTimeUnixNano": str(START + 820_400_000),
        "attributes": pairs(attributes),
        **fields,
    }


def chat(number=1, *, fields=None, **changes):
    """A model call that costs 0.000045 USD; `changes` are attributes with `__` for a dot, None removes one."""
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": MODEL,
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 50,
    } | {name.replace("__", "."): value for name, value in changes.items()}
    return span(number, {name: value for name, value in attributes.items() if value is not None}, **(fields or {}))


def export(*spans, **resource):
    attributes = {name.replace("__", "."): value for name, value in resource.items()}
    return {"resourceSpans": [{"resource": {"attributes": pairs(attributes)}, "scopeSpans": [{"spans": list(spans)}]}]}


def protobuf(body):
    """The same export in protobuf, built by protobuf's own JSON mapping, which wants ids in base64."""
    request = json_format.ParseDict(json.loads(json.dumps(body), object_hook=_without_ids), ExportTraceServiceRequest())
    for source, target in zip(body["resourceSpans"], request.resource_spans, strict=True):
        for one, encoded in zip(source["scopeSpans"][0]["spans"], target.scope_spans[0].spans, strict=True):
            encoded.trace_id = bytes.fromhex(one["traceId"])
            encoded.span_id = bytes.fromhex(one["spanId"])
    return request.SerializeToString()


def _without_ids(fields):
    return {name: value for name, value in fields.items() if name not in {"traceId", "spanId"}}


def send(meter, *spans, **resource):
    reply = meter.post(PATH, export(*spans, **resource))
    assert reply.status == 200, reply.body
    return reply.json


def events(meter):
    return list(Event.objects.filter(workspace_id=meter.workspace_id).order_by("external_request_id"))


def only_event(meter):
    (event,) = events(meter)
    return event


def rejected(body):
    partial = body["partialSuccess"]
    return int(partial["rejectedSpans"]), partial["errorMessage"]
