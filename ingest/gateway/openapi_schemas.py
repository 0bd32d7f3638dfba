"""The gateway's JSON, described by hand: the wire contract, section 1, as OpenAPI 3.0 schemas and examples."""

from typing import Any

Schema = dict[str, Any]

_MAX_TOKENS = 1_000_000_000


def _text(description: str, maximum: int = 200, **more: Any) -> Schema:
    return {"type": "string", "maxLength": maximum, "description": description, **more}


def _optional_text(description: str, **more: Any) -> Schema:
    return _text(description, nullable=True, **more)


def _tokens(description: str, maximum: int = _MAX_TOKENS, **more: Any) -> Schema:
    return {"type": "integer", "minimum": 0, "maximum": maximum, "description": description, **more}


def _choice(description: str, *values: str) -> Schema:
    """An optional name: trimmed and case-folded by the server; null means the default, which comes first."""
    text = f"{description} Default `{values[0]}`; case and surrounding blanks make no difference."
    return {"type": "string", "enum": [*values, None], "nullable": True, "description": text}


def _flag(description: str) -> Schema:
    return {"type": "boolean", "description": description}


def _object(properties: Schema, *, optional: tuple[str, ...] = (), **more: Any) -> Schema:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, **more}


_USD = {"type": "number", "minimum": 0}
_REQUIRED_EVENT_FIELDS = ("provider", "model", "inputTokens", "outputTokens", "status")

_EVENT_PROPERTIES: Schema = {
    "externalRequestId": _optional_text(
        "Idempotency key, unique in the workspace: a repeat is answered 200 and counts nothing. Missing or empty: a "
        "generated id is used, with a warning.",
    ),
    "provider": _text("Who served the call, such as `openai`.", 100, minLength=1),
    "model": _text("The model as the provider calls it. Unknown ones are stored as unpriced.", minLength=1),
    "promptVersion": _optional_text("Version of the prompt. Default `unknown`."),
    "endpointTag": _optional_text("The feature or route that made the call. Default `unknown`."),
    "inputTokens": _tokens("All input tokens, cached ones included (but see `usageConvention`)."),
    "outputTokens": _tokens("All output tokens, reasoning included."),
    "totalTokens": _tokens(
        "Default input + output; another value is stored, with a warning.", 4 * _MAX_TOKENS, nullable=True
    ),
    "latencyMs": {
        "type": "integer",
        "minimum": 0,
        "maximum": 86_400_000,
        "nullable": True,
        "description": "Duration of the provider call in milliseconds.",
    },
    "status": {"type": "string", "enum": ["success", "error"], "description": "How the provider call ended."},
    "errorCode": {
        "anyOf": [{"type": "string", "maxLength": 200, "nullable": True}, {"type": "integer"}],
        "description": "The provider's error code; stored as text.",
    },
    "userId": _optional_text("Your user. Missing groups as `unknown`."),
    "tenantId": _optional_text("Your customer. Also read from `metadata.tenantId`."),
    "featureTag": _optional_text("The product feature. Also read from `metadata.feature`."),
    "createdAt": {
        "type": "string",
        "format": "date-time",
        "nullable": True,
        "description": "When the call happened; default now. At most 35 days ago and 5 minutes ahead. ISO 8601; UTC "
        "unless it names an offset.",
    },
    "occurredAt": {
        "type": "string",
        "format": "date-time",
        "nullable": True,
        "description": "Another name of `createdAt`, which wins when both are sent.",
    },
    "dataMode": _choice("Demo rows use no plan quota.", "real", "test", "demo"),
    "environment": _choice("Where the caller runs.", "prod", "staging", "dev"),
    "metadata": {
        "type": "object",
        "nullable": True,
        "additionalProperties": {
            "anyOf": [{"type": "string", "nullable": True}, {"type": "number"}, {"type": "boolean"}]
        },
        "description": "Scalar values and nulls, at most 4 KiB as JSON.",
    },
    "cachedInputTokens": _tokens("Read from the provider's cache; part of `inputTokens`.", nullable=True),
    "cacheWriteTokens": _tokens("Written to the provider's cache; part of `inputTokens`.", nullable=True),
    "reasoningTokens": _tokens("Part of `outputTokens`.", nullable=True),
    "usageConvention": _choice(
        "`exclusive` says that cached and cache-write tokens come on top of `inputTokens`.", "inclusive", "exclusive"
    ),
    "serviceTier": _choice("The provider's price tier of the call.", "standard", "batch", "flex", "priority"),
    "costUsd": {
        **_USD,
        "maximum": 10_000_000,
        "nullable": True,
        "description": "The provider's own figure, if it gave one; stored beside ours, never replacing it.",
    },
}

