"""The OpenTelemetry endpoint as OpenAPI 3.0: the part of OTLP/JSON that Opsmeter reads. All else is ignored."""

from typing import Any

Schema = dict[str, Any]

SUMMARY = "Send an OpenTelemetry trace export"
DESCRIPTION = (
    "OTLP/HTTP, protobuf or JSON, plain or gzip; at most 5 MiB before and after inflation. Set an exporter's endpoint "
    "to `…/v1/otlp` and its header `X-API-Key`.\n\n"
    "Spans whose `gen_ai.operation.name` is `chat`, `text_completion`, `generate_content` or `embeddings` become "
    "events; every other span (agents, workflows, tools) is accepted and not counted, so that no usage is counted "
    "twice. The trace id and span id are the idempotency key. An export is one request for the rate limit, and as "
    "many as it has model calls for the quota."
)
ACCEPTED = (
    "The export was read. Model calls that were not stored (invalid, plan limit, hard stop) are counted in "
    "`partialSuccess`, which is absent if there are none. In the encoding of the request."
)


def _object(description: str = "", **properties: Schema) -> Schema:
    described = {"description": description} if description else {}
    return {"type": "object", "nullable": True, "properties": properties, **described}


def _list(items: Schema) -> Schema:
    return {"type": "array", "nullable": True, "items": {**items, "nullable": False}}


def _number(description: str, minimum: int, maximum: int, digits: str) -> Schema:
    return {
        "anyOf": [
            {"type": "string", "pattern": f"^{digits}$", "nullable": True},
            {"type": "integer", "minimum": minimum, "maximum": maximum},
        ],
        "description": f"{description} 64 bits: its digits as a string, or a number.",
    }


def _text(description: str) -> Schema:
    return {"type": "string", "nullable": True, "description": description}


def _nanoseconds(description: str) -> Schema:
    return _number(description, 0, 2**64 - 1, "[0-9]{1,19}")


_ATTRIBUTES = _list(
    _object(
        key=_text("Such as `gen_ai.request.model`."),
        value=_object(
            "One plain value; lists and maps are ignored.",
            stringValue=_text("Text."),
            boolValue={"type": "boolean", "nullable": True},
            intValue=_number("A whole number.", -(2**63), 2**64 - 1, "-?[0-9]{1,19}"),
            doubleValue={"anyOf": [{"type": "number", "nullable": True}, {"type": "string"}]},
        ),
    )
)
_SPAN = _object(
    traceId=_text("32 hexadecimal digits."),
    spanId=_text("16 hexadecimal digits."),
    startTimeUnixNano=_nanoseconds("When the call began."),
    endTimeUnixNano=_nanoseconds("When it ended."),
    attributes=_ATTRIBUTES,
    status=_object(code={"anyOf": [{"type": "integer", "nullable": True}, {"type": "string"}]}),
)
_REQUEST = _object(
    resourceSpans=_list(
        _object(resource=_object(attributes=_ATTRIBUTES), scopeSpans=_list(_object(spans=_list(_SPAN))))
    )
)

OTLP_SCHEMAS: dict[str, Schema] = {
    "OtlpTraceRequest": {
        **_REQUEST,
        "nullable": False,
        "description": "An ExportTraceServiceRequest. Only the fields named here are read.",
    },
    "OtlpTraceResponse": {
        "type": "object",
        "description": "An ExportTraceServiceResponse.",
        "properties": {
            "partialSuccess": {
                "type": "object",
                "properties": {
                    "rejectedSpans": {"type": "string", "description": "How many, in digits."},
                    "errorMessage": {"type": "string", "description": "Why, for people."},
                },
                "required": ["rejectedSpans", "errorMessage"],
            }
        },
    },
}


def _pair(key: str, **value: str) -> Schema:
    return {"key": key, "value": value}


REQUEST_EXAMPLE: Schema = {
    "resourceSpans": [
        {
            "resource": {"attributes": [_pair("service.name", stringValue="support/summarize")]},
            "scopeSpans": [
                {
                    "spans": [
                        {
                            "traceId": "5b8efff798038103d269b633813fc60c",
                            "spanId": "eee19b7ec3c1b174",
                            "name": "chat gpt-4o-mini",
                            "attributes": [
                                _pair("gen_ai.operation.name", stringValue="chat"),
                                _pair("gen_ai.provider.name", stringValue="openai"),
                                _pair("gen_ai.response.model", stringValue="gpt-4o-mini"),
                                _pair("gen_ai.usage.input_tokens", intValue="120"),
                                _pair("gen_ai.usage.output_tokens", intValue="45"),
                            ],
                        }
                    ]
                }
            ],
        }
    ]
}
PARTIAL_EXAMPLE: Schema = {
    "partialSuccess": {
        "rejectedSpans": "2",
        "errorMessage": "2 of 5 model calls were not stored: plan_limit_reached (2).",
    }
}


def with_protobuf(message: Schema) -> Schema:
    """A request body or an answer, with protobuf as its other encoding."""
    protobuf = {"application/x-protobuf": {"schema": {"type": "string", "format": "binary"}}}
    return {**message, "content": {**message["content"], **protobuf}}
