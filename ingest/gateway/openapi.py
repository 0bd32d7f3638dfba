"""Puts the gateway's endpoints, which are not Django views, into the OpenAPI document."""

from collections.abc import Mapping
from typing import Any

from ingest.gateway import openapi_asks as asks
from ingest.gateway import openapi_otlp as otlp
from ingest.gateway.openapi_schemas import (
    ACCEPTED_EXAMPLE,
    BATCH_EXAMPLE,
    BUDGET_EXAMPLE,
    EVENT_EXAMPLE,
    PLAN_LIMIT_EXAMPLE,
    SCHEMAS,
    error_example,
)

SECURITY_SCHEME = "ApiKey"


def add_gateway_endpoints(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """A drf-spectacular post-processing hook; the signature is its."""
    components = result.setdefault("components", {})
    components["schemas"] = dict(
        sorted((components.get("schemas", {}) | SCHEMAS | asks.SCHEMAS | otlp.OTLP_SCHEMAS).items())
    )
    paths = result.get("paths", {})
    merged = {path: paths.get(path, {}) | operations for path, operations in PATHS.items()}
    result["paths"] = dict(sorted((paths | merged).items()))
    return result


def _header(description: str, **schema: Any) -> dict[str, Any]:
    return {"required": True, "description": description, "schema": {"type": "integer", **schema}}


_RATE_HEADERS = {
    "X-RateLimit-Limit": _header("Ingest requests a minute for the workspace.", minimum=1),
    "X-RateLimit-Remaining": _header("Requests left in this window.", minimum=0),
    "X-RateLimit-Reset": _header("When the window resets, Unix time in seconds (UTC).", minimum=0),
}
_RETRY_AFTER = {"Retry-After": _header("Whole seconds to wait before the next attempt.", minimum=1)}
_ALLOW = {"Allow": {"required": True, "description": "`POST`", "schema": {"type": "string"}}}


def _answer(
    description: str, schema: str, examples: Mapping[str, Any], headers: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    return {
        "description": description,
        "headers": dict(headers or {}),
        "content": {
            "application/json": {
                "schema": {"$ref": f"#/components/schemas/{schema}"},
                "examples": {name: {"value": value} for name, value in examples.items()},
            }
        },
    }


def _errors(max_body: str) -> dict[str, Any]:
    """The error answers that all gateway endpoints share."""

    def error(
        description: str, *reasons: str, headers: Mapping[str, Any], fields: tuple[dict[str, str], ...] = ()
    ) -> dict[str, Any]:
        examples = {reason: error_example(reason, *fields) for reason in reasons}
        return _answer(description, "TelemetryError", examples, headers)

    field = {"field": "inputTokens", "message": "Required."}
    return {
        "400": error(
            "Not JSON, or a field is at fault; `errors` says which and why.",
            "invalid_payload",
            "invalid_json",
            headers=_RATE_HEADERS,
            fields=(field,),
        ),
        "401": error(
            "The API key is missing, malformed, unknown, expired or revoked.",
            "missing_api_key",
            "invalid_api_key",
            headers={},
        ),
        "403": error("The API key is good, but may not do this.", "key_not_allowed", headers={}),
        "405": error("Only POST.", "method_not_allowed", headers=_ALLOW),
        "413": error(f"The body is larger than {max_body}.", "payload_too_large", headers=_RATE_HEADERS),
        "415": error(
            "The body must be `application/json` in UTF-8, uncompressed.",
            "unsupported_media_type",
            headers=_RATE_HEADERS,
        ),
        "429": error(
            "Too many requests this minute. Nothing was stored; retry later, and do not block your own work on it.",
            "rate_limited",
            headers=_RATE_HEADERS | _RETRY_AFTER,
        ),
        "503": error(
            "The database is away: nothing was stored and nothing was acknowledged. Retry under the same id.",
            "unavailable",
            headers=_RETRY_AFTER,
        ),
    }


_REFUSALS = {"plan_limit_reached": PLAN_LIMIT_EXAMPLE, "budget_exceeded": BUDGET_EXAMPLE}
_REFUSAL_TEXT = "The plan limit is reached, or a hard-stop budget exceeded. Nothing was stored; provider calls go on."
_SINGLE_REFUSED = _answer(_REFUSAL_TEXT, "TelemetryRefused", _REFUSALS, _RATE_HEADERS)
_BATCH_REFUSED = _answer(
    f"Every event was refused for the same reason. {_REFUSAL_TEXT}", "TelemetryBatchRefused", {}, _RATE_HEADERS
)
_ACCEPTED = _answer(
    "Committed: the row is stored and every counter includes it. Also for a repeat of a stored row.",
    "TelemetryAccepted",
    {
        "stored": ACCEPTED_EXAMPLE,
        "repeat": {**ACCEPTED_EXAMPLE, "duplicate": True},
        "unpriced": {
            **ACCEPTED_EXAMPLE,
            "costUsd": None,
            "warnings": ["No price is known for acme/secret-1; stored as unpriced."],
        },
    },
    _RATE_HEADERS,
)


def _either(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """One status with two shapes: for a single event, and for the data set of an empty body."""
    media = [answer["content"]["application/json"] for answer in (first, second)]
    merged = {
        "schema": {"anyOf": [one["schema"] for one in media]},
        "examples": media[0]["examples"] | media[1]["examples"],
    }
    return {**first, "content": {"application/json": merged}}


def _post(
    operation_id: str,
    summary: str,
    description: str,
    body: dict[str, Any],
    answers: dict[str, Any],
    max_body: str,
    tag: str = "Ingest",
) -> dict[str, Any]:
    return {
        "post": {
            "operationId": operation_id,
            "tags": [tag],
            "summary": summary,
            "description": description,
            "security": [{SECURITY_SCHEME: []}],
            "requestBody": body,
            "responses": dict(sorted((_errors(max_body) | answers).items())),
        }
    }


def _body(schema: str, examples: Mapping[str, Any], *, required: bool = True) -> dict[str, Any]:
    media = {
        "schema": {"$ref": f"#/components/schemas/{schema}"},
        "examples": {name: {"value": value} for name, value in examples.items()},
    }
    return {"required": required, "content": {"application/json": media}}


_BATCH_ACCEPTED = _answer(
    "The batch was read. One bad or repeated event never fails the others.",
    "TelemetryBatchAccepted",
    {"one stored, one refused": BATCH_EXAMPLE},
    _RATE_HEADERS,
)

PATHS: dict[str, Any] = {
    "/v1/ingest/llm-request": _post(
        "ingestRequest",
        "Send one LLM call",
        "Order of checks: key, rate limit, payload, duplicate, plan limit, hard stop, store. Refusals use no quota.",
        _body("TelemetryEvent", {"event": EVENT_EXAMPLE}),
        {"200": _ACCEPTED, "402": _SINGLE_REFUSED},
        "64 KiB",
    ),
    "/v1/ingest/llm-requests": _post(
        "ingestRequests",
        "Send up to 1,000 LLM calls",
        "One request for the rate limit, and as many as there are events for the quota. Body at most 5 MiB.",
        _body("TelemetryBatch", {"batch": {"events": [EVENT_EXAMPLE]}}),
        {"200": _BATCH_ACCEPTED, "402": _BATCH_REFUSED},
        "5 MiB",
    ),
    "/v1/ingest/demo": _post(
        "ingestDemo",
        "Send demo data",
        "One event, or with an empty body a small believable data set. Always stored as `dataMode` `demo`, "
        "which uses no plan quota.",
        _body("TelemetryEvent", {"event": EVENT_EXAMPLE}, required=False),
        {"200": _either(_ACCEPTED, _BATCH_ACCEPTED), "402": _either(_SINGLE_REFUSED, _BATCH_REFUSED)},
        "64 KiB",
    ),
    "/v1/otlp/v1/traces": _post(
        "ingestOtlpTraces",
        otlp.SUMMARY,
        otlp.DESCRIPTION,
        otlp.with_protobuf(_body("OtlpTraceRequest", {"one model call": otlp.REQUEST_EXAMPLE})),
        {
            "200": otlp.with_protobuf(
                _answer(
                    otlp.ACCEPTED,
                    "OtlpTraceResponse",
                    {"all stored": {}, "some refused": otlp.PARTIAL_EXAMPLE},
                    _RATE_HEADERS,
                )
            ),
            "415": _answer(
                "The body must be `application/x-protobuf` or `application/json`, plain or gzip.",
                "TelemetryError",
                {"unsupported_media_type": error_example("unsupported_media_type")},
                _RATE_HEADERS,
            ),
        },
        "5 MiB",
    ),
    **{
        path: _post(
            operation.operation_id,
            operation.summary,
            operation.description,
            _body(operation.question, operation.questions),
            {"200": _answer(operation.answered, operation.answer, operation.answers, _RATE_HEADERS)},
            "64 KiB",
            "Budgets",
        )
        for path, operation in asks.OPERATIONS.items()
    },
}