_FLAGS: Schema = {
    "telemetryPaused": _flag("The plan limit is reached: telemetry is refused until the plan or the month changes."),
    "providerCallsContinue": _flag("Always true: Opsmeter is never in the path of a provider call."),
    "isPlanLimitReached": _flag("The plan's requests of this UTC month are used up."),
    "budgetWarning": _flag("Spend has reached the warning threshold of a daily or monthly budget."),
    "budgetExceeded": _flag("Spend is above a daily or monthly budget."),
    "planLimitRequests": {"type": "integer", "minimum": 0, "description": "Requests a UTC month; 0: no limit."},
    "freeLimitRemainingRequests": {
        "type": "integer",
        "minimum": 0,
        "description": "Requests left this UTC month, on every plan; the name is historical.",
    },
}
_WARNINGS: Schema = {"type": "array", "items": {"type": "string"}}
_PLAN_TIER = {"type": "string", "description": "The plan's display name, such as `Free`."}
_COST = {**_USD, "nullable": True, "description": "What the call cost, in USD; null: no price is known (unpriced)."}
_DUPLICATE = _flag("The id was stored before: nothing was added to any counter.")
_ERRORS: Schema = {
    "type": "array",
    "items": _object({"field": {"type": "string"}, "message": {"type": "string"}}),
    "description": "Each field at fault, as the client wrote it; the empty name is the body itself.",
}
_BUDGET = _object(
    {
        "id": {"type": "string"},
        "name": {"type": "string"},
        "scope": {"type": "string"},
        "period": {"type": "string", "enum": ["daily", "monthly"]},
        "limitUsd": _USD,
        "currentSpendUsd": _USD,
        "resetsAt": {"type": "string", "format": "date-time"},
    },
    description="The hard-stop budget that refused the event.",
)
_BATCH_COUNTS: Schema = {
    "accepted": {"type": "integer", "minimum": 0, "description": "New events stored."},
    "duplicates": {"type": "integer", "minimum": 0, "description": "Events that were stored before."},
    "rejected": {"type": "integer", "minimum": 0, "description": "Events that were not stored."},
    "results": {
        "type": "array",
        "items": {"$ref": "#/components/schemas/TelemetryBatchResult"},
        "description": "One an event, in order.",
    },
}

SCHEMAS: dict[str, Schema] = {
    "TelemetryEvent": {
        "type": "object",
        "description": "One LLM call. Unknown fields are ignored; prompts and completions have no field.",
        "properties": _EVENT_PROPERTIES,
        "required": list(_REQUIRED_EVENT_FIELDS),
    },
    "TelemetryBatch": _object(
        {
            "events": {
                "type": "array",
                "items": {"$ref": "#/components/schemas/TelemetryEvent"},
                "minItems": 1,
                "maxItems": 1_000,
            }
        }
    ),
    "TelemetryAccepted": _object(
        {
            "ok": _flag("Always true."),
            "accepted": _flag("Always true: the row is committed and every counter includes it."),
            "duplicate": _DUPLICATE,
            "reason": {"type": "string", "nullable": True, "enum": [None], "description": "Always null."},
            "warnings": _WARNINGS,
            "planTier": _PLAN_TIER,
            **_FLAGS,
            "externalRequestId": {"type": "string", "description": "As stored; generated if none was sent."},
            "costUsd": _COST,
        }
    ),
    "TelemetryBatchResult": _object(
        {
            "externalRequestId": {"type": "string", "nullable": True},
            "accepted": _flag("The row is stored, now or before."),
            "duplicate": _DUPLICATE,
            "reason": {
                "type": "string",
                "nullable": True,
                "enum": ["invalid_payload", "invalid_json", "plan_limit_reached", "budget_exceeded", None],
            },
            "costUsd": _COST,
            "warnings": _WARNINGS,
            "errors": _ERRORS,
        }
    ),
    "TelemetryBatchAccepted": _object(
        {
            "ok": _flag("Always true: the batch was read. Look at each result."),
            "reason": {"type": "string", "nullable": True, "enum": [None], "description": "Always null."},
            "warnings": _WARNINGS,
            "planTier": _PLAN_TIER,
            **_FLAGS,
            **_BATCH_COUNTS,
        }
    ),
    "TelemetryRefused": _object(
        {
            "ok": _flag("Always false."),
            "accepted": _flag("Always false: nothing was stored."),
            "reason": {"type": "string", "enum": ["plan_limit_reached", "budget_exceeded"]},
            **_FLAGS,
            "budget": _BUDGET,
        },
        optional=("budget",),
    ),
    "TelemetryBatchRefused": _object(
        {
            "ok": _flag("Always false."),
            "reason": {"type": "string", "enum": ["plan_limit_reached", "budget_exceeded"]},
            "warnings": _WARNINGS,
            "planTier": _PLAN_TIER,
            **_FLAGS,
            "budget": _BUDGET,
            **_BATCH_COUNTS,
        },
        optional=("budget",),
    ),
    "TelemetryError": _object(
        {
            "ok": _flag("Always false."),
            "accepted": _flag("Always false: nothing was stored."),
            "reason": {"type": "string", "description": "For machines; stable."},
            **_FLAGS,
            "message": {"type": "string", "description": "For people."},
            "errors": _ERRORS,
        },
        optional=("message", "errors"),
    ),
}

EVENT_EXAMPLE: dict[str, Any] = {
    "externalRequestId": "ext_01hs5y6b1w",
    "provider": "openai",
    "model": "gpt-4o-mini",
    "promptVersion": "summary_v3",
    "endpointTag": "support/summarize",
    "inputTokens": 120,
    "outputTokens": 45,
    "latencyMs": 820,
    "status": "success",
    "tenantId": "acme",
}
_OPEN_FLAGS: dict[str, Any] = {
    "telemetryPaused": False,
    "providerCallsContinue": True,
    "isPlanLimitReached": False,
    "budgetWarning": False,
    "budgetExceeded": False,
    "planLimitRequests": 10000,
    "freeLimitRemainingRequests": 9999,
}
ACCEPTED_EXAMPLE: dict[str, Any] = {
    "ok": True,
    "accepted": True,
    "duplicate": False,
    "reason": None,
    "warnings": [],
    "planTier": "Free",
    **_OPEN_FLAGS,
    "externalRequestId": "ext_01hs5y6b1w",
    "costUsd": 0.000045,
}
# The one of the public documentation.
PLAN_LIMIT_EXAMPLE: dict[str, Any] = {
    "ok": False,
    "accepted": False,
    "reason": "plan_limit_reached",
    "telemetryPaused": True,
    "providerCallsContinue": True,
    "isPlanLimitReached": True,
    "budgetWarning": False,
    "budgetExceeded": False,
    "planLimitRequests": 100000,
    "freeLimitRemainingRequests": 0,
}
BUDGET_EXAMPLE: dict[str, Any] = {
    **PLAN_LIMIT_EXAMPLE,
    "reason": "budget_exceeded",
    "telemetryPaused": False,
    "isPlanLimitReached": False,
    "budgetWarning": True,
    "budgetExceeded": True,
    "freeLimitRemainingRequests": 1769,
    "budget": {
        "id": "5c0d6f0e-8c3e-4b65-9a0b-7a8f6a3d9c11",
        "name": "Daily budget",
        "scope": "workspace",
        "period": "daily",
        "limitUsd": 50,
        "currentSpendUsd": 50.01,
        "resetsAt": "2026-03-08T00:00:00Z",
    },
}
BATCH_EXAMPLE: dict[str, Any] = {
    "ok": True,
    "reason": None,
    "warnings": [],
    "planTier": "Free",
    **_OPEN_FLAGS,
    "accepted": 1,
    "duplicates": 0,
    "rejected": 1,
    "results": [
        {
            "externalRequestId": "ext_01hs5y6b1w",
            "accepted": True,
            "duplicate": False,
            "reason": None,
            "costUsd": 0.000045,
            "warnings": [],
            "errors": [],
        },
        {
            "externalRequestId": "ext_01hs5y6b1x",
            "accepted": False,
            "duplicate": False,
            "reason": "invalid_payload",
            "costUsd": None,
            "warnings": [],
            "errors": [{"field": "inputTokens", "message": "Expected `int` >= 0."}],
        },
    ],
}


def error_example(reason: str, *errors: dict[str, str]) -> dict[str, Any]:
    """An error answer as the gateway writes it."""
    flags = dict.fromkeys(_OPEN_FLAGS, False) | {
        "providerCallsContinue": True,
        "planLimitRequests": 0,
        "freeLimitRemainingRequests": 0,
    }
    body: dict[str, Any] = {"ok": False, "accepted": False, "reason": reason, **flags}
    return body | {"errors": list(errors)} if errors else body
